// A real Apache Kafka for tests and benchmarks: one broker or three (KRaft), on free ports of 127.0.0.1, in a directory of its own. The jars come
// from Maven Central once, into a cache outside the checkout. Needs a JDK 17 and Maven.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, waitFor } from './wait-for.ts'

const version = '4.1.1'
const clusterId = 'MkU3OEVBNTcwNTJENDM2Qg'
const cache = process.env.WEIR_TEST_CACHE ?? join(homedir(), '.cache', 'weir-tests')
const heapMiB = 256
const saidLengthMax = 2_000
/** `net.ipv4.ip_local_port_range` begins at 32768 everywhere that we know. */
const portMin = 15_000
const portMax = 30_000
const readyMsMax = 150_000

/** Why a broker can't be started here, or undefined. WEIR_TEST_REQUIRE=all makes it a failure. */
export function kafkaMissing(): string | undefined {
  const missing = (['java', 'mvn'] as const).filter(
    (name) => spawnSync(name, ['-version'], { stdio: 'ignore' }).status !== 0,
  )
  if (missing.length === 0) return undefined
  const reason = `a real Kafka needs ${missing.join(' and ')} (apt-get install openjdk-17-jre-headless maven)`
  if (process.env.WEIR_TEST_REQUIRE === 'all') throw new Error(`WEIR_TEST_REQUIRE is "all", and ${reason}`)
  process.stderr.write(`not run here: ${reason}\n`)
  return reason
}

export interface TestKafka {
  /** host:port of each node. */
  readonly brokers: readonly string[]
  /** host:port of each extra listener. */
  readonly listeners: Readonly<Record<string, string>>
  /** Where a proxy is to connect to. */
  readonly behindProxyPort: number
  /** Of a node that runs; nodes count from 1. */
  pid(node: number): number
  isRunning(node: number): boolean
  /** kill -9 (or another signal); resolves when it is gone. */
  kill(node: number, signal?: NodeJS.Signals): Promise<void>
  /** A node that was killed, with its data; resolves when it listens. */
  revive(node: number): Promise<void>
  /** Where a node keeps its partitions, a folder each. */
  dataDirectory(node: number): string
  /** One of Kafka's own programs; what it printed. */
  runTool(words: readonly string[]): string
  /** Ends everything and removes the data. */
  dispose(): Promise<void>
}

export interface TestKafkaOptions {
  readonly nodes?: 1 | 3
  /** How long three brokers believe in one that is silent. */
  readonly sessionMs?: number
  /** Also listens for clients that come through a proxy on this port of 127.0.0.1 (one node only). */
  readonly proxyPort?: number
  /** More listeners of the one node, by name: their protocol. */
  readonly extraListeners?: Readonly<Record<string, string>>
  /** Name and password. */
  readonly scramUsers?: Readonly<Record<string, string>>
  /** Compiles what it does often as well as it can: for benchmarks; a test is over before that pays. */
  readonly isMeasured?: boolean
  /** More lines of server.properties. */
  readonly properties?: Readonly<Record<string, string>>
}

