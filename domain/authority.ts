// Who may speak for which device: the one rule behind every door of the intake. Pure; who somebody is was settled before.
import { type DeviceName, defaultTenant, isDeviceName, isDeviceNamePrefix, type Tenant } from './reading.ts'

/** What a token stands for. It decides the tenant; a request never does. */
export interface DeviceCredential {
  /** Of the token, for people and logs; no secret. */
  readonly tokenId: string
  readonly tenant: Tenant
  readonly device: DeviceName
  /** Names of further devices, or their beginnings and `*`: a gateway's. */
  readonly speaksFor: readonly string[]
}

/** Without authentication everybody speaks for everything. */
export const everyone: DeviceCredential = { tokenId: '', tenant: defaultTenant, device: '', speaksFor: ['*'] }

export function maySpeakFor({ device: own, speaksFor }: DeviceCredential, device: DeviceName): boolean {
  if (device === own) return true
  for (const pattern of speaksFor) if (matchesPattern(pattern, device)) return true
  return false
}

/** Every device there is or will be. */
export function speaksForAll({ speaksFor }: DeviceCredential): boolean {
  return speaksFor.includes('*')
}

/** A name, or the beginning of one and `*`; `*` alone is every device. */
export function isDevicePattern(pattern: string): boolean {
  if (!pattern.endsWith('*')) return isDeviceName(pattern)
  return pattern === '*' || isDeviceNamePrefix(pattern.slice(0, -1))
}

/** Sessions and client ids belong to a device, not to one of its tokens: a device may change its token. */
export function ownerOf({ tenant, device }: DeviceCredential): string {
  return `${tenant}/${device}`
}

function matchesPattern(pattern: string, device: DeviceName): boolean {
  return pattern.endsWith('*') ? device.startsWith(pattern.slice(0, -1)) : pattern === device
}
