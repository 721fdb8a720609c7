// What Weir is about: one value of one metric of one device at one instant, and the names and bounds that go with it.
// Instants inside Weir are epoch microseconds in a JavaScript number (exact up to the year 2255); outside they are as API.md says.

/** Epoch microseconds, a whole number. */
export type Micros = number

export type Tenant = string
export type DeviceName = string
export type MetricName = string

/** A number reading has `value`; a text reading has `text` and no value. Identity: tenant, device, metric, observedAt. */
export interface Reading {
  readonly tenant: Tenant
  readonly device: DeviceName
  readonly metric: MetricName
  /** The device's clock; `receivedAt` where the device gave none. */
  readonly observedAt: Micros
  /** Our clock; strictly increasing within a partition of one ingest process. */
  readonly receivedAt: Micros
  readonly value: number | string
}

export const defaultTenant: Tenant = 'default'

export const metricNameLengthMax = 128
export const textBytesMax = 1024
/** A device's clock may run ahead of ours by this much; a reading beyond it is refused. */
export const futureMsMax = 24 * 60 * 60 * 1000

const deviceNamePattern = /^[A-Za-z0-9._:@-]{1,128}$/

/** What a device's name may begin with. */
export function isDeviceNamePrefix(text: string): boolean {
  return deviceNamePattern.test(text)
}

/** `.` and `..` are no names: in an address they mean another place, and clients fold them away before they ask. */
export function isDeviceName(name: string): boolean {
  return deviceNamePattern.test(name) && name !== '.' && name !== '..'
}

/** 1–128 characters (Unicode code points), none of them a control character. */
export function isMetricName(name: string): boolean {
  if (name.length === 0 || name.length > 2 * metricNameLengthMax) return false
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused
  if (/[\u0000-\u001f\u007f-\u009f]/.test(name) || !name.isWellFormed()) return false
  return name.length <= metricNameLengthMax || [...name].length <= metricNameLengthMax
}
