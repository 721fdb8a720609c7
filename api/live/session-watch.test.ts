// A live connection is let go with the session that it rests on, over both doors; one that rests on a token is not.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createViewerAccess } from '../../runtime/access/viewer-access.ts'
import { createInstruments } from '../../runtime/instruments.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { LiveViewer } from '../../tests/helpers/live-viewer.ts'
import { SseViewer } from '../../tests/helpers/sse.ts'
import { waitFor } from '../../tests/helpers/wait-for.ts'
import { type ApiService, createApiService } from '../api-service.ts'
import { openWorld, type World } from '../test-world.ts'

const adminToken = 'right-and-long-enough'
/** Of whoever looks at sessions. */
const time = { micros: Date.UTC(2026, 0, 15) * 1000 }
let world: World
let service: ApiService
let url: string
let liveUrl: string
const open: { close(): void }[] = []

beforeAll(async () => {
  world = await openWorld()
  const { log, clickhouse, clock } = world
  const access = createViewerAccess({
    config: { host: '127.0.0.1', auth: 'required', adminToken },
    clock: { nowMicros: () => time.micros },
  })
  service = createApiService({
    ...{ config: { host: '127.0.0.1', httpPort: 0, livePort: 0 }, log, clickhouse, clock, logger: silentLogger },
    ...{ status: { all: async () => [] }, instruments: createInstruments('api'), access },
  })
  await service.start()
  url = `http://127.0.0.1:${service.httpAddress().port}`
  liveUrl = `ws://127.0.0.1:${service.liveAddress()!.port}`
}, 60_000)
afterAll(async () => {
  for (const each of open) each.close()
  await service?.stop()
  await world?.close()
})

async function signIn(): Promise<string> {
  const answer = await fetch(`${url}/login`, {
    method: 'POST',
    redirect: 'manual',
    headers: { origin: url, 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({ token: adminToken }),
  })
  return answer.headers.get('set-cookie')!.split(';', 1)[0]!
}

async function connect(cookie: string) {
  const asSocket = { headers: { cookie, origin: url } }
  const viewer = await LiveViewer.open(liveUrl, 'device=x', asSocket)
  const empty = await LiveViewer.open(liveUrl, 'mode=none', asSocket)
  const stream = await SseViewer.open(`${url}/v1/live?device=x`, { cookie })
  open.push(viewer, empty, stream)
  await viewer.waitForFrame('caught-up')
  await stream.waitForEvent('caught-up')
  return { viewer, empty, stream }
}

async function isLetGo({ viewer, empty, stream }: Awaited<ReturnType<typeof connect>>): Promise<void> {
  expect(await viewer.waitForFrame('bye')).toMatchObject({ reason: 'session-over', cursor: expect.any(String) })
  expect([await viewer.socket.closed(), viewer.socket.closeReason]).toEqual([4401, 'session-over'])
  expect(await empty.socket.closed()).toBe(4401)
  expect((await stream.waitForEvent('bye')).data).toMatchObject({ reason: 'session-over' })
  await waitFor(() => stream.ended)
}

it('when it is signed out of, and when it has run out', async () => {
  const program = await LiveViewer.open(liveUrl, 'device=x', { headers: { authorization: `Bearer ${adminToken}` } })
  open.push(program)
  const [out, other] = [await signIn(), await signIn()]
  const [ofOut, ofOther] = [await connect(out), await connect(other)]
  const answer = await fetch(`${url}/logout`, {
    method: 'POST',
    redirect: 'manual',
    headers: { origin: url, cookie: out },
  })
  expect(answer.status).toBe(303)
  await isLetGo(ofOut)
  await expect(LiveViewer.open(liveUrl, '', { headers: { cookie: out, origin: url } })).rejects.toThrow(/401/)
  const isOpen = () => !ofOther.viewer.socket.isClosed && !ofOther.empty.socket.isClosed && !ofOther.stream.ended
  expect(isOpen()).toBe(true)
  time.micros += 13 * 3_600_000_000
  await isLetGo(ofOther)
  expect(program.socket.isClosed).toBe(false)
}, 120_000)
