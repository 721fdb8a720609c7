// What a chart's axis of values spans and says.
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { packageDirectory } from './assets.ts'

interface Axis {
  roomFor(min: number | null, max: number | null): [number, number]
  valueLabels(splits: readonly number[], step: number): string[]
  axisWidth(labels: readonly string[] | null): number
}

const axis: Axis = await import(pathToFileURL(join(packageDirectory, 'dashboards/assets/axis.js')).href)
const { axisWidth, roomFor, valueLabels } = axis

describe('the axis of values', () => {
  it('gives what is always off, always on, and what changes between them the same span', () => {
    const [bottom, top] = roomFor(0, 1)
    expect(bottom).toBe(0)
    expect(top).toBeGreaterThan(1)
    expect(roomFor(0, 0)).toEqual([bottom, top])
    expect(roomFor(1, 1)).toEqual([bottom, top])
  })

  it('gives a flat line a place, whatever its value', () => {
    for (const value of [-273.15, -1, 0, 1, 42, 1e15, 1e-9]) {
      const [bottom, top] = roomFor(value, value)
      expect(bottom).toBeLessThanOrEqual(value)
      expect(top).toBeGreaterThan(value)
    }
  })

  it('tells neighbours apart', () => {
    const cases: [number[], number, string[]][] = [
      [[0, 0.5, 1], 0.5, ['0', '0.5', '1']],
      [[57.5, 60, 62.5], 2.5, ['57.5', '60', '62.5']],
      [[101_325.2, 101_325.4], 0.2, ['101,325.2', '101,325.4']],
      [[0.00025, 0.0005], 0.00025, ['0.00025', '0.0005']],
      [[1.1e15, 1.2e15], 1e14, ['1.1e+15', '1.2e+15']],
      [[0, 1e-7, 2e-7], 1e-7, ['0', '1e-7', '2e-7']],
      [[-2e13, 0, 2e13], 2e13, ['-2e+13', '0', '2e+13']],
      [[-0.2, -5.551115123125783e-17, 0.2], 0.2, ['-0.2', '0', '0.2']],
    ]
    for (const [splits, step, labels] of cases) expect(valueLabels(splits, step)).toEqual(labels)
  })

  it('has room for its longest label', () => {
    expect(axisWidth(null)).toBe(64)
    expect(axisWidth(['0', '100,000'])).toBe(64)
    expect(axisWidth(['101,325.2'])).toBeGreaterThan(9 * 7)
  })
})