export async function startKafka({
  nodes = 1,
  sessionMs = 2_000,
  proxyPort,
  isMeasured = false,
  extraListeners = {},
  scramUsers = {},
  properties = {},
}: TestKafkaOptions = {}): Promise<TestKafka> {
  const libraries = fetchJars()
  const directory = await mkdtemp(join(tmpdir(), 'weir-kafka-'))
  const ports = await freePorts(nodes * 2 + 1 + Object.keys(extraListeners).length)
  const running = new Map<number, ChildProcess>()
  const said = new Map<number, string>()
  const listeners: Record<string, string> = {}
  const java = (words: readonly string[]): string[] => [
    `-Xmx${heapMiB}m`,
    '-XX:+UseSerialGC',
    ...(isMeasured ? [] : ['-XX:TieredStopAtLevel=1']),
    '-cp',
    join(libraries, '*'),
    ...words,
  ]
  const brokers = Array.from({ length: nodes }, (_, i) => `127.0.0.1:${ports[i]}`)

  for (let node = 1; node <= nodes; node++) {
    const usual = serverProperties(node, nodes, ports, sessionMs, join(directory, `${node}`))
    const more = Object.entries(extraListeners).map(([name, protocol], i): Listener => {
      const address = `127.0.0.1:${ports[nodes * 2 + 1 + i]}`
      listeners[name] = address
      return { name, protocol, address, advertised: address }
    })
    if (proxyPort) {
      const address = `127.0.0.1:${ports[nodes * 2]}`
      more.push({ name: 'PROXIED', protocol: 'PLAINTEXT', address, advertised: `127.0.0.1:${proxyPort}` })
    }
    const lines = { ...(more.length > 0 ? withListeners(usual, more) : usual), ...properties }
    const file = join(directory, `${node}.properties`)
    writeFileSync(
      file,
      Object.entries(lines)
        .map(([name, value]) => `${name}=${value}\n`)
        .join(''),
    )
    const users = Object.entries(scramUsers).flatMap(([name, password]) =>
      ['SCRAM-SHA-256', 'SCRAM-SHA-512'].flatMap((kind) => [
        '--add-scram',
        `${kind}=[name=${name},password=${password}]`,
      ]),
    )
    const format = ['kafka.tools.StorageTool', 'format', '-t', clusterId, '-c', file, ...users]
    const formatted = spawnSync('java', java(format), { encoding: 'utf8' })
    if (formatted.status !== 0)
      throw new Error(`Kafka's storage could not be made: ${formatted.stdout}${formatted.stderr}`)
  }

  const launch = (node: number): void => {
    const child = spawn('java', java(['kafka.Kafka', join(directory, `${node}.properties`)]), {
      cwd: directory,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    running.set(node, child)
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        said.set(node, ((said.get(node) ?? '') + text).slice(-saidLengthMax))
      })
    child.once('exit', () => {
      if (running.get(node) === child) running.delete(node)
    })
  }
  const listening = (node: number): Promise<true> =>
    waitFor(
      () => {
        if (!running.has(node)) throw new Error(`Kafka's node ${node} ended while it started: ${said.get(node)}`)
        return canConnect(ports[node - 1]!)
      },
      { withinMs: readyMsMax, everyMs: 100, what: `Kafka's node ${node}` },
    )
  const kill = async (node: number, signal: NodeJS.Signals): Promise<void> => {
    const child = running.get(node)
    if (!child) return
    const gone = new Promise<void>((done) => child.once('exit', () => done()))
    child.kill(signal)
    await gone
  }
  const kafka: TestKafka = {
    brokers,
    listeners,
    behindProxyPort: ports[nodes * 2]!,
    pid: (node) => running.get(node)!.pid!,
    isRunning: (node) => running.has(node),
    kill: (node, signal = 'SIGKILL') => kill(node, signal),
    async revive(node) {
      if (!running.has(node)) launch(node)
      await listening(node)
    },
    dataDirectory: (node) => join(directory, `${node}`),
    runTool(words) {
      const { status, stdout, stderr } = spawnSync('java', java(words), { encoding: 'utf8' })
      if (status !== 0) throw new Error(`${words[0]} ended with ${status}: ${stdout}${stderr}`)
      return stdout
    },
    async dispose() {
      process.off('exit', endAll)
      // Their data goes with them: nothing is worth an orderly end.
      await Promise.all([...running.keys()].map((node) => kill(node, 'SIGKILL')))
      await rm(directory, { recursive: true, force: true, maxRetries: 3 })
    },
  }
  const endAll = (): void => {
    for (const child of running.values()) child.kill('SIGKILL')
  }
  process.on('exit', endAll)
  try {
    for (let node = 1; node <= nodes; node++) launch(node)
    for (let node = 1; node <= nodes; node++) await listening(node)
  } catch (error) {
    await kafka.dispose()
    throw error
  }
  return kafka
}

