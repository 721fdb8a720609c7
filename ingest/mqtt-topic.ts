// Which MQTT topics mean telemetry, which are ordinary messages between a device and its owner, and which are refused (API.md section 3).
// Pure: the front asks once per connection and topic, and keeps the answer.
import { type DeviceCredential, maySpeakFor, speaksForAll } from '../domain/authority.ts'
import { isDeviceName } from '../domain/reading.ts'
import { ingestLimits } from './limits.ts'

/** Last level of a telemetry topic, and the codec it names; none means JSON. */
const codecSuffixes: ReadonlySet<string> = new Set(['json', 'ndjson', 'senml', 'senml-cbor', 'cbor', 'msgpack', 'line'])

export type TopicRefusal =
  | 'device-name'
  | 'codec-suffix'
  | 'topic-outside'
  | 'topic-reserved'
  | 'topic-wildcard'
  | 'topic-too-long'
  | 'topic-too-deep'
  | 'topic-foreign'

/** MQTT 3.1.1 can't tell a publisher why it was refused: the log does, with what to do. */
export const refusalHints: Readonly<Record<TopicRefusal, string>> = {
  'device-name': 'a device is 1 to 128 characters of A-Z a-z 0-9 . _ : @ -, not . or ..',
  'codec-suffix': `telemetry goes to devices/{device}/telemetry, or …/telemetry/{codec} with one of ${[...codecSuffixes].join(', ')}`,
  'topic-outside': 'telemetry goes to devices/{device}/telemetry; WEIR_MQTT_TOPICS_OPEN=true lets any topic pass',
  'topic-reserved': 'topics that begin with $ are the broker’s own',
  'topic-wildcard': '+ and # are for subscriptions',
  'topic-too-long': `a topic has at most ${ingestLimits.topicBytesMax} bytes`,
  'topic-too-deep': `a topic has at most ${ingestLimits.topicLevelsMax} levels`,
  'topic-foreign':
    'a device publishes under its own devices/{device}/ alone: with its own token, or a gateway’s that speaks for it',
}

export type MqttTopic =
  | { readonly kind: 'telemetry'; readonly device: string; readonly codec: string }
  | { readonly kind: 'other' }
  | { readonly kind: 'refused'; readonly cause: TopicRefusal }

const refused = (cause: TopicRefusal): MqttTopic => ({ kind: 'refused', cause })
const other: MqttTopic = { kind: 'other' }

/** `open`: any topic may be published (WEIR_MQTT_TOPICS_OPEN). Telemetry that could not be kept is refused in both modes. */
export function readMqttTopic(topic: string, open: boolean): MqttTopic {
  if (Buffer.byteLength(topic) > ingestLimits.topicBytesMax) return refused('topic-too-long')
  if (topic.includes('+') || topic.includes('#')) return refused('topic-wildcard')
  // $SYS is the broker's own voice: a forged one could close any client (aedes listens to it).
  if (topic.startsWith('$')) return refused('topic-reserved')
  const levels = topic.split('/')
  if (levels.length > ingestLimits.topicLevelsMax) return refused('topic-too-deep')
  const [root, device = '', leaf, codec] = levels
  if (root !== 'devices') return open ? other : refused('topic-outside')
  if (leaf === 'telemetry') {
    if (!isDeviceName(device)) return refused('device-name')
    if (levels.length > 4 || (codec !== undefined && !codecSuffixes.has(codec))) return refused('codec-suffix')
    return { kind: 'telemetry', device, codec: codec ?? 'json' }
  }
  if (open) return other
  if (!isDeviceName(device)) return refused('device-name')
  return leaf === undefined ? refused('topic-outside') : other
}

/** Whether a credential may publish there: telemetry of its devices, and whatever else lies under their topics or under nobody's. */
export function mayPublish(credential: DeviceCredential, topic: MqttTopic, text: string): boolean {
  if (topic.kind === 'refused') return false
  if (topic.kind === 'telemetry') return maySpeakFor(credential, topic.device)
  return !isForeign(credential, text)
}

/** Whether a topic lies below another device's. */
export function isForeign(credential: DeviceCredential, topic: string): boolean {
  if (speaksForAll(credential)) return false
  const [root, device = ''] = topic.split('/', 2)
  return root === 'devices' && !maySpeakFor(credential, device)
}

/** Whether a credential may subscribe: nothing that could match below another device's topics. */
export function maySubscribe(credential: DeviceCredential, filter: string): boolean {
  const [root, device] = filter.split('/', 2)
  if (root !== 'devices' && root !== '+' && root !== '#') return true
  const isNamed = root === 'devices' && device !== undefined && device !== '+' && device !== '#'
  return isNamed ? maySpeakFor(credential, device) : speaksForAll(credential)
}

/** Wildcards stand alone in their level and `#` last (MQTT 3.1.1 §4.7.1); anything else is a protocol error. */
export function isMqttFilter(filter: string): boolean {
  if (filter.length === 0) return false
  const levels = filter.split('/')
  if (levels.length > ingestLimits.topicLevelsMax) return false
  return levels.every((level, i) => {
    if (level.includes('#')) return level === '#' && i === levels.length - 1
    return !level.includes('+') || level === '+'
  })
}

/** Whether a filter may be subscribed: below `devices/`, or anything in open mode; never `$…` (our own messages, shared subscriptions). */
export function isFilterAllowed(filter: string, open: boolean): boolean {
  if (Buffer.byteLength(filter) > ingestLimits.topicBytesMax || filter.startsWith('$')) return false
  return open || (filter.startsWith('devices/') && filter.length > 'devices/'.length)
}

/** Whether a filter could match a telemetry topic: only those make the front look for live subscribers. */
export function mayMatchTelemetry(filter: string): boolean {
  const levels = filter.split('/')
  const wanted = ['devices', undefined, 'telemetry'] as const
  for (let i = 0; i < wanted.length; i++) {
    const level = levels[i]
    if (level === '#') return true
    if (level === undefined) return false
    if (level !== '+' && wanted[i] !== undefined && level !== wanted[i]) return false
  }
  return levels.length <= 4 || (levels.length === 5 && levels[4] === '#')
}

/** MQTT 3.1.1 §4.7: `+` is one level, `#` the parent and everything below; neither matches a leading `$`. */
export function filterMatches(filter: string, topic: string): boolean {
  if (topic.startsWith('$') !== filter.startsWith('$')) return false
  const filterLevels = filter.split('/')
  const topicLevels = topic.split('/')
  for (let i = 0; i < filterLevels.length; i++) {
    const level = filterLevels[i]
    if (level === '#') return true
    if (i >= topicLevels.length || (level !== '+' && level !== topicLevels[i])) return false
  }
  return filterLevels.length === topicLevels.length
}
