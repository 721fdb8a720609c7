// The newest reading of every series, in memory: "now" is answered without asking the table, also while the store is away. Fed from the table
// once and from the log always; both may say the same thing twice, in any order. Per reading: one hash, a few comparisons, no allocation.

import type { Micros } from '../../domain/reading.ts'
import { encodeRowPrefix, RowCursor } from '../../domain/row-format.ts'
import { enlarged, noSeries, SeriesDirectory, type SeriesNames } from './series-directory.ts'

export interface LastReading extends SeriesNames {
  readonly observedAt: Micros
  readonly receivedAt: Micros
  readonly value: number | string
}

/** What the table knows of a series. */
export interface StoredSeries extends LastReading {
  readonly firstReceivedAt: Micros
  readonly lastReceivedAt: Micros
  /** Mean distance of its recent readings; 0: not known. */
  readonly intervalMicros: Micros
}

/** Readings of a series older than its newest, or in its place, since somebody last took them: which of them is told, and the range of all. */
export interface LateReadings {
  readonly observedAt: Micros
  readonly value: number | string
  /** The told one is the newest of its series, corrected. */
  readonly isNewest?: boolean | undefined
  readonly from: Micros
  /** In. */
  readonly to: Micros
}

export interface DeviceState {
  readonly tenant: string
  readonly device: string
  firstReceivedAt: Micros
  lastReceivedAt: Micros
  /** Usual distance between two times at which it is heard from; 0: not known yet. */
  intervalMicros: Micros
  /** Beginning of the current slot: what comes within it belongs to the same time of being heard from. */
  slotAt: Micros
  readonly series: number[]
}

/** Distances below this are not told apart: `online` never asks for less than a minute. */
const slotMicros = 10_000_000
const onlineMicrosMin = 60_000_000

export class LastValues {
  readonly directory: SeriesDirectory
  readonly devices = new Map<string, DeviceState>()
  /** Readings of series that there was no room for. */
  untracked = 0
  /** Series whose newest reading changed since `takeChanged`; only filled while somebody asks for it. */
  collectChanged = false
  private changed: number[] = []
  private isChanged = new Uint8Array(1_024)
  /** By series; filled while `collectChanged`. Whoever sends them deletes them. */
  readonly late = new Map<number, LateReadings>()
  /** False while the table is yet to say what it knows: what looks like the newest of a series may be older than that. */
  isWhole = true
  private names: SeriesNames[] = []
  private deviceOf: DeviceState[] = []
  private observedAt = new Float64Array(1_024)
  private receivedAt = new Float64Array(1_024)
  private value = new Float64Array(1_024)
  /** Of text series only. */
  private readonly texts = new Map<number, string>()
  /** By tenant: names in order, and those that came since they were put in order. */
  private readonly deviceLists = new Map<string, { sorted: string[]; added: string[] }>()

  constructor(seriesMax = 1_000_000) {
    this.directory = new SeriesDirectory(seriesMax)
  }

  get seriesCount(): number {
    return this.directory.count
  }

  /** Takes in a chunk's rows. */
  apply(rows: Uint8Array): void {
    const cursor = new RowCursor(rows)
    let id = noSeries
    while (cursor.next()) {
      if (!cursor.isSameSeries) id = this.identify(rows, cursor)
      if (id === noSeries) {
        this.untracked++
        continue
      }
      const receivedAt = cursor.receivedAt
      const device = this.deviceOf[id]!
      if (receivedAt > device.lastReceivedAt) device.lastReceivedAt = receivedAt
      if (receivedAt - device.slotAt >= slotMicros || device.slotAt === 0) heard(device, receivedAt)
      const observedAt = cursor.observedAt
      const last = this.observedAt[id]!
      if (observedAt > last) {
        this.set(id, observedAt, receivedAt, cursor.value)
        if (cursor.isText()) this.texts.set(id, cursor.text())
      } else if (observedAt < last) {
        if (this.collectChanged) this.noteLate(id, cursor)
      } else if (receivedAt >= this.receivedAt[id]!) this.correct(id, cursor)
    }
  }

