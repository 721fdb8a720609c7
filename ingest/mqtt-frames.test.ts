// Reading packets, held against the packet library that aedes uses.
import fc from 'fast-check'
import mqttPacket from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { bodyStart, encodeConnect, packetSize, readConnect, readFilters } from './mqtt-frames.ts'
import { HeldBytes } from './mqtt-held-bytes.ts'

const text = fc
  .string({ unit: 'grapheme', minLength: 1, maxLength: 40 })
  .filter((each) => each.isWellFormed() && !each.includes('\0'))
const payload = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes))
const will = fc.record({ topic: text, payload, qos: fc.constantFrom(0, 1, 2), retain: fc.boolean() })

describe('CONNECT', () => {
  it('is read as it was written', () => {
    fc.assert(
      fc.property(
        text,
        fc.boolean(),
        fc.integer({ min: 0, max: 65_535 }),
        fc.option(will, { nil: undefined }),
        fc.option(text, { nil: undefined }),
        fc.option(payload, { nil: undefined }),
        (clientId, clean, keepalive, will, username, password) => {
          const withPassword = username !== undefined && password !== undefined && password.length > 0
          const bytes = mqttPacket.generate({
            cmd: 'connect',
            protocolId: 'MQTT',
            protocolVersion: 4,
            clientId,
            clean,
            keepalive,
            ...(will && { will: will as never }),
            ...(username !== undefined && { username }),
            ...(withPassword && { password }),
          })
          const reading = readConnect(bytes, bodyStart(bytes, 0), bytes.length)
          expect(reading).toEqual({
            kind: 'connect',
            connect: {
              level: 4,
              clean,
              keepaliveSeconds: keepalive,
              clientId,
              username,
              password: withPassword ? password : undefined,
              will,
            },
          })
        },
      ),
    )
  })

  it('for the broker says the same, without credentials and keepalive', () => {
    fc.assert(
      fc.property(text, fc.boolean(), fc.option(will, { nil: undefined }), (clientId, clean, will) => {
        const bytes = encodeConnect({ clientId, clean, will })
        expect(packetSize(bytes, 0, bytes.length)).toBe(bytes.length)
        expect(readConnect(bytes, bodyStart(bytes, 0), bytes.length)).toEqual({
          kind: 'connect',
          connect: { level: 4, clean, keepaliveSeconds: 0, clientId, username: undefined, password: undefined, will },
        })
      }),
    )
  })

  it('that is cut short or goes on is malformed, never misread', () => {
    const bytes = encodeConnect({
      clientId: 'd',
      clean: true,
      will: { topic: 't', payload: Buffer.from('p'), qos: 1, retain: true },
    })
    for (let end = 2; end < bytes.length; end++) expect(readConnect(bytes, 2, end)).toEqual({ kind: 'malformed' })
    const longer = Buffer.concat([bytes, Buffer.from([0])])
    expect(readConnect(longer, 2, longer.length)).toEqual({ kind: 'malformed' })
  })
})

describe('packetSize', () => {
  it('knows sizes from their first five bytes, asks for more, and refuses a fifth length byte', () => {
    const size = (...bytes: number[]) => packetSize(Uint8Array.from(bytes), 0, bytes.length)
    expect([size(0x30), size(0x30, 0x80), size(0x30, 0xff, 0xff, 0xff)]).toEqual([0, 0, 0])
    expect([size(0x30, 0), size(0x30, 127), size(0x30, 0x80, 1), size(0x30, 0xff, 0xff, 0xff, 0x7f)]).toEqual([
      2, 129, 131, 268_435_460,
    ])
    expect(size(0x30, 0xff, 0xff, 0xff, 0xff)).toBe(-1)
  })
})

describe('readFilters', () => {
  it('gives what a SUBSCRIBE or UNSUBSCRIBE lists', () => {
    const filters = ['a/b', '#', '+/x']
    const subscribe = mqttPacket.generate({
      cmd: 'subscribe',
      messageId: 1,
      subscriptions: filters.map((topic) => ({ topic, qos: 1 })),
    })
    const unsubscribe = mqttPacket.generate({ cmd: 'unsubscribe', messageId: 1, unsubscriptions: filters })
    expect(readFilters(subscribe, 2, subscribe.length, true)).toEqual(filters)
    expect(readFilters(unsubscribe, 2, unsubscribe.length, false)).toEqual(filters)
    expect(readFilters(subscribe, 2, subscribe.length - 1, true)).toBeUndefined()
  })
})

describe('HeldBytes', () => {
  it('gives back what was put in, and holds about as much', () => {
    const chunk = fc.uint8Array({ minLength: 1, maxLength: 300 })
    fc.assert(
      fc.property(fc.array(fc.tuple(chunk, fc.nat(100)), { maxLength: 60 }), (steps) => {
        const held = new HeldBytes()
        let expected = Buffer.alloc(0)
        for (const [bytes, percent] of steps) {
          held.append(Buffer.from(bytes), 0, bytes.length)
          expected = Buffer.concat([expected, bytes])
          const taken = Math.floor((expected.length * percent) / 100)
          held.consume(held.start + taken)
          expected = expected.subarray(taken)
          expect(held.length).toBe(expected.length)
          if (!held.isEmpty) expect(held.bytes.subarray(held.start, held.end).equals(expected)).toBe(true)
          else expect(held.capacity).toBe(0)
        }
      }),
    )
  })

  it('counts each PINGREQ among packets that wait once, however they are cut', () => {
    const ping = Buffer.from([0xc0, 0])
    const other = Buffer.from([0x32, 5, 0xc0, 0, 0xc0, 0, 0])
    const all = Buffer.concat([ping, other, ping, other, ping])
    for (let cut = 1; cut < all.length; cut++) {
      const held = new HeldBytes()
      held.append(all, 0, cut)
      const first = held.pingsAhead()
      held.append(all, cut, all.length)
      expect(first + held.pingsAhead()).toBe(3)
      expect([
        held.takeAnsweredPing(),
        held.takeAnsweredPing(),
        held.takeAnsweredPing(),
        held.takeAnsweredPing(),
      ]).toEqual([true, true, true, false])
    }
  })
})
