// A disk that takes a write and does not answer. What takes readings in holds its memory bound while devices push at every door, whether they keep to the
// window that they were told or not, acknowledges nothing, says what it waits for, and goes on by itself; every acknowledged reading is there.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createFailingDisk } from '../helpers/failing-disk.ts'
import { type MemoryWatch, PressingFleet, pressed, warmUp } from '../helpers/pressing-fleet.ts'
import { readiness } from '../helpers/readiness.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { clientFrame, ingestFrame, opcodes, TestSocket } from '../helpers/websocket.ts'
import { describeOnEmbedded, runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const { budgetMiB, stalledMarginMiB, catchingUpMarginMiB, texts, mqttDevices, window } = pressed
const rudeSockets = 50
/** Each sends 6 MB (all together 300 MiB): 100 messages of 60 kB, where 64 may be unsettled. */
const rudeMessages = 100
const patient = { withinMs: 90_000, everyMs: 200 }

describeOnEmbedded('a stalled disk pushes back', 'the disk is a broker’s: a-stalled-kafka-pushes-back', () => {
  const disk = createFailingDisk()
  let weir: WeirProcess
  let fleet: PressingFleet | undefined
  let memory: MemoryWatch | undefined
  const rude: TestSocket[] = []
  beforeAll(async () => {
    weir = await startWeir({ env: { ...disk.env, WEIR_INGEST_MEMORY: `${budgetMiB}MiB` } })
  }, 180_000)
  afterAll(() => {
    fleet?.stop()
    memory?.end()
    for (const socket of rude) socket.destroy()
    disk.dispose()
  })

  const openSocket = async (device: string): Promise<TestSocket> => {
    const { hostname, port } = new URL(weir.urls.gateway!)
    const socket = new TestSocket({ host: hostname, port: Number(port) }, `/v1/ingest?device=${device}`)
    rude.push(socket)
    await socket.hello()
    return socket
  }

  it('and ingest holds its bound, says so, goes on by itself, and keeps its word', async () => {
    const { warm, beforeMiB, ...watched } = await warmUp(weir)
    memory = watched.memory
    disk.stall(/\.seg$/)

    // Nothing is settled any more: exactly the window may be on its way.
    const polite = await openSocket('polite')
    for (let id = 1; id <= 64; id++) polite.json({ id, payload: { ts: id, v: id } })
    const hasty = await openSocket('hasty')
    for (let id = 1; id <= 65; id++) hasty.json({ id, payload: { ts: id, v: id } })
    expect([await hasty.closed(), hasty.ackedUpTo]).toEqual([4008, -1])

    fleet = new PressingFleet({
      weir: () => weir,
      name: 'pressing',
      devices: { mqtt: mqttDevices, http: 4, sockets: 8 },
      window,
      texts,
    })
    // Texts, so that a message is as large as rows as it was as bytes.
    const much = Array.from({ length: 58 }, (_, i) => `"text${i}":"${'x'.repeat(1_000)}"`).join()
    const flood = Buffer.concat(
      Array.from({ length: rudeMessages }, (_, i) =>
        clientFrame(opcodes.binary, ingestFrame(i + 1, 0, '', `{"ts":${i + 1},${much}}`)),
      ),
    )
    const flooding: TestSocket[] = []
    for (let i = 0; i < rudeSockets; i++) {
      const socket = await openSocket(`rude-${i}`)
      socket.socket.write(flood)
      flooding.push(socket)
    }
    const { body } = await waitFor(
      async () => {
        const found = await readiness(weir.http)
        return found.status === 503 && found.body.parts.log?.state === 'failed' && found
      },
      { ...patient, what: '/readyz to say that the log is stalled' },
    )
    expect(body.parts.log!.detail).toMatch(/disk/)
    await waitFor(() => flooding.every(({ isClosed }) => isClosed), { ...patient, what: 'the rude ones to be closed' })
    // Those whose close frame was overtaken by the reset of what they still sent have no code.
    expect(
      flooding.map(({ closeCode }) => closeCode).filter((code) => ![undefined, 4008, 1013].includes(code)),
    ).toEqual([])
    const until = performance.now() + 10_000
    await waitFor(() => performance.now() > until, patient)
    const acknowledged = fleet.acknowledged + [...flooding, polite].filter(({ ackedUpTo }) => ackedUpTo > 0).length
    expect(acknowledged, 'acknowledged while nothing can be durable').toBe(0)
    const stalledMiB = memory.mostMiB
    disk.mend()

    await waitFor(() => fleet!.acknowledged > 1_000, { withinMs: 120_000, what: 'acknowledgements again' })
    await fleet.settled()
    memory.end()
    const [before, stalled, most] = [beforeMiB, stalledMiB, memory.mostMiB].map(Math.round)
    console.log(`ingest grew from ${before} MiB to ${stalled} while the disk was stalled, and to ${most} at most`)
    expect(stalledMiB - beforeMiB).toBeLessThan(2 * budgetMiB + stalledMarginMiB)
    expect(memory.mostMiB - beforeMiB).toBeLessThan(2 * budgetMiB + catchingUpMarginMiB)
    await waitFor(async () => (await readiness(weir.http)).status === 200, { ...patient, what: '/readyz to be well' })
    await warm.allStored(weir.http, 120_000)
    await fleet.allStored(weir.http, 240_000)
    fleet.stop()
    expect((await runWeir(['verify', '--data', weir.data])).code).toBe(0)
    await weir.stop()
  }, 600_000)
})
