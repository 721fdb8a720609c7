// What docker-compose.yml, the Dockerfile and .env.example say, held against what the product knows. Nothing is run here: the services' own commands
// are, by tests/end-to-end/the-compose-services-run.test.ts. No Docker is needed for either.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type Config, options, requiresAuth } from '../runtime/config.ts'
import { roles } from '../runtime/option-kinds.ts'
import { readConfig } from '../runtime/read-config.ts'
import { type ComposeService, composeText, composeVariables, readCompose, weirImage } from './helpers/compose.ts'
import { projectDirectory } from './helpers/spawn-weir.ts'

const read = (file: string): string => readFileSync(join(projectDirectory, file), 'utf8')
const variables = { WEIR_CLICKHOUSE_PASSWORD: 'secret' }
const compose = readCompose(variables)
const services = Object.entries(compose.services)
const weirServices = services.filter(([, { image }]) => weirImage.test(image))
const started = weirServices.filter(([, { command }]) => command?.[0] === 'start')

/** As `weir start` would read it in the container. */
function configOf({ command = [], environment = {} }: ComposeService): Config {
  return readConfig({ environment, flags: { roles: command[command.indexOf('--roles') + 1] } })
}

describe('every service', () => {
  it.each(services)('%s is confined, bounded, and comes back', (name, service) => {
    expect(service.cap_drop).toEqual(['ALL'])
    expect(service.security_opt).toEqual(['no-new-privileges:true'])
    expect(service.restart).toBe('unless-stopped')
    for (const bound of ['mem_limit', 'cpus', 'pids_limit', 'stop_grace_period', 'logging'])
      expect(service, `${name}: ${bound}`).toHaveProperty(bound)
    expect(service).not.toHaveProperty('privileged')
    expect(service.networks?.length).toBeGreaterThan(0)
    for (const network of service.networks!) expect(Object.keys(compose.networks)).toContain(network)
  })

  it.each(services)('%s is of a version that is named to the last digit', (_name, { image }) => {
    expect(image).toMatch(/^[a-z/-]+:\d+\.\d+\.\d+(\.\d+)?$/)
  })

  it.each(services)('%s says whether it is well, unless it listens nowhere', (name, { healthcheck }) => {
    if (name === 'demo') expect(healthcheck).toEqual({ disable: true })
    else expect(healthcheck?.test?.[0]).toBe('CMD')
  })

  it.each(services)('%s uses volumes and files that there are', (_name, { volumes = [] }) => {
    for (const volume of volumes) {
      const [from] = volume.split(':') as [string]
      if (from.startsWith('.')) expect(existsSync(join(projectDirectory, from)), from).toBe(true)
      else expect(Object.keys(compose.volumes)).toContain(from)
    }
  })

  it('every volume has a user', () => {
    const used = services.flatMap(([, { volumes = [] }]) => volumes.map((volume) => volume.split(':')[0]))
    expect(used).toEqual(expect.arrayContaining(Object.keys(compose.volumes)))
  })
})

