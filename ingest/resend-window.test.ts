import { describe, expect, it } from 'vitest'
import { ResendWindow } from './resend-window.ts'

const second = 1_000_000

describe('the window of a client', () => {
  it('knows a publish by packet id, checksum and length', () => {
    const window = new ResendWindow()
    window.remember('c', 1, 0xffffffff, 10, 5, second)
    expect(window.find('c', 1, 0xffffffff, 10)).toBe(5)
    expect(window.find('c', 2, 0xffffffff, 10)).toBe(-1)
    expect(window.find('c', 1, 0xfffffffe, 10)).toBe(-1)
    expect(window.find('c', 1, 0xffffffff, 11)).toBe(-1)
    expect(window.find('d', 1, 0xffffffff, 10)).toBe(-1)
  })

  it('holds all that may be in flight', () => {
    const window = new ResendWindow()
    for (let round = 0; round < 3; round++) {
      for (let id = 1; id <= 128; id++) window.remember('c', id, round, 10, round, second)
      for (let id = 1; id <= 128; id++) expect(window.find('c', id, round, 10)).toBe(round)
    }
  })

  it('stays small for a client that sends one at a time, and slowly', () => {
    const window = new ResendWindow()
    window.remember('c', 1, 1, 10, 1, second)
    const { bytes } = window
    for (let i = 2; i < 1000; i++) window.remember('c', i % 65536, i, 10, i, i * 10 * second)
    expect(window.bytes).toBe(bytes)
    expect(window.find('c', 999, 999, 10)).toBe(999)
  })

  it('forgets the oldest first', () => {
    const window = new ResendWindow()
    for (let id = 1; id <= 300; id++) window.remember('c', id, 1, 10, id, second)
    const known = Array.from({ length: 300 }, (_, i) => i + 1).filter((id) => window.find('c', id, 1, 10) >= 0)
    expect(known).toEqual(Array.from({ length: 128 }, (_, i) => 173 + i))
  })
})

describe('the windows of all clients', () => {
  it('stay within their budget, and keep those that are heard from', () => {
    const window = new ResendWindow(100_000)
    for (let i = 0; i < 10_000; i++) {
      window.remember(`client-${i}`, 1, i, 10, i, second)
      window.remember('lively', 1 + (i % 100), i, 10, i, second)
      expect(window.bytes).toBeLessThanOrEqual(100_000)
    }
    expect(window.find('lively', 100, 9999, 10)).toBe(9999)
    expect(window.find('client-9999', 1, 9999, 10)).toBe(9999)
    expect(window.find('client-0', 1, 0, 10)).toBe(-1)
    expect(window.clientCount).toBeGreaterThan(50)
    expect(window.clientCount).toBeLessThan(300)
  })
})
