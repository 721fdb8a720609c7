// `weir simulate` against the real front and a real log.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect as connectSocket, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runCommand } from 'citty'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import { everyone } from '../domain/authority.ts'
import { StartError } from '../runtime/errors.ts'
import { silentLogger } from '../runtime/logger.ts'
import { type RunningIngest, runIngest, waitForReadings } from '../tests/helpers/running-ingest.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import type { CommandWorld } from './command.ts'
import { UsageError } from './command.ts'
import { Publisher } from './simulate/publisher.ts'
import { simulate } from './simulate.ts'

const directory = mkdtempSync(join(tmpdir(), 'weir-simulate-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

let ingest: RunningIngest
const closers: (() => Promise<void> | void)[] = []
beforeEach(async () => {
  ingest = await runIngest()
  closers.push(() => ingest.close())
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

function urlOf({ host, port } = ingest.address): string {
  return `mqtt://${host}:${port}`
}

function run(words: readonly string[], stop = new AbortController()) {
  const printed: string[] = []
  const world: CommandWorld = {
    environment: {},
    mainFile: '',
    stop: stop.signal,
    print: (line) => printed.push(line),
    terminal: false,
  }
  const done = runCommand(simulate, { rawArgs: [...words], data: world }).then(({ result }) => result)
  return { done, printed, stop }
}

function csv(text: string): string {
  const file = join(directory, 'series.csv')
  writeFileSync(file, text)
  return file
}

/** Between the simulation and the front; its connections can be cut. */
async function startProxy() {
  const sockets = new Set<Socket>()
  const server = createServer((inbound) => {
    const outbound = connectSocket(ingest.address.port, ingest.address.host)
    for (const [from, to] of [
      [inbound, outbound],
      [outbound, inbound],
    ] as const) {
      sockets.add(from)
      from.on('error', () => {})
      from.on('close', () => {
        sockets.delete(from)
        to.destroy()
      })
      from.pipe(to)
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const cut = (): void => {
    for (const socket of sockets) socket.destroy()
  }
  closers.push(() => {
    cut()
    return new Promise<void>((resolve) => server.close(() => resolve()))
  })
  const { port } = server.address() as { port: number }
  return { url: urlOf({ host: '127.0.0.1', port }), cut }
}

describe('a replay', () => {
  it('publishes a real series, each row once, with its own instants', async () => {
    const file = join(import.meta.dirname, '../demo/nyc_taxi.csv')
    const words = [
      '--url',
      urlOf(),
      '--replay',
      file,
      '--speed',
      'max',
      '--device',
      'taxi',
      '--metric',
      'passengers',
      '--json',
    ]
    const { done, printed } = run(words)
    expect(await done).toBe(0)
    const rows = readFileSync(file, 'utf8').trim().split('\n').slice(1)
    expect(JSON.parse(printed[0]!)).toMatchObject({ published: rows.length, acknowledged: rows.length, reconnects: 0 })
    const readings = await ingest.readings()
    expect(readings).toEqual(
      rows.map((row) => {
        const [timestamp, value] = row.split(',')
        return {
          device: 'taxi',
          metric: 'passengers',
          observedAt: Date.parse(`${timestamp!.replace(' ', 'T')}Z`) * 1000,
          value: Number(value),
        }
      }),
    )
  })

  it('shows the token in its address to the broker, and to nobody else', async () => {
    const asked: unknown[] = []
    const guarded = await runIngest({
      authenticate: async ({ username, password }) => {
        asked.push([username, password?.toString()])
        return password?.toString() === 'right' ? everyone : 4
      },
    })
    closers.push(() => guarded.close())
    const file = csv('timestamp,value\n2026-01-01 00:00:00,1\n')
    const at = (token: string): string => urlOf(guarded.address).replace('//', `//hall%401:${token}@`)
    const { done } = run(['--url', at('right'), '--replay', file, '--speed', 'max'])
    expect(await done).toBe(0)
    expect(asked).toEqual([['hall@1', 'right']])
    const half = run(['--url', urlOf(guarded.address).replace('//', '//hidden@')])
    await expect(half.done).rejects.toThrow(UsageError)
    await expect(half.done).rejects.not.toThrow('hidden')
  })

  it('goes as fast as it is told', async () => {
    const file = csv('timestamp,value\n2026-01-01 00:00:00,1\n2026-01-01 00:01:00,2\n2026-01-01 01:00:00,3\n')
    const stop = new AbortController()
    const startedAt = performance.now()
    const { done, printed } = run(['--url', urlOf(), '--replay', file, '--speed', '300', '--json'], stop)
    await waitForReadings(ingest, 2)
    expect(performance.now() - startedAt).toBeGreaterThan(195)
    // The third is twelve seconds away.
    stop.abort()
    expect(await done).toBe(0)
    expect(JSON.parse(printed[0]!)).toMatchObject({ published: 2, acknowledged: 2 })
  })

  it('may be moved so that it ends now', async () => {
    const file = csv(
      'timestamp,device,metric,value\n2014-01-01 00:00:00,a,x,1\n2014-01-01 02:00:00,b,y,on\n2014-01-01 01:00:00,a,x,3\n',
    )
    const from = Date.now() * 1000
    expect(await run(['--url', urlOf(), '--replay', file, '--speed', 'max', '--shift-to-now']).done).toBe(0)
    const readings = await ingest.readings()
    const latest = Math.max(...readings.map(({ observedAt }) => observedAt))
    expect(latest).toBeGreaterThanOrEqual(from)
    expect(latest).toBeLessThanOrEqual(Date.now() * 1000)
    const hours = readings.map(({ observedAt, ...rest }) => ({
      ...rest,
      hoursAgo: (latest - observedAt) / 3_600_000_000,
    }))
    expect(hours.sort((a, b) => b.hoursAgo - a.hoursAgo)).toEqual([
      { device: 'a', metric: 'x', value: 1, hoursAgo: 2 },
      { device: 'a', metric: 'x', value: 3, hoursAgo: 1 },
      { device: 'b', metric: 'y', value: 'on', hoursAgo: 0 },
    ])
  })

  it('comes back when its connection is cut, and every row arrives', async () => {
    const proxy = await startProxy()
    const rows = Array.from({ length: 3_000 }, (_, i) => `${1_700_000_000 + i},${i}`)
    const { done, printed } = run([
      '--url',
      proxy.url,
      '--replay',
      csv(`timestamp,value\n${rows.join('\n')}`),
      '--speed',
      'max',
      '--json',
    ])
    await waitForReadings(ingest, 500)
    proxy.cut()
    expect(await done).toBe(0)
    expect(JSON.parse(printed[0]!)).toMatchObject({ published: 3_000, acknowledged: 3_000, reconnects: 1 })
    const instants = new Set((await ingest.readings()).map(({ observedAt }) => observedAt))
    expect(instants.size).toBe(3_000)
  })

  it('waits for the log, with a bounded number of publishes in flight', async () => {
    ingest.stall()
    const rows = Array.from({ length: 1_000 }, (_, i) => `${1_700_000_000 + i},${i}`)
    const { done } = run(['--url', urlOf(), '--replay', csv(`timestamp,value\n${rows.join('\n')}`), '--speed', 'max'])
    await waitFor(() => ingest.service.totals().receivedReadings >= 100)
    expect(ingest.service.totals()).toMatchObject({ receivedReadings: 100, durableReadings: 0 })
    ingest.goOn()
    expect(await done).toBe(0)
    expect((await ingest.readings()).length).toBe(1_000)
  })

  it('ends with a sentence for a row that can not be read', async () => {
    const { done } = run(['--url', urlOf(), '--replay', csv('timestamp,value\n1,1\nx,2\n'), '--speed', 'max'])
    await expect(done).rejects.toThrow(StartError)
    expect((await ingest.readings()).length).toBeLessThanOrEqual(1)
  })
})

describe('synthetic devices', () => {
  it('publish in their turns, at the rate that was asked for', async () => {
    const { done, printed } = run(['--url', urlOf(), '--devices', '8', '--rate', '400', '--seconds', '0.5', '--json'])
    expect(await done).toBe(0)
    expect(JSON.parse(printed[0]!)).toMatchObject({ published: 200, acknowledged: 200 })
    const readings = await ingest.readings()
    const byDevice = new Map<string, number>()
    for (const { device, metric } of readings) if (metric !== 'x') byDevice.set(device, (byDevice.get(device) ?? 0) + 1)
    expect([...byDevice.keys()].sort()).toEqual(
      ['boiler-1', 'boiler-5', 'meter-4', 'meter-8', 'pump-2', 'pump-6', 'room-3', 'room-7'].sort(),
    )
    expect(new Set(readings.map(({ metric }) => metric))).toContain('motor.rpm')
    expect(await ingest.deadLetterCount()).toBe(0)
    const temperatures = readings.filter(({ device, metric }) => device === 'room-3' && metric === 'temperature')
    expect(temperatures.length).toBe(25)
    for (const { value } of temperatures) expect(Math.abs(Number(value) - 21.5)).toBeLessThan(5)
    const energies = readings.filter(({ device, metric }) => device === 'meter-4' && metric === 'energy')
    expect(energies.map(({ value }) => value)).toEqual(
      energies.map(({ value }) => value).sort((a, b) => Number(a) - Number(b)),
    )
  })

  it('run until they are stopped, and all that was published is acknowledged by then', async () => {
    const { done, printed, stop } = run(['--url', urlOf(), '--rate', '200'])
    await waitForReadings(ingest, 50)
    stop.abort()
    expect(await done).toBe(0)
    const [, acknowledged] = /^([\d,]+) publishes acknowledged in/.exec(printed[0]!)!
    expect(printed[0]).not.toContain('were not')
    expect(Number(acknowledged!.replace(',', ''))).toBeGreaterThan(10)
  })

  it('do not make up for what a stalled log kept them from', async () => {
    ingest.stall()
    const { done, printed, stop } = run(['--url', urlOf(), '--devices', '1', '--rate', '1000', '--json'])
    await waitFor(() => ingest.service.totals().receivedReadings >= 100)
    const stalledAt = performance.now()
    await waitFor(() => performance.now() - stalledAt > 2_500)
    ingest.goOn()
    await waitFor(() => ingest.service.totals().durableReadings >= 1_000)
    stop.abort()
    expect(await done).toBe(0)
    const { published, seconds } = JSON.parse(printed[0]!)
    expect(published).toBeLessThan(seconds * 1000 - 1_000)
  })
})

describe('wrong use', () => {
  it.each([
    [['--url', 'localhost'], '--url localhost is no address'],
    [['--devices', '0'], '--devices 0 must be a number above 0'],
    [['--devices', '1.5'], 'whole number'],
    [['--rate', 'x'], '--rate x must be a number'],
    [['--speed', '2'], '--speed goes with --replay'],
    [['--replay', 'x.csv', '--devices', '2'], '--devices goes with synthetic devices'],
    [['--replay', 'x.csv', '--speed', '-1'], '--speed -1'],
    [['--replay', 'x.csv', '--device', 'a/b'], '--device a/b must be'],
    [['--replay', 'x.csv', '--metric', ''], '--metric must be'],
  ])('is said: %j', async (words, message) => {
    const { done } = run(words)
    await expect(done).rejects.toThrow(UsageError)
    await expect(done).rejects.toThrow(message)
  })

  it('and that nobody takes connections there', async () => {
    const { signal } = new AbortController()
    const options = { clientId: 'c', logger: silentLogger, connectMsMax: 300, signal }
    const opened = Publisher.open({ ...options, url: 'mqtt://127.0.0.1:1' })
    await expect(opened).rejects.toThrow(StartError)
    await expect(opened).rejects.toThrow(/No MQTT broker takes connections at mqtt:\/\/127.0.0.1:1: .*ECONNREFUSED/)
  })

  it('and that a file is not there', async () => {
    await expect(run(['--url', urlOf(), '--replay', join(directory, 'none.csv')]).done).rejects.toThrow(StartError)
  })
})
