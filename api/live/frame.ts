// What a viewer is sent, made once for all who get the same: a frame holds its readings, and turns them into the bytes of a transport when the
// first viewer of that kind needs them. Server-sent events, JSON text and columns (docs/live.md) say the same.
import type { LiveBye, LiveCaughtUp, LiveGap, LiveRevision } from '../wire.ts'
import { encodeColumns } from './columns.ts'

export type LiveEventName = 'readings' | 'anomaly' | 'revision' | 'caught-up' | 'gap' | 'bye'

/** What does not change within a series, made once. */
export class SeriesLabel {
  readonly device: string
  readonly metric: string
  /** The beginning of each of its items as JSON. */
  readonly head: string
  private bytes: Buffer | undefined

  constructor(device: string, metric: string) {
    this.device = device
    this.metric = metric
    this.head = `{"device":${JSON.stringify(device)},"metric":${JSON.stringify(metric)},"observedAt":`
  }

  /** As it stands in the series table of a columnar frame. */
  columnBytes(): Buffer {
    if (this.bytes) return this.bytes
    const device = Buffer.from(this.device)
    const metric = Buffer.from(this.metric)
    const bytes = Buffer.alloc(3 + device.length + metric.length)
    bytes[0] = device.length
    device.copy(bytes, 1)
    bytes.writeUInt16LE(metric.length, 1 + device.length)
    metric.copy(bytes, 3 + device.length)
    this.bytes = bytes
    return bytes
  }
}

/** One reading, shared by every frame that holds it. */
export class LiveItem {
  readonly label: SeriesLabel
  /** Epoch milliseconds. */
  readonly observedAt: number
  readonly value: number | string
  private text: string | undefined

  constructor(label: SeriesLabel, observedAt: number, value: number | string) {
    this.label = label
    this.observedAt = observedAt
    this.value = value
  }

  json(): string {
    this.text ??= `${this.label.head}${this.observedAt},${valueJson(this.value)}}`
    return this.text
  }

  /** About as long as its JSON is, without making it. */
  get length(): number {
    return this.label.head.length + 32 + (typeof this.value === 'string' ? this.value.length : 0)
  }
}

/** A frame's bytes on a WebSocket. */
export interface SocketBytes {
  readonly bytes: Buffer
  readonly isBinary: boolean
}

export class LiveFrame {
  readonly event: LiveEventName
  /** '' for what lies beside the stream of readings. */
  readonly cursor: string
  private readonly items: readonly LiveItem[] | undefined
  private json: string | undefined
  private stream: Buffer | undefined
  /** By the subscription's id. */
  private readonly texts = new Map<string, SocketBytes>()
  private readonly columns = new Map<string, SocketBytes>()

  private constructor(event: LiveEventName, cursor: string, body: string | readonly LiveItem[]) {
    this.event = event
    this.cursor = cursor
    if (typeof body === 'string') this.json = body
    else this.items = body
  }

  static readings(cursor: string, items: readonly LiveItem[]): LiveFrame {
    return new LiveFrame('readings', cursor, items)
  }

  static revision(cursor: string, revised: Revised): LiveFrame {
    const { item, from, to } = revised
    const { label, observedAt, value } = item
    const body: LiveRevision = {
      cursor,
      device: label.device,
      metric: label.metric,
      observedAt,
      ...(typeof value === 'string' ? { text: value } : { value }),
      resolution: 'raw',
      from,
      to,
    }
    return new LiveFrame('revision', cursor, JSON.stringify(body))
  }

  static caughtUp(cursor: string): LiveFrame {
    return new LiveFrame('caught-up', cursor, JSON.stringify({ cursor } satisfies LiveCaughtUp))
  }

  static gap(cursor: string, gap: LiveGap): LiveFrame {
    return new LiveFrame('gap', cursor, JSON.stringify(gap))
  }

  /** `data` is the anomaly's JSON. */
  static anomaly(data: string): LiveFrame {
    return new LiveFrame('anomaly', '', data)
  }

  static bye(reason: LiveBye['reason'], cursor: string): LiveFrame {
    return new LiveFrame('bye', cursor, JSON.stringify({ reason, cursor } satisfies LiveBye))
  }

  /** JSON of an object. */
  data(): string {
    this.json ??= `{"cursor":${JSON.stringify(this.cursor)},"items":[${this.items!.map((item) => item.json()).join(',')}]}`
    return this.json
  }

  /** WHATWG HTML, 9.2; JSON has no line breaks, so each event has one data line. */
  streamBytes(): Buffer {
    if (this.stream) return this.stream
    const id = this.cursor === '' ? '' : `id: ${this.cursor}\n`
    this.stream = Buffer.from(`event: ${this.event}\n${id}data: ${this.data()}\n\n`)
    return this.stream
  }

  /** `id` is the JSON of the subscription's id, or '' for that of the address. */
  socketBytes(id: string, wantsColumns: boolean): SocketBytes {
    return wantsColumns && this.items ? this.columnBytes(id, this.items) : this.textBytes(id)
  }

  private textBytes(id: string): SocketBytes {
    const known = this.texts.get(id)
    if (known) return known
    // An anomaly has an id of its own.
    const idField = id === '' ? '' : `"${this.event === 'anomaly' ? 'subscription' : 'id'}":${id},`
    const cursorField = this.event === 'gap' && this.cursor !== '' ? `"cursor":${JSON.stringify(this.cursor)},` : ''
    const text = `{"type":"${this.event}",${idField}${cursorField}${this.data().slice(1)}`
    const made = { bytes: Buffer.from(text), isBinary: false }
    this.texts.set(id, made)
    return made
  }

  private columnBytes(id: string, items: readonly LiveItem[]): SocketBytes {
    const known = this.columns.get(id)
    if (known) return known
    const made = { bytes: encodeColumns(this.cursor, id, items), isBinary: true }
    this.columns.set(id, made)
    return made
  }
}

/** Late readings, or a correction, of one series: the last of them, and the range (`to` is out) in which they lie. Epoch milliseconds. */
export interface Revised {
  readonly item: LiveItem
  readonly from: number
  readonly to: number
}

function valueJson(value: number | string): string {
  return typeof value === 'string' ? `"text":${JSON.stringify(value)}` : `"value":${value}`
}
