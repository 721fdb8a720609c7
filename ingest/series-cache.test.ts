import { describe, expect, it } from 'vitest'
import { encodeRowPrefix } from '../domain/row-format.ts'
import { SeriesCaches } from './series-cache.ts'

function find(cache: ReturnType<SeriesCaches['of']>, text: string): number {
  const bytes = Buffer.from(`${text}   `)
  return cache.find(bytes, 0, bytes.length)
}

describe('the series of a device', () => {
  it('are found by the bytes of their names, up to the quote, in any order', () => {
    const cache = new SeriesCaches().of('default', 'd')
    const names = Array.from({ length: 40 }, (_, i) => `m${'x'.repeat(i % 3)}${i}`)
    for (const name of names) cache.add(name)
    for (const place of [0, 1, 2, 39, 17, 16, 15, 3, 38, 20]) {
      cache.beginObject()
      expect(find(cache, `${names[place]}"`)).toBe(place)
      expect(cache.prefixes[place]!.equals(encodeRowPrefix('default', 'd', names[place]!))).toBe(true)
    }
    cache.beginObject()
    for (const text of ['m"', 'm0', 'm01"', 'zz"', '"', 'm\\u0030"', `m${'9'.repeat(1000)}"`])
      expect(find(cache, text)).toBe(-1)
  })

  it('are found once in an object', () => {
    const cache = new SeriesCaches().of('default', 'd')
    for (const name of ['a', 'b']) cache.add(name)
    cache.beginObject()
    expect([find(cache, 'a"'), find(cache, 'b"'), find(cache, 'a"')]).toEqual([0, 1, -1])
    cache.beginObject()
    expect(find(cache, 'a"')).toBe(0)
  })

  it('do not reach past the end of what they are looked for in', () => {
    const cache = new SeriesCaches().of('default', 'd')
    cache.add('temperature')
    cache.beginObject()
    const bytes = Buffer.from('temperature"')
    for (let end = 0; end < bytes.length; end++) expect(cache.find(bytes, 0, end)).toBe(-1)
    expect(cache.find(bytes, 0, bytes.length)).toBe(0)
  })

  it('have names that were checked', () => {
    const cache = new SeriesCaches().of('default', 'd')
    expect(cache.add('')).toBeUndefined()
    expect(cache.add('a\u0000')).toBeUndefined()
    expect(cache.prefixes).toEqual([])
  })

  it('are kept up to a number, and encoded anew beyond it', () => {
    const cache = new SeriesCaches().of('default', 'd')
    for (let i = 0; i < 2000; i++)
      expect(cache.add(`m${i}`)!.equals(encodeRowPrefix('default', 'd', `m${i}`))).toBe(true)
    expect(cache.prefixes.length).toBe(1024)
    expect([cache.placeOf('m1023'), cache.placeOf('m1024')]).toEqual([1023, -1])
  })
})

describe('all series together', () => {
  it('are one cache a device, whoever asks', () => {
    const caches = new SeriesCaches()
    const cache = caches.of('default', 'd')
    cache.add('a')
    expect(caches.of('default', 'd')).toBe(cache)
    expect(caches.of('default', 'e')).not.toBe(cache)
    expect(caches.of('other', 'd')).not.toBe(cache)
  })

  it('stay within their budget: the devices that came first are forgotten, and come back when they are heard from', () => {
    const caches = new SeriesCaches(20_000)
    const held = Array.from({ length: 100 }, (_, i) => caches.of('default', `d${i}`))
    for (let round = 0; round < 3; round++) {
      for (const cache of held) {
        for (const name of ['a', 'b', 'c']) if (cache.placeOf(name) < 0) cache.add(name)
        expect(cache.prefixes.length).toBe(3)
        expect(caches.bytes).toBeLessThanOrEqual(20_000)
      }
    }
    expect(held.filter(({ prefixes }) => prefixes.length > 0).length).toBeGreaterThan(5)
    expect(held.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(caches.bytes)
  })

  it('count what a device costs beside its names: a hundred thousand devices of one metric stay within the memory meant for them', () => {
    const caches = new SeriesCaches(2_000_000)
    const devices = Array.from({ length: 100_000 }, (_, i) => caches.of('default', `d${i}`))
    for (const cache of devices) cache.add('temperature')
    // An empty cache in use takes about a kilobyte of heap; counting names alone would keep four times as many.
    expect(devices.filter(({ prefixes }) => prefixes.length > 0).length).toBeLessThan(2_000)
    expect(caches.bytes).toBeLessThanOrEqual(2_000_000)
  })

  it('count what a connection goes on filling after it was forgotten', () => {
    const caches = new SeriesCaches(3_000)
    const first = caches.of('default', 'd')
    first.add('a')
    for (let i = 0; i < 10; i++) caches.of('default', `other-${i}`).add('a')
    expect(first.prefixes).toEqual([])
    const second = caches.of('default', 'd')
    second.add('a')
    first.add('b')
    expect(caches.bytes).toBeLessThanOrEqual(3_000)
    expect([first.placeOf('b'), caches.of('default', 'd')]).toEqual([0, second])
  })
})
