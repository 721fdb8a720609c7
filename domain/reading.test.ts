import { describe, expect, it } from 'vitest'
import { isDeviceName, isMetricName } from './reading.ts'

describe('a device name', () => {
  it.each(['a', 'boiler-1', 'A.b_c:d@e', '...', '.a', 'x'.repeat(128)])('may be %s', (name) => {
    expect(isDeviceName(name)).toBe(true)
  })
  it.each(['', 'x'.repeat(129), 'a/b', 'a b', 'ä', 'a\n', 'a\u0000', 'a+', '#', '../x', '.', '..'])(
    'may not be %j',
    (name) => {
      expect(isDeviceName(name)).toBe(false)
    },
  )
})

describe('a metric name', () => {
  it.each(['a', 'motor.rpm', 'Inputs/A', 'température', '温度', ' ', '__proto__', 'x'.repeat(128), '😀'.repeat(128)])(
    'may be %s',
    (name) => {
      expect(isMetricName(name)).toBe(true)
    },
  )
  it.each(['', 'x'.repeat(129), '😀'.repeat(129), 'a\u0000b', 'a\nb', '\u007f', '\u0085', '\ud800', 'x\udc00y'])(
    'may not be %j',
    (name) => {
      expect(isMetricName(name)).toBe(false)
    },
  )
})