function serverProperties(
  node: number,
  nodes: number,
  ports: readonly number[],
  sessionMs: number,
  logDirectory: string,
): Record<string, string> {
  const copies = String(nodes)
  const inSync = nodes === 3 ? '2' : '1'
  const voters = Array.from({ length: nodes }, (_, i) => `${i + 1}@127.0.0.1:${ports[nodes + i]}`).join(',')
  const listener = `PLAINTEXT://127.0.0.1:${ports[node - 1]}`
  return {
    'process.roles': 'broker,controller',
    'node.id': String(node),
    'controller.quorum.voters': voters,
    listeners: `${listener},CONTROLLER://127.0.0.1:${ports[nodes + node - 1]}`,
    'advertised.listeners': listener,
    'controller.listener.names': 'CONTROLLER',
    'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT',
    'log.dirs': logDirectory,
    'default.replication.factor': copies,
    'min.insync.replicas': inSync,
    'offsets.topic.num.partitions': '4',
    'offsets.topic.replication.factor': copies,
    'transaction.state.log.replication.factor': copies,
    'transaction.state.log.min.isr': inSync,
    'share.coordinator.state.topic.replication.factor': copies,
    'share.coordinator.state.topic.min.isr': inSync,
    'group.initial.rebalance.delay.ms': '0',
    'group.min.session.timeout.ms': '1000',
    'auto.create.topics.enable': 'false',
    'broker.session.timeout.ms': String(sessionMs),
    'broker.heartbeat.interval.ms': String(Math.min(500, sessionMs / 4)),
    // Retention is looked at often enough for a test to see it.
    'log.retention.check.interval.ms': '200',
    'log.initial.task.delay.ms': '200',
  }
}

interface Listener {
  readonly name: string
  readonly protocol: string
  readonly address: string
  /** What clients are told. */
  readonly advertised: string
}

function withListeners(usual: Record<string, string>, more: readonly Listener[]): Record<string, string> {
  const joined = (key: string, say: (listener: Listener) => string): Record<string, string> => ({
    [key]: [usual[key]!, ...more.map(say)].join(','),
  })
  return {
    ...usual,
    ...joined('listeners', ({ name, address }) => `${name}://${address}`),
    ...joined('advertised.listeners', ({ name, advertised }) => `${name}://${advertised}`),
    ...joined('listener.security.protocol.map', ({ name, protocol }) => `${name}:${protocol}`),
    'inter.broker.listener.name': 'PLAINTEXT',
  }
}

/** The folder of the jars; one process at a time fetches them, under another name until all are there. */
function fetchJars(): string {
  const folder = join(cache, `kafka-${version}`)
  if (existsSync(folder)) return folder
  const fetching = `${folder}.${process.pid}`
  mkdirSync(fetching, { recursive: true })
  const pom = join(fetching, 'pom.xml')
  writeFileSync(
    pom,
    `<project><modelVersion>4.0.0</modelVersion><groupId>weir</groupId><artifactId>test-kafka</artifactId><version>1</version>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>${version}</version></dependency></dependencies></project>\n`,
  )
  const words = [
    '-q',
    '-B',
    '-f',
    pom,
    'dependency:copy-dependencies',
    `-DoutputDirectory=${fetching}`,
    '-DincludeScope=runtime',
  ]
  const fetched = spawnSync('mvn', words, { encoding: 'utf8' })
  if (fetched.status !== 0) throw new Error(`Kafka could not be fetched: ${fetched.stdout}${fetched.stderr}`)
  try {
    renameSync(fetching, folder)
  } catch (error) {
    // Another process was faster.
    if (!existsSync(folder)) throw error
    rmSync(fetching, { recursive: true, force: true })
  }
  return folder
}

/**
 * Kafka has to be told its ports before it starts. Below those that the system gives to connections by itself, so that none of them takes one
 * between our look and Kafka's start.
 */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>()
  for (let tries = 0; ports.size < count; tries++) {
    if (tries > 1_000) throw new Error(`no ${count} ports are free from ${portMin} to ${portMax}`)
    const port = portMin + Math.floor(Math.random() * (portMax - portMin))
    if (!ports.has(port) && (await isFree(port))) ports.add(port)
  }
  return [...ports]
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer()
  const listens = await new Promise<boolean>((done) => {
    server.once('error', () => done(false))
    server.listen(port, '127.0.0.1', () => done(true))
  })
  if (listens) await new Promise((done) => server.close(done))
  return listens
}

async function canConnect(port: number): Promise<true | undefined> {
  const connected = await new Promise<boolean>((done) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      done(true)
    })
    socket.once('error', () => done(false))
  })
  if (connected) return true
  await pause(50)
  return undefined
}