describe('Weir’s services', () => {
  it('are all roles, each in one service', () => {
    expect(started.flatMap(([, service]) => configOf(service).roles).sort()).toEqual([...roles].sort())
  })

  it.each(weirServices)(
    '%s runs a command that there is, as nobody, on a root that it cannot write',
    (_name, service) => {
      expect(existsSync(join(projectDirectory, 'cli', `${service.command?.[0]}.ts`))).toBe(true)
      expect(service).toMatchObject({ user: '65534:65534', read_only: true, init: true, build: '.' })
      const kept = [...(service.tmpfs ?? []), ...(service.volumes ?? [])]
      expect(kept.some((each) => each.includes('/var/lib/weir'))).toBe(true)
    },
  )

  it.each(started)('%s has options that are known and go together', (_name, service) => {
    const config = configOf(service)
    expect(config).toMatchObject({ log: 'kafka', host: '0.0.0.0', publishedHost: '127.0.0.1' })
    expect(config.kafkaBrokers?.map((broker) => broker.split(':')[0])).toEqual(['kafka'])
  })

  it.each(started)('%s is given more time to stop than it takes', (_name, service) => {
    const graceMs = Number(/^(\d+)s$/.exec(service.stop_grace_period ?? '')?.[1]) * 1000
    expect(graceMs).toBeGreaterThan(configOf(service).drainMs)
  })

  it.each(started)('%s is asked by its own health command, on a port that it opens', (_name, service) => {
    expect(service.healthcheck?.test).toEqual(['CMD', 'node', '/app/dist/main.js', 'health'])
    expect(configOf(service).healthPort).toBeGreaterThan(0)
  })

  it('publish what listens in them, on loopback, and nothing else is published', () => {
    const published = services.flatMap(([name, { ports = [] }]) => ports.map((port) => ({ name, port })))
    const { mqttPort, gatewayPort, httpPort, livePort } = configOf(started[0]![1])
    expect(published.map(({ name, port }) => `${name} ${port}`)).toEqual([
      ...[mqttPort, gatewayPort].map((port) => `ingest 127.0.0.1:${port}:${port}`),
      ...[httpPort, livePort].map((port) => `api 127.0.0.1:${port}:${port}`),
    ])
    // A port is published only from a network that leads out.
    for (const { name } of published) expect(compose.services[name]?.networks).toContain('front')
    for (const name of ['kafka', 'clickhouse']) expect(compose.services[name]?.networks).toEqual(['backend'])
    expect(compose.networks.backend?.internal).toBe(true)
  })

  it('do not start where others can reach them and nobody has to say who they are', () => {
    const published = { ...variables, WEIR_PUBLISHED_HOST: '0.0.0.0' }
    const api = (more: Record<string, string>): Config => configOf(readCompose({ ...published, ...more }).services.api!)
    expect(() => api({})).toThrow(/WEIR_PUBLISHED_HOST is 0\.0\.0\.0, which others can reach: .*set WEIR_ADMIN_TOKEN/)
    expect(() => api({ WEIR_AUTH: 'open', WEIR_ADMIN_TOKEN: 'x'.repeat(16) })).toThrow(/WEIR_AUTH=open/)
    expect(requiresAuth(api({ WEIR_ADMIN_TOKEN: 'x'.repeat(16) }))).toBe(true)
    expect(requiresAuth(configOf(compose.services.api!))).toBe(false)
  })

  it('share one registry of devices: the api changes it, ingest reads it', () => {
    const file = configOf(compose.services.ingest!).devices
    expect(configOf(compose.services.api!).devices).toBe(file)
    expect(compose.services.api?.volumes).toEqual(['registry:/var/lib/weir-registry'])
    expect(compose.services.ingest?.volumes).toEqual(['registry:/var/lib/weir-registry:ro'])
    expect(file).toBe('/var/lib/weir-registry/devices.ndjson')
    expect(read('Dockerfile')).toMatch(/install -d -o 65534 -g 65534 .*\/var\/lib\/weir-registry/)
  })
})

