import { describe, expect, it } from 'vitest'
import { deadLetterId, encodeDeadLetter } from './dead-letter.ts'

describe('a dead letter', () => {
  it('has an id that sorts by time of arrival', () => {
    expect(deadLetterId(1_700_000_000_000_000, 0xdeadbeef)).toBe('00060a24181e4000-deadbeef')
    expect(deadLetterId(1, -1)).toBe('0000000000000001-ffffffff')
    const ids = [0, 15, 16, 2 ** 40, Number.MAX_SAFE_INTEGER].map((receivedAt) => deadLetterId(receivedAt, 5))
    expect([...ids].sort()).toEqual(ids)
    expect(new Set(ids.map((id) => id.length))).toEqual(new Set([25]))
  })

  it('is these bytes: each text with its length, the instant as i64, the payload last', () => {
    const row = encodeDeadLetter({
      tenant: 'default',
      device: 'd1',
      id: 'i',
      reason: 'malformed-payload',
      detail: 'x'.repeat(300),
      metric: '',
      codec: 'json',
      origin: 'o',
      receivedAt: 2 ** 33,
      payload: Uint8Array.of(0, 255, 0x80),
    })
    expect(row.toString('latin1')).toBe(
      `\x07default\x02d1\x01i\x11malformed-payload\xac\x02${'x'.repeat(300)}\x00\x04json\x01o` +
        '\x00\x00\x00\x00\x02\x00\x00\x00\x03\x00\xff\x80',
    )
  })

  it('takes a payload that is a part of a larger buffer', () => {
    const letter = {
      tenant: '',
      device: '',
      id: '',
      detail: '',
      metric: '',
      codec: '',
      origin: '',
      receivedAt: 0,
    } as const
    const part = Buffer.from('before payload after').subarray(7, 14)
    const row = encodeDeadLetter({ ...letter, reason: 'empty-payload', payload: part }).toString('latin1')
    expect(row.endsWith('\x07payload')).toBe(true)
  })
})
