import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { pause, waitFor } from '../tests/helpers/wait-for.ts'
import { type Logger, silentLogger } from './logger.ts'
import { type SupervisedOptions, type SupervisedProcess, superviseProcess } from './supervisor.ts'

describe('a supervised process', () => {
  const started: SupervisedProcess[] = []
  afterEach(async () => {
    for (const each of started.splice(0)) await each.stop()
  })

  const supervise = (environment: () => NodeJS.ProcessEnv, more: Partial<SupervisedOptions> = {}) => {
    const seen = { ready: 0, refused: [] as string[], urls: [] as string[] }
    const child = superviseProcess({
      name: 'serve',
      mainFile: join(import.meta.dirname, 'supervised.child.js'),
      words: [],
      environment: () => ({ ...process.env, ...environment() }),
      parts: ['writer', 'api'],
      logger: silentLogger,
      onReady: () => seen.ready++,
      onListening: (_name, url) => seen.urls.push(url),
      onRefused: (message) => seen.refused.push(message),
      backOff: { firstMs: 5, mostMs: 40 },
      ...more,
    })
    started.push(child)
    return { child, seen }
  }

  it('is started, heard, and stopped when asked', async () => {
    const { child, seen } = supervise(() => ({}))
    expect(child.status().parts).toMatchObject({ writer: { state: 'failed' }, api: { state: 'failed' } })
    await child.start()
    await waitFor(() => seen.ready === 1)
    expect(child.health()).toEqual({ state: 'ok' })
    expect(child.status().parts).toEqual({ writer: { state: 'ok' } })
    await child.drain(AbortSignal.timeout(60_000))
    expect(child.pid()).toBeUndefined()
  })

  it('is started again when it dies, with its environment asked for anew', async () => {
    let starts = 0
    const { child, seen } = supervise(() => ({ SAY_PARENT: String(++starts) }))
    await child.start()
    await waitFor(() => seen.ready === 1)
    const first = child.pid()!
    process.kill(first, 'SIGKILL')
    await waitFor(() => seen.ready === 2)
    expect(child.pid()).not.toBe(first)
    expect(seen.urls).toEqual(['http://127.0.0.1:1/1', 'http://127.0.0.1:1/2'])
  })

  it('is tried again and again, less and less often, and its parts say so', async () => {
    const startedAt: number[] = []
    const { child, seen } = supervise(() => {
      startedAt.push(performance.now())
      return { BEHAVIOUR: startedAt.length < 5 ? 'dies' : '' }
    })
    await child.start()
    await waitFor(() => /code 3/.test(child.health().detail ?? ''))
    expect(child.status().parts.api!.state).not.toBe('ok')
    await waitFor(() => seen.ready === 1)
    expect(startedAt).toHaveLength(5)
    // Each pause at least as long as asked for: 5, 10, 20, 40.
    const pauses = startedAt.slice(1).map((at, before) => at - startedAt[before]!)
    for (const [at, least] of [5, 10, 20, 40].entries()) expect(pauses[at]).toBeGreaterThan(least)
  })

  it('that says it can not start is not started again', async () => {
    const { child, seen } = supervise(() => ({ BEHAVIOUR: 'refuses' }))
    await child.start()
    await waitFor(() => child.pid() === undefined)
    expect(seen.refused).toEqual(['The port is taken'])
    expect(child.health().state).toBe('failed')
  })

  it('that says so after a crash of the one before is started again for a while', async () => {
    let starts = 0
    const { child, seen } = supervise(() => ({ BEHAVIOUR: ++starts < 3 ? 'refuses' : '' }), { isPatient: () => true })
    await child.start()
    await waitFor(() => seen.ready === 1)
    expect(seen.refused).toEqual([])
  })

  it('that does not end in time is ended', async () => {
    const { child, seen } = supervise(() => ({ BEHAVIOUR: 'hangs' }))
    await child.start()
    await waitFor(() => seen.ready === 1)
    await child.drain(AbortSignal.timeout(50))
    expect(child.pid()).toBeDefined()
    await child.stop()
    expect(child.pid()).toBeUndefined()
  })

  it('that hangs is named once, and again when it is heard', async () => {
    const said: string[] = []
    const logger: Logger = {
      ...silentLogger,
      warn: (fields, message) => said.push(`${message} ${JSON.stringify(fields)}`),
      info: (_fields, message) => said.push(message ?? ''),
    }
    const { child, seen } = supervise(() => ({}), { logger, silentMsMax: 200 })
    await child.start()
    await waitFor(() => seen.ready === 1)
    const tell = (): void => child.tell({ kind: 'world', statuses: [], addresses: {} })
    const pid = child.pid()!
    process.kill(pid, 'SIGSTOP')
    try {
      await waitFor(() => {
        tell()
        return said.length > 0
      })
      for (let again = 0; again < 3; again++) tell()
      expect(said).toEqual([expect.stringMatching(`says nothing: it hangs, or is stopped .*"pid":${pid}`)])
    } finally {
      process.kill(pid, 'SIGCONT')
    }
    await waitFor(() => said.length === 2)
    expect(said[1]).toMatch(/heard again/)
  })

  it('that stays silent is ended and started again', async () => {
    const said: string[] = []
    const logger: Logger = {
      ...silentLogger,
      error: (fields, message) => said.push(`${message} ${JSON.stringify(fields)}`),
    }
    const { child, seen } = supervise(() => ({}), { logger, silentMsMax: 400, hungMsMax: 1_000 })
    await child.start()
    await waitFor(() => seen.ready === 1)
    const tell = (): void => child.tell({ kind: 'world', statuses: [], addresses: {} })
    const pid = child.pid()!
    process.kill(pid, 'SIGSTOP')
    const stoppedAt = performance.now()
    await waitFor(() => {
      tell()
      return seen.ready === 2
    })
    expect(performance.now() - stoppedAt).toBeGreaterThan(1_000)
    expect(child.pid()).not.toBe(pid)
    expect(said).toEqual([expect.stringMatching(`said nothing for so long that it is ended.*"pid":${pid}`)])
  })

  it('that hangs before it was ever ready is ended too, after longer, and started again', async () => {
    let starts = 0
    const said: string[] = []
    const logger: Logger = { ...silentLogger, error: (_fields, message) => said.push(message) }
    const behaviours = ['hangs at once', '']
    const environment = (): NodeJS.ProcessEnv => ({ BEHAVIOUR: behaviours[starts++] })
    const { child, seen } = supervise(environment, { logger, silentMsMax: 200, hungMsMax: 400 })
    await child.start()
    const startedAt = performance.now()
    await waitFor(() => {
      child.tell({ kind: 'world', statuses: [], addresses: {} })
      return seen.ready === 1
    })
    expect(performance.now() - startedAt).toBeGreaterThan(2_000)
    expect(said).toEqual([expect.stringMatching('said nothing for so long that it is ended')])
  })

  it('is not ended for a time in which nobody listened, as on a machine that slept', async () => {
    const { child, seen } = supervise(() => ({}), { silentMsMax: 400, hungMsMax: 1_000 })
    await child.start()
    await waitFor(() => seen.ready === 1)
    const tell = (): void => child.tell({ kind: 'world', statuses: [], addresses: {} })
    const pid = child.pid()!
    process.kill(pid, 'SIGSTOP')
    tell()
    // Nothing is heard and nothing told for longer than a child may be silent.
    await pause(1_500)
    tell()
    process.kill(pid, 'SIGCONT')
    await waitFor(() => {
      tell()
      return child.status().parts.writer?.state === 'ok'
    })
    expect(child.pid()).toBe(pid)
    expect(seen.ready).toBe(1)
  })

  it('is not missed when it ends during a stop', async () => {
    const { child, seen } = supervise(() => ({}))
    await child.start()
    await waitFor(() => seen.ready === 1)
    child.letEnd()
    process.kill(child.pid()!, 'SIGKILL')
    await child.drain(AbortSignal.timeout(60_000))
    expect(seen.ready).toBe(1)
    expect(child.pid()).toBeUndefined()
  })
})