describe('.env.example', () => {
  const names = [...read('.env.example').matchAll(/^#?([A-Z_]+)=/gm)].map(([, name]) => name!)

  it('names what the compose file takes', () => {
    expect([...names].sort()).toEqual(composeVariables().sort())
  })

  it('names options of Weir', () => {
    const environment = Object.fromEntries(names.map((name) => [name, '']))
    expect(() => readConfig({ environment })).not.toThrow()
  })

  it('leaves out no secret that must be set', () => {
    expect(() => readCompose({})).toThrow(/WEIR_CLICKHOUSE_PASSWORD is missing a value: copy \.env\.example/)
    expect(read('.env.example')).toMatch(/^WEIR_CLICKHOUSE_PASSWORD=$/m)
  })

  it('is the only one that is kept', () => {
    expect(read('.gitignore').split('\n')).toContain('.env')
    expect(read('.dockerignore')).not.toMatch(/!\.env/)
  })
})

describe('the Kafka of the compose file', () => {
  const environment = compose.services.kafka!.environment!

  it('notices soon that a broker is gone, and makes no topics by itself', () => {
    const sessionMs = Number(environment.KAFKA_BROKER_SESSION_TIMEOUT_MS)
    expect(sessionMs).toBeGreaterThanOrEqual(2_000)
    expect(sessionMs).toBeLessThanOrEqual(3_000)
    expect(Number(environment.KAFKA_BROKER_HEARTBEAT_INTERVAL_MS)).toBeLessThanOrEqual(sessionMs / 4)
    expect(environment.KAFKA_AUTO_CREATE_TOPICS_ENABLE).toBe('false')
  })

  it('can be one broker: no internal topic asks for more', () => {
    const copies = Object.entries(environment).filter(([name]) => /REPLICATION_FACTOR$|MIN_ISR$|MIN_INSYNC/.test(name))
    expect(copies.length).toBeGreaterThanOrEqual(7)
    for (const [name, value] of copies) expect(value, name).toBe('1')
  })

  it('keeps its disks where its volume is', () => {
    expect(compose.services.kafka?.volumes).toEqual([`kafka:${environment.KAFKA_LOG_DIRS}`])
  })
})

describe('the Dockerfile', () => {
  const dockerfile = read('Dockerfile')
  const last = dockerfile.slice(dockerfile.lastIndexOf('\nFROM '))

  it('ends as nobody, with an entry that signals reach', () => {
    expect(last).toMatch(/^USER 65534:65534$/m)
    expect(last).toMatch(/^ENTRYPOINT \["node", "\/app\/dist\/main\.js"\]$/m)
    expect(last).toMatch(/^STOPSIGNAL SIGTERM$/m)
    expect(last).toMatch(/^HEALTHCHECK [^\n]*CMD \["node", "\/app\/dist\/main\.js", "health"\]$/m)
    expect(last.indexOf('\nUSER ')).toBeGreaterThan(last.lastIndexOf('\nRUN '))
    expect(dockerfile).not.toMatch(/^ADD |:latest/m)
  })

  it('names its base to the last digit, of a Node that Weir runs on', () => {
    const [, major, minor] = /^ARG NODE_IMAGE=node:(\d+)\.(\d+)\.\d+-bookworm-slim$/m.exec(dockerfile) ?? []
    expect(Number(major) * 100 + Number(minor)).toBeGreaterThanOrEqual(2019)
    for (const [line] of dockerfile.matchAll(/^FROM .+/gm))
      expect(line).toMatch(/^FROM (\$\{NODE_IMAGE\}|packages)( AS \w+)?$/)
  })

  it('sets options that there are, and opens the ports that they name', () => {
    const environment = Object.fromEntries(
      [...last.matchAll(/^(?:ENV)?\s+(WEIR_\w+)=(\S+)/gm)].map(([, name, value]) => [name!, value!]),
    )
    expect(Object.keys(environment).length).toBeGreaterThanOrEqual(3)
    const config = readConfig({ environment: { ...environment, WEIR_PUBLISHED_HOST: '127.0.0.1' } })
    const ports = [config.mqttPort, config.httpPort, config.gatewayPort, config.livePort, config.healthPort]
    expect(last).toContain(`EXPOSE ${ports.join(' ')}`)
  })

  it('copies what there is, and the ignore file lets it in', () => {
    const allowed = [...read('.dockerignore').matchAll(/^!(.+)$/gm)].map(([, path]) => path!)
    for (const path of allowed) expect(existsSync(join(projectDirectory, path)), path).toBe(true)
    for (const file of ['package.json', 'package-lock.json', '.npmrc']) {
      expect(dockerfile).toContain(file)
      expect(allowed).toContain(file)
    }
  })

  it('has the version that the package has, and the compose file runs it', () => {
    const { version } = JSON.parse(read('package.json'))
    expect(dockerfile).toContain(`ARG VERSION=${version}`)
    for (const [, { image }] of weirServices) expect(image).toBe(`weir:${version}`)
  })
})

it('no option is spelled in a way that only Docker would read', () => {
  const known = new Set(Object.keys(options).map((name) => `WEIR_${name.replace(/[A-Z]/g, '_$&').toUpperCase()}`))
  for (const [name] of composeText.matchAll(/\bWEIR_\w+/g)) expect(known).toContain(name)
})
