import { describe, expect, it } from 'vitest'
import { nearestName } from './nearest-name.ts'

describe('a hint at the name that was meant', () => {
  const flags = ['--http-port', '--http', '--data', '--seconds']
  it.each([
    ['--htp-port', '; did you mean --http-port?'],
    ['--sec', '; did you mean --seconds?'],
    ['--datas', '; did you mean --data?'],
    ['--port', ''],
    ['-x', ''],
  ])('%s%s', (given, hint) => {
    expect(nearestName(given, flags)).toBe(hint)
  })

  it('guesses no short name from another short one', () => {
    expect(nearestName('stop', ['start', 'simulate'])).toBe('')
    expect(nearestName('strat', ['start', 'simulate'])).toBe('; did you mean start?')
    expect(nearestName('x', [])).toBe('')
  })
})
