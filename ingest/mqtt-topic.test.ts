// Which topics are telemetry, which are refused, and which filters match what.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type DeviceCredential, everyone, maySpeakFor } from '../domain/authority.ts'
import {
  filterMatches,
  isFilterAllowed,
  isMqttFilter,
  mayMatchTelemetry,
  mayPublish,
  maySubscribe,
  readMqttTopic,
} from './mqtt-topic.ts'

describe('readMqttTopic', () => {
  it.each([
    ['devices/boiler-1/telemetry', 'boiler-1', 'json'],
    ['devices/a.b_c:d@e-F9/telemetry', 'a.b_c:d@e-F9', 'json'],
    ['devices/d/telemetry/json', 'd', 'json'],
    ['devices/d/telemetry/senml-cbor', 'd', 'senml-cbor'],
    ['devices/telemetry/telemetry', 'telemetry', 'json'],
    ['devices/__proto__/telemetry', '__proto__', 'json'],
    [`devices/${'x'.repeat(128)}/telemetry`, 'x'.repeat(128), 'json'],
  ])('%s is telemetry', (topic, device, codec) => {
    expect(readMqttTopic(topic, false)).toEqual({ kind: 'telemetry', device, codec })
    expect(readMqttTopic(topic, true)).toEqual({ kind: 'telemetry', device, codec })
  })

  it.each([
    ['devices/a b/telemetry', 'device-name'],
    ['devices//telemetry', 'device-name'],
    ['devices/é/telemetry', 'device-name'],
    [`devices/${'x'.repeat(129)}/telemetry`, 'device-name'],
    ['devices/d/telemetry/', 'codec-suffix'],
    ['devices/d/telemetry/yaml', 'codec-suffix'],
    ['devices/d/telemetry/json/x', 'codec-suffix'],
    ['devices/d/telemetry/constructor', 'codec-suffix'],
    ['$SYS/x', 'topic-reserved'],
    ['$share/a/b', 'topic-reserved'],
    ['devices/+/telemetry', 'topic-wildcard'],
    ['devices/d/#', 'topic-wildcard'],
    [`a${'/a'.repeat(100)}`, 'topic-too-deep'],
    [`devices/d/${'é'.repeat(252)}`, 'topic-too-long'],
  ])('%s is refused in both modes', (topic, cause) => {
    expect(readMqttTopic(topic, false)).toEqual({ kind: 'refused', cause })
    expect(readMqttTopic(topic, true)).toEqual({ kind: 'refused', cause })
  })

  it.each([
    ['home/x', 'topic-outside'],
    ['devices', 'device-name'],
    ['devices/d', 'topic-outside'],
    ['Devices/d/telemetry', 'topic-outside'],
    ['/devices/d/telemetry', 'topic-outside'],
    ['devices/a b/commands', 'device-name'],
  ])('%s is an ordinary topic only in open mode', (topic, cause) => {
    expect(readMqttTopic(topic, false)).toEqual({ kind: 'refused', cause })
    expect(readMqttTopic(topic, true)).toEqual({ kind: 'other' })
  })

  it.each(['devices/d/commands', 'devices/d/', 'devices/d/telemetry2', 'devices/d/attributes/telemetry'])(
    '%s is ordinary',
    (topic) => {
      expect(readMqttTopic(topic, false)).toEqual({ kind: 'other' })
    },
  )
})

