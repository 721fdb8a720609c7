import { spawnSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'

/** What a process of its own says on stderr: the logger writes there and nowhere else. */
function lineOf(statement: string): Record<string, unknown> {
  const script = `
    const { createLogger } = await import('./dist/runtime/logger.js')
    const { LimitError } = await import('./dist/runtime/errors.js')
    const logger = createLogger('info', 'test')
    ${statement}`
  const { stderr, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  expect(stdout).toBe('')
  return JSON.parse(stderr) as Record<string, unknown>
}

describe('an error in the log', () => {
  it('says its words, and no stack when it was foreseen', () => {
    const line = lineOf(`logger.warn({ error: new LimitError('log-quota', 'The log is full') }, 'not yet')`)
    expect(line).toMatchObject({
      part: 'test',
      msg: 'not yet',
      error: { type: 'LimitError', message: 'The log is full' },
    })
    expect(line.error).not.toHaveProperty('stack')
    const full = `Object.assign(new Error('ENOSPC: no space'), { code: 'ENOSPC', syscall: 'write' })`
    expect(lineOf(`logger.warn({ error: ${full} }, 'x')`).error).toEqual({
      type: 'Error',
      message: 'ENOSPC: no space',
      code: 'ENOSPC',
    })
  })

  it('says where it comes from when nobody foresaw it, and what was behind it', () => {
    const line = lineOf(`logger.error({ err: new TypeError('no', { cause: new RangeError('because') }) }, 'x')`)
    expect(line.err).toMatchObject({
      type: 'TypeError',
      message: 'no',
      cause: { type: 'RangeError', message: 'because' },
    })
    expect((line.err as { stack: string }).stack).toMatch(/^TypeError: no\n {4}at /)
    expect(lineOf(`logger.error({ error: 'words' }, 'x')`).error).toBe('words')
  })
})