  /** The series of the row at which the cursor stands, also when its values are yet to be taken in; `noSeries` when there is no room. */
  identify(rows: Uint8Array, cursor: RowCursor): number {
    const id = this.directory.find(rows, cursor.prefixStart, cursor.prefixEnd)
    if (id !== noSeries && id === this.names.length) this.register(cursor.tenant(), cursor.device(), cursor.metric())
    return id
  }

  /** Takes in what the table knows; the log may already have said newer things. */
  applyStored(stored: StoredSeries): void {
    const prefix = encodeRowPrefix(stored.tenant, stored.device, stored.metric)
    const id = this.directory.find(prefix, 0, prefix.length)
    if (id === noSeries) {
      this.untracked++
      return
    }
    if (id === this.names.length) this.register(stored.tenant, stored.device, stored.metric)
    const device = this.deviceOf[id]!
    if (device.firstReceivedAt === 0 || stored.firstReceivedAt < device.firstReceivedAt) {
      device.firstReceivedAt = stored.firstReceivedAt
    }
    device.lastReceivedAt = Math.max(device.lastReceivedAt, stored.lastReceivedAt)
    device.slotAt = Math.max(device.slotAt, stored.lastReceivedAt)
    // The metric that comes most often says how often the device does.
    const interval = stored.intervalMicros
    if (interval > 0 && (device.intervalMicros === 0 || interval < device.intervalMicros)) {
      device.intervalMicros = interval
    }
    const last = this.observedAt[id]!
    if (stored.observedAt < last || (stored.observedAt === last && stored.receivedAt < this.receivedAt[id]!)) return
    const isText = typeof stored.value === 'string'
    this.set(id, stored.observedAt, stored.receivedAt, isText ? Number.NaN : (stored.value as number))
    if (isText) this.texts.set(id, stored.value as string)
  }

  /** False for a series of which only the name was seen so far. */
  hasValue(id: number): boolean {
    return this.observedAt[id] !== Number.NEGATIVE_INFINITY
  }

  namesOf(id: number): SeriesNames {
    return this.names[id]!
  }

  last(id: number): LastReading {
    const value = this.value[id]!
    const text = Number.isNaN(value) ? this.texts.get(id) : undefined
    return {
      ...this.names[id]!,
      observedAt: this.observedAt[id]!,
      receivedAt: this.receivedAt[id]!,
      value: text ?? value,
    }
  }

  /** Of the newest reading; -Infinity while there is none. */
  observedAtOf(id: number): Micros {
    return this.observedAt[id]!
  }

  /** When the newest reading was received. */
  receivedAtOf(id: number): Micros {
    return this.receivedAt[id]!
  }

  /** Of the newest reading of all; -Infinity while there is none. */
  observedAtMax(): Micros {
    let max = Number.NEGATIVE_INFINITY
    for (let id = 0; id < this.names.length; id++) if (this.observedAt[id]! > max) max = this.observedAt[id]!
    return max
  }

  device(tenant: string, device: string): DeviceState | undefined {
    return this.devices.get(deviceKey(tenant, device))
  }

  /** Names of a tenant's devices, in order. */
  deviceNames(tenant: string): readonly string[] {
    const list = this.deviceLists.get(tenant)
    if (!list) return []
    if (list.added.length > 0) {
      list.sorted = merged(list.sorted, list.added.sort())
      list.added = []
    }
    return list.sorted
  }

  /** Ids of a device's series, by metric. */
  seriesOf(device: DeviceState): readonly number[] {
    const metric = (id: number): string => this.names[id]!.metric
    return [...device.series].sort((a, b) => (metric(a) < metric(b) ? -1 : 1))
  }

  /** The id of a series that is named, as `identify` gives it. */
  identifyNamed(tenant: string, device: string, metric: string): number {
    const prefix = encodeRowPrefix(tenant, device, metric)
    const id = this.directory.find(prefix, 0, prefix.length)
    if (id !== noSeries && id === this.names.length) this.register(tenant, device, metric)
    return id
  }

  /** Ids whose newest reading changed since the last call; needs `collectChanged`. */
  takeChanged(): readonly number[] {
    const changed = this.changed
    for (const id of changed) this.isChanged[id] = 0
    this.changed = []
    return changed
  }

