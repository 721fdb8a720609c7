// SIGTERM ends the product in order: what was taken is finished, nothing acknowledged is lost, and the next start works at once. A kill -9 of the
// first process leaves no orphans.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { allReadings, ask, type ReadingItem } from '../helpers/ask.ts'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { isAlive, projectDirectory } from '../helpers/spawn-weir.ts'
import { SseViewer } from '../helpers/sse.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const firstAt = 1_700_000_000_000
/** API.md: SIGTERM ends everything in order within this time. */
const endMsMax = 10_000

describe('stops in order', () => {
  let weir: WeirProcess
  const acknowledged = new Set<number>()
  let publisher: RawPublisher | undefined
  afterAll(() => publisher?.stop())

  it('on SIGTERM under load, with a viewer watching, and starts again at once', async () => {
    weir = await startWeir()
    const viewer = await SseViewer.open(`${weir.http}/v1/live?device=busy`)
    publisher = new RawPublisher({
      address: () => weir.mqtt,
      clientId: 'busy',
      window: 100,
      resend: true,
      message: (index) => ({ topic: 'devices/busy/telemetry', payload: `{"ts":${firstAt + index},"v":${index}}` }),
      onAcknowledged: (index) => acknowledged.add(index),
    })
    publisher.resume()
    await waitFor(() => acknowledged.size > 5_000, { what: 'some load' })
    await weir.stop(endMsMax)
    expect(await weir.exited).toEqual({ code: 0, signal: null })
    await waitFor(() => viewer.ended, { what: 'the viewer to be let go' })
    expect(viewer.events.at(-1)?.event).toBe('bye')
    const kept = acknowledged.size
    weir = await startWeir({ data: weir.data })
    await waitFor(() => acknowledged.size > kept, { what: 'the device to go on' })
    publisher.pause()
    await publisher.settled()
    expect(publisher.broken).toBeUndefined()
    await waitFor(
      async () => {
        let index = 0
        for await (const { value } of allReadings(weir.http, { device: 'busy', from: '0' }))
          if (value !== index++) throw new Error(`reading ${index - 1} is ${value}`)
        expect(index).toBe(acknowledged.size)
        return true
      },
      { everyMs: 250, what: 'all acknowledged readings' },
    )
  })

  it('idle, and on a second start answers what it knew', async () => {
    await weir.stop(endMsMax)
    weir = await startWeir({ data: weir.data })
    const { items } = await waitFor(
      async () => {
        const answer = await ask<{ items: ReadingItem[] }>(`${weir.http}/v1/latest?device=busy`)
        return answer.items.length > 0 && answer
      },
      { what: 'the last value' },
    )
    expect(items[0]!.value).toBe(acknowledged.size - 1)
  })

  it('when every process of it is told at once, as service managers do', async () => {
    publisher!.resume()
    const before = acknowledged.size
    await waitFor(() => acknowledged.size > before + 1_000, { what: 'some load' })
    for (const pid of Object.values(weir.pids())) process.kill(pid, 'SIGTERM')
    const exit = await waitFor(() => Promise.race([weir.exited, pause(100)]), {
      withinMs: endMsMax,
      what: 'the end',
    })
    expect(exit).toEqual({ code: 0, signal: null })
    expect(weir.pids()).toEqual({})
    publisher!.pause()
    weir = await startWeir({ data: weir.data })
    await publisher!.settled()
    await waitFor(
      async () => {
        let count = 0
        for await (const _ of allReadings(weir.http, { device: 'busy', from: '0' })) count++
        expect(count).toBe(acknowledged.size)
        return true
      },
      { everyMs: 250, what: 'all acknowledged readings' },
    )
  })

  it('and leaves no process behind when the first one is killed', async () => {
    const { serve, clickhouse } = weir.pids()
    expect(serve).toBeDefined()
    expect(clickhouse).toBeDefined()
    const killedAt = performance.now()
    await weir.kill('ingest')
    await waitFor(() => !isAlive(serve!) && !isAlive(clickhouse!), { what: 'the other processes to end' })
    // "Within a second", and what a busy machine adds.
    expect(performance.now() - killedAt).toBeLessThan(4_000)
    weir = await startWeir({ data: weir.data })
    await weir.stop()
  })
})

it('under npx, whose shell passes no signal on: when the shell is ended', async () => {
  const data = mkdtempSync(join(tmpdir(), 'weir-npx-'))
  const ports = ['mqtt', 'gateway', 'http', 'live'].map((name) => `--${name}-port 0`).join(' ')
  // The echo keeps the shell from becoming the command.
  const line = `"${process.execPath}" bin/weir.js start --roles ingest --data "${data}" ${ports}; echo over`
  const shell = spawn('sh', ['-c', line], { cwd: projectDirectory, env: { ...process.env, npm_command: 'exec' } })
  let said = ''
  let logged = ''
  shell.stdout.on('data', (bytes) => (said += bytes))
  shell.stderr.on('data', (bytes) => (logged += bytes))
  try {
    await waitFor(() => /^ready$/m.test(said), { withinMs: 60_000, what: 'the start' })
    shell.kill('SIGTERM')
    // Its output is open for as long as it lives.
    await new Promise((done) => shell.stdout.once('close', done))
    expect(logged).toContain('"msg":"stopped"')
    expect(said).not.toContain('over')
  } finally {
    shell.kill('SIGKILL')
    rmSync(data, { recursive: true, force: true })
  }
})
