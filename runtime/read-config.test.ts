import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { environmentName, options } from './config.ts'
import { readConfig } from './read-config.ts'
import { problemsOf } from './test-problems.ts'

describe('the configuration', () => {
  const directory = mkdtempSync(join(tmpdir(), 'weir-test-config-'))
  afterAll(() => rmSync(directory, { recursive: true, force: true }))
  const file = (content: string): string => {
    const path = join(directory, 'weir.json')
    writeFileSync(path, content)
    return path
  }

  it('has a default for all that is needed, each by its own rule', () => {
    const config = readConfig({ environment: {} })
    expect(config).toMatchObject({ mqttPort: 1883, httpPort: 8080, host: '127.0.0.1', partitions: 4, drainMs: 8000 })
    expect(config.roles).toEqual(['ingest', 'writer', 'detector', 'api'])
    expect(config.logQuota).toBe(10 * 1024 ** 3)
    expect(config.retentionLog).toBe(24 * 3_600_000)
    expect(config.data).toBe(resolve('data'))
  })

  it('is read from flags before the environment before the file', () => {
    const path = file('{"mqttPort": 1, "httpPort": 1, "livePort": 1, "gatewayPort": 4}')
    const environment = { WEIR_HTTP_PORT: '2', WEIR_LIVE_PORT: '2' }
    const config = readConfig({ environment, file: path, flags: { livePort: '3' } })
    expect([config.mqttPort, config.httpPort, config.livePort, config.gatewayPort]).toEqual([1, 2, 3, 4])
  })

  it('takes sizes, durations, roles and flags as people write them', () => {
    const environment = {
      WEIR_LOG_QUOTA: '512MiB',
      WEIR_RETENTION_LOG: '90m',
      WEIR_ROLES: 'api, writer',
      WEIR_MQTT_TOPICS_OPEN: 'true',
    }
    expect(readConfig({ environment })).toMatchObject({
      logQuota: 512 * 1024 ** 2,
      retentionLog: 5_400_000,
      roles: ['api', 'writer'],
      mqttTopicsOpen: true,
    })
  })

  it('is refused with all that is wrong at once, unknown names too', () => {
    const environment = { WEIR_MQTT_PORT: '70000', WEIR_DRAIN_MS: 'soon', WEIR_HTTP_PROT: '1' }
    const problems = problemsOf({ environment, file: file('{"htpPort": 1, "logQuota": "much"}') })
    expect(problems).toHaveLength(5)
    expect(problems.join('\n')).toMatch(/WEIR_HTTP_PROT is not an option; did you mean WEIR_HTTP_PORT\?/)
    expect(problems.join('\n')).toMatch(/htpPort is not an option; did you mean httpPort\?/)
    expect(problems.join('\n')).toMatch(/logQuota is "much": must be a size/)
  })

  it.each([
    [{ WEIR_HTTP_PORT: '9', WEIR_MQTT_PORT: '9' }, /both 9/],
    [{ WEIR_HOST: '0.0.0.0' }, /authentication/],
    [{ WEIR_LOG_QUOTA: '1MiB' }, /256MiB/],
    [{ WEIR_ROLES: 'ingest,painter' }, /no role "painter"/],
    [{ WEIR_ROLES: ' , ' }, /at least one of/],
    [{ WEIR_LOG: 'paper' }, /WEIR_LOG/],
  ])('%j is refused with a sentence', (environment, sentence) => {
    expect(problemsOf({ environment }).join('\n')).toMatch(sentence)
  })

  it.each(['', '[]', '{"mqttPort":', 'null'])('the file %j is refused with its name', (content) => {
    expect(problemsOf({ environment: {}, file: file(content) })[0]).toContain('weir.json')
  })

  it('leaves what is not ours alone', () => {
    expect(() =>
      readConfig({ environment: { PATH: '/', WEIR_TEST_REQUIRE: 'all', WEIR_INTERNAL_X: '1' } }),
    ).not.toThrow()
  })

  it('names each option for the environment in one way', () => {
    const names = Object.keys(options).map(environmentName)
    expect(names).toContain('WEIR_MQTT_TOPICS_OPEN')
    expect(new Set(names).size).toBe(names.length)
  })

  it('lists what is wrong all at once, by the name that was used, rules over several options too', () => {
    const problems = problemsOf({
      environment: { WEIR_HTP_PORT: '1', WEIR_LOG_QUOTA: '3', WEIR_RETENTION_RAW: '30s' },
      flags: { mqttTopicsOpen: 'maybe', host: '0.0.0.0' },
    })
    expect(problems).toEqual([
      'WEIR_HTP_PORT is not an option; did you mean WEIR_HTTP_PORT?',
      '--mqtt-topics-open is "maybe": must be true or false',
      'WEIR_RETENTION_RAW is "30s": must be at least 1h',
      'WEIR_LOG_QUOTA must be at least 256MiB (four segments)',
      expect.stringMatching(/^WEIR_HOST is 0.0.0.0, which others can reach: .*WEIR_ADMIN_TOKEN/),
    ])
  })
})

describe('a container', () => {
  it('may bind every address when its ports are published on loopback alone', () => {
    const inside = { WEIR_HOST: '0.0.0.0', WEIR_PUBLISHED_HOST: '127.0.0.1' }
    expect(readConfig({ environment: inside })).toMatchObject({ host: '0.0.0.0', publishedHost: '127.0.0.1' })
    expect(() => readConfig({ environment: { ...inside, WEIR_PUBLISHED_HOST: '0.0.0.0' } })).toThrow(
      /WEIR_PUBLISHED_HOST is 0\.0\.0\.0, which others can reach/,
    )
    expect(() => readConfig({ environment: { WEIR_HOST: '0.0.0.0' } })).toThrow(/WEIR_HOST is 0\.0\.0\.0/)
    // Loopback inside is no consent to be published to others.
    expect(() => readConfig({ environment: { WEIR_PUBLISHED_HOST: '10.0.0.1' } })).toThrow(/WEIR_PUBLISHED_HOST/)
  })

  it('has a health port only where one is set', () => {
    expect(readConfig({ environment: {} }).healthPort).toBeUndefined()
    expect(readConfig({ environment: { WEIR_HEALTH_PORT: '8083' } }).healthPort).toBe(8083)
    expect(() => readConfig({ environment: { WEIR_HEALTH_PORT: '8080' } })).toThrow(/WEIR_HEALTH_PORT .* 8080/)
  })
})