  /** The newest reading again, or another in its place: what was told of it before is told as revised, what was not is told as it is now. */
  private correct(id: number, cursor: RowCursor): void {
    const { value, receivedAt } = cursor
    const text = cursor.isText() ? cursor.text() : undefined
    const isSame = text === undefined ? Object.is(value, this.value[id]) : text === this.texts.get(id)
    this.receivedAt[id] = receivedAt
    if (isSame) return
    if (Number.isNaN(this.value[id]!)) this.texts.delete(id)
    this.value[id] = value
    if (text !== undefined) this.texts.set(id, text)
    if (this.collectChanged && this.isChanged[id] === 0) this.noteLate(id, cursor, true)
  }

  private noteLate(id: number, cursor: RowCursor, isNewest = false): void {
    const { observedAt } = cursor
    widen(this.late, id, observedAt, cursor.said(), isNewest)
  }

  private set(id: number, observedAt: Micros, receivedAt: Micros, value: number): void {
    this.observedAt[id] = observedAt
    this.receivedAt[id] = receivedAt
    // Looked up for series that had a text only: the map is asked once per text, never per number.
    if (Number.isNaN(this.value[id]!)) this.texts.delete(id)
    this.value[id] = value
    if (!this.collectChanged || this.isChanged[id] === 1) return
    this.isChanged[id] = 1
    this.changed.push(id)
  }

  private register(tenant: string, device: string, metric: string): void {
    const id = this.names.length
    if (id === this.observedAt.length) this.grow()
    const key = deviceKey(tenant, device)
    let state = this.devices.get(key)
    if (!state) {
      state = { tenant, device, firstReceivedAt: 0, lastReceivedAt: 0, intervalMicros: 0, slotAt: 0, series: [] }
      this.devices.set(key, state)
      const list = this.deviceLists.get(tenant)
      if (list) list.added.push(device)
      else this.deviceLists.set(tenant, { sorted: [], added: [device] })
    }
    state.series.push(id)
    this.names.push({ tenant: state.tenant, device: state.device, metric })
    this.deviceOf.push(state)
    this.observedAt[id] = Number.NEGATIVE_INFINITY
  }

  private grow(): void {
    const size = this.observedAt.length * 2
    this.observedAt = enlarged(this.observedAt, new Float64Array(size))
    this.receivedAt = enlarged(this.receivedAt, new Float64Array(size))
    this.value = enlarged(this.value, new Float64Array(size))
    this.isChanged = enlarged(this.isChanged, new Uint8Array(size))
  }
}

/**
 * One more of these late readings. The last of them is told; but a correction of the newest reading of its series (`isNewest`) is what the series is now,
 * and no late reading takes its place.
 */
export function widen(
  late: Map<number, LateReadings>,
  id: number,
  observedAt: Micros,
  value: number | string,
  isNewest = false,
): void {
  const known = late.get(id)
  const from = Math.min(observedAt, known?.from ?? observedAt)
  const to = Math.max(observedAt, known?.to ?? observedAt)
  const told = known?.isNewest && !isNewest ? known : { observedAt, value, isNewest }
  late.set(id, { observedAt: told.observedAt, value: told.value, isNewest: told.isNewest, from, to })
}

export function isOnline(device: DeviceState, now: Micros): boolean {
  return now - device.lastReceivedAt <= Math.max(3 * device.intervalMicros, onlineMicrosMin)
}

/** A running mean that one long silence does not spoil: a distance counts as at most four usual ones. */
function heard(device: DeviceState, receivedAt: Micros): void {
  if (device.firstReceivedAt === 0) device.firstReceivedAt = receivedAt
  if (device.slotAt > 0) {
    const distance = receivedAt - device.slotAt
    const usual = device.intervalMicros
    device.intervalMicros = usual === 0 ? distance : usual + (Math.min(distance, 4 * usual) - usual) / 4
  }
  device.slotAt = receivedAt
}

/** Sorting everything anew for each new device would hold up the loop in a large fleet. */
function merged(a: readonly string[], b: readonly string[]): string[] {
  const all: string[] = []
  let i = 0
  for (const each of b) {
    while (i < a.length && a[i]! < each) all.push(a[i++]!)
    all.push(each)
  }
  while (i < a.length) all.push(a[i++]!)
  return all
}

function deviceKey(tenant: string, device: string): string {
  return `${tenant}\0${device}`
}
