// What Weir is measured against, installed by hand, started here on loopback with the settings that make it fast.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { waitFor } from '../tests/helpers/wait-for.ts'

export interface Peer {
  /** Name and version, for the report. */
  readonly name: string
  readonly settings: string
  readonly port: number
  readonly pid: number
  stop(): Promise<void>
}

const mosquittoFile = ['/usr/sbin/mosquitto', '/usr/local/sbin/mosquitto', '/opt/homebrew/sbin/mosquitto'].find(
  (path) => existsSync(path),
)

/** Eclipse Mosquitto, nothing kept on disk, no subscriber: it parses and acknowledges, and throws the message away. */
export async function startMosquitto(): Promise<Peer> {
  if (!mosquittoFile)
    throw new Error('mosquitto is not installed: apt-get install mosquitto (the benchmark starts its own)')
  const directory = await mkdtemp(join(tmpdir(), 'weir-bench-mosquitto-'))
  const port = await freePort()
  const file = join(directory, 'mosquitto.conf')
  writeFileSync(
    file,
    [
      `listener ${port} 127.0.0.1`,
      `user ${userInfo().username}`,
      'allow_anonymous true',
      'persistence false',
      'max_inflight_messages 1000',
      'max_queued_messages 0',
      'set_tcp_nodelay true',
      'log_type error',
      '',
    ].join('\n'),
  )
  const child = spawn(mosquittoFile, ['-c', file], { stdio: 'ignore' })
  const kill = (): void => void child.kill('SIGKILL')
  process.once('exit', kill)
  await waitFor(() => canConnect(port), { withinMs: 10_000, what: `mosquitto to listen on ${port}` })
  return {
    name: `mosquitto ${versionOf(mosquittoFile)}`,
    settings: 'persistence false, set_tcp_nodelay true, no subscriber',
    port,
    pid: child.pid!,
    async stop() {
      const ended = new Promise((resolve) => child.once('exit', resolve))
      child.kill('SIGTERM')
      await ended
      process.off('exit', kill)
      await rm(directory, { recursive: true, force: true })
    },
  }
}

function versionOf(file: string): string {
  return /version (\S+)/.exec(spawnSync(file, ['-h'], { encoding: 'utf8' }).stdout)?.[1] ?? '(version unknown)'
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

function canConnect(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
