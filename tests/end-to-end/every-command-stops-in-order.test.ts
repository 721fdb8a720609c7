// SIGTERM ends every command in order within 10 s, with code 0, wherever it stands: here each of them waits for something that does not come. One that
// has not finished says so, so that nobody takes its code for an answer.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { RawMqtt } from '../helpers/mqtt-raw.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { itOnEmbedded, runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const endMsMax = 10_000

describe('every command stops in order', () => {
  let weir: WeirProcess
  /** Takes connections and says nothing: in place of the store, of the API, of a broker. */
  let mute: Server
  let muteAddress: string
  const sockets: Socket[] = []
  const directory = mkdtempSync(join(tmpdir(), 'weir-test-stops-'))
  beforeAll(async () => {
    weir = await startWeir()
    const device = await RawMqtt.connected(weir.mqtt, 'd')
    await device.publish('devices/d/telemetry', '{"v": 1}')
    device.destroy()
    mute = createServer((socket) => sockets.push(socket))
    await new Promise<void>((done) => mute.listen(0, '127.0.0.1', done))
    muteAddress = `127.0.0.1:${(mute.address() as { port: number }).port}`
    const endpointFile = join(weir.data, 'clickhouse/endpoint.json')
    const endpoint = JSON.parse(readFileSync(endpointFile, 'utf8')) as object
    writeFileSync(endpointFile, JSON.stringify({ ...endpoint, url: `http://${muteAddress}` }))
  })
  afterAll(() => {
    for (const socket of sockets) socket.destroy()
    mute.close()
    rmSync(directory, { recursive: true, force: true })
  })

  /** Told to stop once it waits: when it has asked, unless said otherwise. */
  const stopped = async (words: readonly string[], env: Record<string, string> = {}, waits?: () => boolean) => {
    const before = sockets.length
    const isWaiting = waits ?? (() => sockets.length > before)
    let toldAt = Number.NaN
    const tell = (pid: number): void => {
      toldAt = performance.now()
      process.kill(pid, 'SIGTERM')
    }
    const result = await runWeir(words, {
      env,
      onStart: (pid) => void waitFor(isWaiting).then(() => tell(pid)),
    })
    expect(performance.now() - toldAt, result.stdout + result.stderr).toBeLessThan(endMsMax)
    expect([result.code, result.signal]).toEqual([0, null])
    return result
  }

  it('verify, and says that it has not verified', async () => {
    const { stdout, stderr } = await stopped(['verify', '--data', weir.data])
    expect(stderr).toMatch(/^stopped before it finished: NOT verified.*\n$/)
    expect(stdout).toBe('')
    const told = await stopped(['verify', '--data', weir.data, '--json'])
    expect(JSON.parse(told.stdout)).toEqual({ ok: false, stopped: true })
  })

  it('dead-letters, of each kind', async () => {
    for (const words of [['list'], ['show', 'x'], ['replay', 'x'], ['replay', '--reason', 'malformed-payload']]) {
      const { stderr } = await stopped(['dead-letters', ...words, '--url', `http://${muteAddress}`])
      expect(stderr).toMatch(/^stopped before it finished: .*\n$/)
    }
  })

  it('topics', async () => {
    const { stdout, stderr } = await stopped(['topics'], { WEIR_LOG: 'kafka', WEIR_KAFKA_BROKERS: muteAddress })
    expect(stderr).toMatch(/^stopped before it finished: .*\n$/m)
    expect(stdout).toBe('')
  })

  it('offsets', async () => {
    const env = { WEIR_LOG: 'kafka', WEIR_KAFKA_BROKERS: muteAddress }
    const { stdout, stderr } = await stopped(['offsets', 'list'], env)
    expect(stderr).toMatch(/^stopped before it finished: .*\n$/m)
    expect(stdout).toBe('')
  })

  it('move, and says that it goes on when it is run again', async () => {
    const data = join(directory, 'to-move')
    mkdirSync(join(data, 'log'), { recursive: true })
    const words = ['move', '--from', 'embedded', '--to', 'kafka', '--data', data]
    const { stdout, stderr } = await stopped(words, { WEIR_KAFKA_BROKERS: muteAddress })
    expect(stderr).toMatch(/run it again, and it goes on where it stood\n$/)
    expect(stdout).toBe('')
  })

  it('health', async () => {
    const { stdout, stderr } = await stopped(['health', '--url', `http://${muteAddress}`])
    expect(stderr).toMatch(/^stopped before it was answered: .*\n$/)
    expect(stdout).toBe('')
  })

  itOnEmbedded(
    'start, while the log of its roles is not there yet',
    'a stop while Kafka is away: waits-for-kafka',
    async () => {
      const data = join(directory, 'to-start')
      const words = ['start', '--roles', 'writer', '--data', data]
      const { stdout, stderr } = await stopped(words, {}, () => existsSync(data))
      expect(stderr).toMatch(/^stopped before it began: .*\n$/m)
      expect(stdout).toBe('')
    },
  )

  it('demo', async () => {
    await stopped(['demo', '--mqtt', `mqtt://${muteAddress}`, '--http', `http://${muteAddress}`])
  })

  it('simulate', async () => {
    const { stdout } = await stopped(['simulate', '--url', `mqtt://${muteAddress}`])
    expect(stdout).toMatch(/^0 publishes acknowledged/)
  })
})
