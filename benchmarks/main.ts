// `npm run bench -- NAME`: each benchmark answers one question with a ratio, measured in one run on one machine.
import { loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { type Benchmark, machine, Report } from './harness.ts'

/** Loaded when asked for: each pulls in what it measures. */
const benchmarks: Readonly<Record<string, () => Promise<Benchmark>>> = {
  ingest: async () => (await import('./ingest.ts')).ingest,
  'query-under-load': async () => (await import('./query-under-load.ts')).queryUnderLoad,
  memory: async () => (await import('./memory.ts')).memory,
  kafka: async () => (await import('./kafka.ts')).kafka,
  detection: async () => (await import('./detection.ts')).detection,
  'detection-load': async () => (await import('./detection-load.ts')).detectionLoad,
  codecs: async () => (await import('./codecs.ts')).codecs,
  log: async () => (await import('./log.ts')).log,
  gateway: async () => (await import('./gateway.ts')).gateway,
  live: async () => (await import('./live.ts')).live,
}

/** Runnable processes a core before a benchmark begins; above it the figures say little. */
const loadShareMax = 0.5

const usage = `usage: npm run bench -- NAME [--rounds N] [--seconds S] [--shape SHAPE] [--roles ROLES] [--json] [--save]
  --rounds   rounds that count, both sides in each (5)
  --seconds  how long each side sends in a round
  --shape    for ingest the traffic: pipelined, single or many; for kafka one half: log or end-to-end; for live fan-out, delivery or ingest
  --roles    what the measured Weir does, as for weir start: ingest and writer at least, for example
             ingest,writer,api to leave detection out (all); benchmarks that start no Weir take no notice
  --json     one JSON line on stdout at the end; the rest goes to stderr
  --save     keep the medians of the ratios in benchmarks/baseline.json
benchmarks: ${Object.keys(benchmarks).join(', ')}`

async function main(): Promise<number> {
  // Each round's processes are ended with this one: a listener each.
  process.setMaxListeners(0)
  let parsed: ReturnType<typeof parse>
  let roles: readonly string[] | undefined
  try {
    parsed = parse()
    roles = rolesOf(parsed.values.roles)
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${usage}\n`)
    return 2
  }
  const { values, positionals } = parsed
  const load = positionals.length === 1 ? benchmarks[positionals[0]!] : undefined
  const rounds = Number(values.rounds)
  const seconds = values.seconds === undefined ? undefined : Number(values.seconds)
  if (values.help || !load || !Number.isInteger(rounds) || rounds < 1 || (seconds !== undefined && !(seconds > 0))) {
    process.stderr.write(`${usage}\n`)
    return values.help ? 0 : 2
  }
  const benchmark = await load()
  const report = new Report(benchmark.name, values.json)
  const { cpu, cores, memoryGiB, node, system } = machine()
  report.line(`${benchmark.name}: ${benchmark.question}`)
  report.line(`machine: ${cores} × ${cpu}, ${memoryGiB} GiB, Node ${node}, ${system}`)
  const [load1m] = loadavg()
  if (load1m! > cores * loadShareMax)
    report.line(`the machine is busy with something else (load ${load1m!.toFixed(1)}): wait, or believe nothing below`)
  const { json, save, shape } = values
  if (roles) report.setting('roles', roles.join(','))
  await benchmark.run({ rounds, seconds, shape, roles, json, save }, report)
  report.end(save)
  return report.failures.length > 0 ? 1 : 0
}

/** Whether they exist is for the product to say; without these two nothing would ever reach the table. */
function rolesOf(words: string | undefined): readonly string[] | undefined {
  const roles = words?.split(',').map((word) => word.trim())
  if (roles && !(roles.includes('ingest') && roles.includes('writer')))
    throw new Error(`--roles ${words}: what is measured needs ingest and writer`)
  return roles
}

function parse() {
  return parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string' },
      shape: { type: 'string' },
      roles: { type: 'string' },
      json: { type: 'boolean', default: false },
      save: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
}

try {
  process.exitCode = await main()
} catch (error) {
  process.stderr.write(`${(error as Error).stack}\n`)
  process.exitCode = 1
}
