// A gateway on a real port with a real log, and sockets to it, for the tests of its doors.
import { type IngestSettings, type RunningIngest, runIngest } from '../tests/helpers/running-ingest.ts'
import { TestSocket } from '../tests/helpers/websocket.ts'

const running: RunningIngest[] = []
const sockets: TestSocket[] = []

export async function closeGateways(): Promise<void> {
  for (const socket of sockets.splice(0)) socket.destroy()
  for (const ingest of running.splice(0)) await ingest.close()
}

export async function startGateway(settings?: IngestSettings): Promise<RunningIngest> {
  const ingest = await runIngest(settings)
  running.push(ingest)
  return ingest
}

export function openSocket(
  { gateway }: RunningIngest,
  path = '/v1/ingest?device=d1',
  options: ConstructorParameters<typeof TestSocket>[2] = {},
): TestSocket {
  const socket = new TestSocket(gateway, path, options)
  sockets.push(socket)
  return socket
}