describe('filters', () => {
  it.each(['#', '+', 'a/#', 'a/+/b', '/', 'a//b', '+/+', 'devices/+/telemetry/#'])('%s is one', (filter) => {
    expect(isMqttFilter(filter)).toBe(true)
  })

  it.each(['', 'a#', 'a/#/b', '#/a', 'a+', 'a/b+/c', '++'])('%s is none', (filter) => {
    expect(isMqttFilter(filter)).toBe(false)
  })

  it('may be subscribed below devices/, and anywhere in open mode, never with $', () => {
    const filters = [
      'devices/d/c',
      'devices/#',
      'devices/',
      'devices',
      '#',
      '+/d/c',
      'x',
      '$SYS/#',
      '$share/g/devices/#',
    ]
    expect(filters.map((filter) => isFilterAllowed(filter, false))).toEqual([
      true,
      true,
      false,
      false,
      false,
      false,
      false,
      false,
      false,
    ])
    expect(filters.map((filter) => isFilterAllowed(filter, true))).toEqual([
      true,
      true,
      true,
      true,
      true,
      true,
      true,
      false,
      false,
    ])
  })

  it.each([
    ['sport/tennis/player1/#', 'sport/tennis/player1', true],
    ['sport/tennis/player1/#', 'sport/tennis/player1/score/wimbledon', true],
    ['sport/+', 'sport', false],
    ['sport/+', 'sport/', true],
    ['+/+', '/finance', true],
    ['+', '/finance', false],
    ['#', '$SYS/x', false],
    ['+/x', '$SYS/x', false],
    ['$SYS/#', '$SYS/x', true],
    ['a/b', 'a/b/c', false],
  ])('%s and %s match: %s (MQTT 3.1.1 §4.7)', (filter, topic, expected) => {
    expect(filterMatches(filter, topic)).toBe(expected)
  })

  it('that match a telemetry topic are known to be able to', () => {
    const level = fc.constantFrom('devices', 'd', 'telemetry', 'json', 'commands', '+', '#', '')
    const topic = fc.constantFrom('devices/d/telemetry', 'devices/x/telemetry', 'devices/d/telemetry/json')
    fc.assert(
      fc.property(fc.array(level, { minLength: 1, maxLength: 6 }), topic, (levels, telemetry) => {
        const filter = levels.join('/')
        if (isMqttFilter(filter) && filterMatches(filter, telemetry)) expect(mayMatchTelemetry(filter)).toBe(true)
      }),
      { numRuns: 2_000 },
    )
    expect(
      ['devices/d/commands', 'home/#', 'devices/d', 'devices/+/commands/#', 'a/b/telemetry'].filter(mayMatchTelemetry),
    ).toEqual([])
  })
})

describe('what a credential may do', () => {
  const of = (device: string, ...speaksFor: string[]): DeviceCredential => ({
    tokenId: 't',
    tenant: 'default',
    device,
    speaksFor,
  })
  const credentials = [of('d1'), of('d2'), of('gw', 'd*'), of('gw', 'd1'), of('all', '*'), everyone]
  const level = fc.constantFrom('devices', 'd1', 'd2', 'd', 'gw', 'telemetry', 'commands', '', 'x')
  const filterLevel = fc.oneof(level, fc.constantFrom('+', '#'))

  it.each([
    ['devices/d1/telemetry', true],
    ['devices/d1/commands/open', true],
    ['devices/d2/telemetry', false],
    ['devices/d2/commands', false],
    ['devices/d1x/commands', false],
    ['other/d2', true],
    ['$SYS/x', false],
  ])('d1 publishes to %s: %j (any topic being open)', (topic, may) => {
    expect(mayPublish(of('d1'), readMqttTopic(topic, true), topic)).toBe(may)
  })

  it('hears nothing of a device that it may not speak for, whatever it subscribes to, and publishes nothing there', () => {
    const cases = fc.record({
      credential: fc.constantFrom(...credentials),
      filter: fc.array(filterLevel, { minLength: 1, maxLength: 4 }).map((levels) => levels.join('/')),
      topic: fc.array(level, { minLength: 1, maxLength: 4 }).map((levels) => levels.join('/')),
    })
    fc.assert(
      fc.property(cases, ({ credential, filter, topic }) => {
        const [root, device = ''] = topic.split('/')
        const isIts = root !== 'devices' || maySpeakFor(credential, device)
        if (mayPublish(credential, readMqttTopic(topic, true), topic)) expect(isIts).toBe(true)
        if (!isMqttFilter(filter) || !maySubscribe(credential, filter)) return
        if (filterMatches(filter, topic)) expect(isIts).toBe(true)
      }),
      { numRuns: 5_000 },
    )
  })

  it('hears everything under its own topics', () => {
    for (const filter of ['devices/d1/#', 'devices/d1/+', 'devices/d1/commands'])
      expect(maySubscribe(of('d1'), filter)).toBe(true)
  })
})
