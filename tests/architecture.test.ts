// The house rules that a machine can check: who may import whom, one place for each vendor, one door for the environment, no strays.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, it } from 'vitest'

const project = join(import.meta.dirname, '..')
const tracked = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: project })
  .toString()
  .split('\n')
  .filter((file) => file !== '' && existsSync(join(project, file)))
const read = (file: string): string => readFileSync(join(project, file), 'utf8')
/** Tests, and what only tests use: `x.child.ts` is a process that a test starts, `test-x.ts` what several share. */
const isTest = (file: string): boolean =>
  /\.(test|contract|child)\.tsx?$|(^|\/)test-[\w-]+\.ts$|\/memory-disk\.ts$/.test(file) || file.startsWith('tests/')
const sources = tracked.filter((file) => /\.tsx?$/.test(file) && !file.endsWith('.d.ts'))

interface Import {
  readonly from: string
  /** A path within the project, or a package. */
  readonly to: string
  readonly isType: boolean
}

const imports: Import[] = sources.flatMap((from) => {
  const found: Import[] = []
  const text = withoutComments(read(from))
  const statement = /^(import|export)\s+(type\s)?[^'";]*?\bfrom\s+'([^']+)'|^import\s+'([^']+)'|\bimport\('([^']+)'\)/gm
  for (const match of text.matchAll(statement)) {
    const to = match[3] ?? match[4] ?? match[5]!
    found.push({
      from,
      to: to.startsWith('.') ? normalize(join(dirname(from), to)) : to,
      isType: match[2] !== undefined,
    })
  }
  return found
})

const roomOf = (path: string): string => (path.includes('/') ? path.slice(0, path.indexOf('/')) : 'root')

/** Rooms of the product that a room may import, beside itself. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  domain: [],
  runtime: [],
  storage: ['domain', 'runtime'],
  ingest: ['domain', 'runtime'],
  stream: ['domain', 'runtime', 'storage'],
  api: ['domain', 'runtime', 'storage'],
  dashboards: [],
}

describe('directions', () => {
  const product = imports.filter(
    ({ from, to }) => !isTest(from) && (to.includes('/') || to.endsWith('.ts')) && isInside(to),
  )

  it.each(Object.keys(allowed))('%s/ imports only what it may', (room) => {
    const strays = product.filter(({ from, to, isType }) => {
      if (roomOf(from) !== room || roomOf(to) === room || allowed[room]!.includes(roomOf(to))) return false
      // Pages know the wire by its types alone, and what runtime gives to whoever renders.
      return !(room === 'dashboards' && to === 'api/wire.ts' && isType)
    })
    expect(strays).toEqual([])
  })

  it('nobody imports the composition roots but the entry and the commands', () => {
    const roots = ['app.ts', 'app-children.ts', 'app-intake.ts', 'main.ts']
    const strays = product.filter(
      ({ from, to }) => roots.includes(to) && !roots.includes(from) && roomOf(from) !== 'cli',
    )
    expect(strays).toEqual([])
  })

  it('domain/ imports no package and nothing of Node', () => {
    expect(imports.filter(({ from, to }) => from.startsWith('domain/') && !isTest(from) && !isInside(to))).toEqual([])
  })
})

/** Each vendor that touches the world: the one place that knows it. */
const homes: Readonly<Record<string, (file: string) => boolean>> = {
  aedes: (file) => file.startsWith('ingest/mqtt-'),
  chdb: (file) => file.startsWith('storage/embedded-server/'),
  '@clickhouse/client': (file) => file === 'storage/open-clickhouse.ts' || file === 'storage/classify-error.ts',
  citty: (file) => file === 'main.ts' || file.startsWith('cli/'),
  fastify: (file) => /^(api|dashboards)\//.test(file) || file === 'app-children.ts',
  kafkajs: (file) => ['stream/log/kafka-client.ts', 'stream/log/kafka-requests.ts'].includes(file),
  mqtt: (file) => file === 'cli/simulate/publisher.ts',
  pino: (file) => file === 'runtime/logger.ts',
  'uWebSockets.js': (file) => file === 'runtime/web-server.ts',
  'prom-client': (file) => file === 'runtime/instruments.ts',
}

describe('vendors', () => {
  it.each(Object.entries(homes))('%s is known in one place', (vendor, isHome) => {
    const users = imports.filter(({ from, to }) => to === vendor && !isTest(from) && roomOf(from) !== 'benchmarks')
    expect(users.filter(({ from }) => !isHome(from)).map(({ from }) => from)).toEqual([])
    expect(users.length, 'somebody uses it, or it is no longer a dependency').toBeGreaterThan(0)
  })

  it('every dependency is used, and every package that is used is a dependency', () => {
    const { dependencies, devDependencies } = JSON.parse(read('package.json'))
    const used = new Set(imports.map(({ to }) => packageOf(to)))
    // Used without an import in the sources: by the build, by the checks, by what the browser is given, by the JSX that the compiler writes.
    const otherwise = ['typescript', '@biomejs/biome', '@types/node', 'uplot', '@kitajs/html', 'playwright-core']
    const unused = Object.keys({ ...dependencies, ...devDependencies }).filter(
      (name) => !used.has(name) && !otherwise.includes(name),
    )
    expect(unused).toEqual([])
    const product = imports.filter(({ from }) => !isTest(from) && !/^(benchmarks\/|vitest)/.test(from))
    const unknown = product
      .filter(({ to }) => !isInside(to) && !to.startsWith('node:') && !(packageOf(to) in dependencies))
      .map(({ from, to }) => `${from}: ${to}`)
    expect(unknown).toEqual([])
  })
})

describe('one door', () => {
  const product = sources.filter((file) => !isTest(file) && !/^(benchmarks\/|vitest)/.test(file))
  it.each(['process.env', 'process.argv', 'process.exit('])('only main.ts uses %s', (word) => {
    // UV_THREADPOOL_SIZE is libuv's, not an option of ours: the store warns when it was started without it.
    const isHome = (file: string): boolean =>
      file === 'main.ts' || (word === 'process.env' && file === 'storage/embedded-server/server.ts')
    const users = product.filter((file) => !isHome(file) && withoutComments(read(file)).includes(word))
    expect(users).toEqual([])
  })

  it('only what logs and prints writes to the console', () => {
    expect(product.filter((file) => /\bconsole\.\w+\(/.test(withoutComments(read(file))))).toEqual([])
  })
})

describe('no strays', () => {
  const texts = tracked.filter((file) => /\.(tsx?|m?js|json|md|sql|ya?ml|css|html)$|^\.ci\/run$/.test(file))
  const own = texts.filter((file) => !['package-lock.json', 'LICENSE'].includes(file))
  const code = own.filter((file) => /\.(tsx?|m?js|sql|css)$/.test(file))
  const findLines = (files: readonly string[], pattern: RegExp): string[] =>
    files.flatMap((file) =>
      read(file)
        .split('\n')
        .flatMap((line, at) => (pattern.test(line) ? [`${file}:${at + 1}: ${line.trim().slice(0, 100)}`] : [])),
    )
  const thisFile = 'tests/architecture.test.ts'
  const others = own.filter((file) => file !== thisFile)

  it('no type any', () => {
    const found = sources.filter((file) =>
      /[:<|,(]\s*any\b(\[\]|[\s,;)>|&=]|$)|\bas any\b/m.test(withoutTexts(read(file))),
    )
    expect(found).toEqual([])
  })

  it('no markers of work left undone', () => {
    expect(findLines(others, /\b(TODO|FIXME|XXX|HACK)\b/)).toEqual([])
  })

  it('no test left alone or left out without a reason', () => {
    // A reason stands in the title, in brackets.
    const pattern = /\b(it|describe|test)\.(only|todo)\b|\.skip\((?!.*\(.+\).*\(\) =>)/
    expect(findLines(others.filter(isTest), pattern)).toEqual([])
  })

  it('no paths or hosts of the machines that it was written on', () => {
    expect(
      findLines(
        others,
        /\/root\/|\/home\/\w+\/|\/work\/\w+|:\/\/(?!127\.|localhost)[\w.-]*(registry|proxy|mirror|artifactory)/,
      ),
    ).toEqual([])
    expect(read('package-lock.json')).not.toMatch(/"resolved": "https?:\/\/(?!registry\.npmjs\.org)/)
  })

  it('no comment is wider than a screen (the formatter keeps the code to 120 columns)', () => {
    const pattern = /^\s*(\/\/|\*|\/\*)(?!.*@).{155}/
    expect(
      findLines(
        code.filter((file) => !file.startsWith('demo/')),
        pattern,
      ),
    ).toEqual([])
  })

  it('no file that nobody imports', () => {
    // Entries: run by Node (as a process or a thread), by the test runner, by the browser, or loaded by name.
    const isEntry = (file: string): boolean =>
      /\.(test|child)\.tsx?$|-thread\.ts$|\.config\.ts$|^main\.ts$|^benchmarks\/(main|load-process)\.ts$|^tests\/helpers\/(global-setup|kafka-setup|.*-process)\.ts$/.test(
        file,
      ) || /\.d\.ts$/.test(file)
    const imported = new Set(imports.map(({ to }) => to))
    expect(sources.filter((file) => !isEntry(file) && !imported.has(file))).toEqual([])
  })
})

function isInside(to: string): boolean {
  return existsSync(join(project, to)) && !to.startsWith('node:')
}

function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')
}

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\/|(^|\s)\/\/.*$/gm, '$1')
}

function withoutTexts(text: string): string {
  return withoutComments(text).replaceAll(/'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`/g, "''")
}
