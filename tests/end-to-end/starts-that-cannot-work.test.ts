// What is wrong before anything opens is said at once, in words that help, with exit code 1 (2 for a command used wrongly); nothing stays behind.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { itOnEmbedded, runWeir, startWeir } from '../helpers/weir-process.ts'

const ports = { WEIR_MQTT_PORT: '0', WEIR_HTTP_PORT: '0', WEIR_GATEWAY_PORT: '0', WEIR_LIVE_PORT: '0' }

describe('starts that cannot work', () => {
  const directory = mkdtempSync(join(tmpdir(), 'weir-test-starts-'))
  const servers: Server[] = []
  let taken: number
  beforeAll(async () => {
    const server = createServer()
    servers.push(server)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    taken = (server.address() as { port: number }).port
  })
  afterAll(() => {
    for (const server of servers) server.close()
    rmSync(directory, { recursive: true, force: true })
  })

  const start = (env: Record<string, string>, ...words: string[]) =>
    runWeir(['start', '--data', join(directory, 'data'), ...words], { env: { ...ports, ...env } })

  const expectOneSentence = (result: { stderr: string; stdout: string }): void => {
    expect(result.stdout).not.toMatch(/^ready$/m)
    expect(result.stderr).not.toMatch(/^\s+at .*\(.*:\d+:\d+\)/m)
  }

  it.each(['WEIR_MQTT_PORT', 'WEIR_GATEWAY_PORT', 'WEIR_HTTP_PORT', 'WEIR_CLICKHOUSE_PORT'])(
    '%s is taken',
    async (name) => {
      const result = await start({ [name]: String(taken) })
      expect(result.code, result.stderr).toBe(1)
      expect(result.stderr).toContain(String(taken))
      expect(result.stderr).toContain(name)
      expectOneSentence(result)
    },
  )

  it('several things are wrong in the configuration: all are listed', async () => {
    const result = await start({ WEIR_MQTT_PORT: '70000', WEIR_LOG_QUOTA: 'plenty', WEIR_HTTP_PROT: '8080' })
    expect(result.code).toBe(1)
    for (const name of ['WEIR_MQTT_PORT', 'WEIR_LOG_QUOTA', 'WEIR_HTTP_PROT', 'did you mean WEIR_HTTP_PORT'])
      expect(result.stderr).toContain(name)
    expectOneSentence(result)
  })

  it('a public address without authentication', async () => {
    const result = await start({ WEIR_HOST: '0.0.0.0' })
    expect(result.code).toBe(1)
    expect(result.stderr).toMatch(/authenticat/)
    expectOneSentence(result)
  })

  it.each([
    [{ WEIR_HOST: '0.0.0.0', WEIR_AUTH: 'open' }, /WEIR_HOST is 0\.0\.0\.0.*WEIR_AUTH=required/],
    [{ WEIR_HOST: '::', WEIR_AUTH: 'required' }, /WEIR_ADMIN_TOKEN/],
    [{ WEIR_AUTH: 'required' }, /set WEIR_ADMIN_TOKEN to 16 characters or more/],
    [{ WEIR_AUTH: 'required', WEIR_ADMIN_TOKEN: 'hunter2' }, /WEIR_ADMIN_TOKEN must be 16 to 256 characters/],
    [{ WEIR_MQTT_TLS_PORT: '8883' }, /set WEIR_TLS_CERT and WEIR_TLS_KEY too/],
    [{ WEIR_AUTH: 'maybe' }, /WEIR_AUTH is "maybe": must be open or required/],
  ])('authentication that would keep nobody out, or everybody: %j', async (env, sentence) => {
    const result = await start(env)
    expect(result.code).toBe(1)
    expect(result.stderr).toMatch(sentence)
    expect(result.stderr).not.toContain('hunter2')
    expectOneSentence(result)
  })

  it('a file of devices that is none', async () => {
    const file = join(directory, 'devices.ndjson')
    writeFileSync(file, '{"format":"weir-devices","version":1}\n{"device":')
    const result = await start({ WEIR_DEVICES: file, WEIR_AUTH: 'required', WEIR_ADMIN_TOKEN: 'x'.repeat(16) })
    expect(result.code).toBe(1)
    expect(result.stderr).toMatch(/devices\.ndjson can't be used: line 2 is not whole/)
    expectOneSentence(result)
  })

  it('a ClickHouse elsewhere with its password in the address, or an authority that is not there', async () => {
    const result = await start({ WEIR_CLICKHOUSE: 'https://me:s3cret@store.example:8443' })
    expect(result.code).toBe(1)
    expect(result.stderr).toContain('WEIR_CLICKHOUSE_PASSWORD')
    expect(result.stderr + result.stdout).not.toContain('s3cret')
    const file = join(directory, 'no-such.pem')
    const untrusted = await start({ WEIR_CLICKHOUSE: 'https://store.example:8443', WEIR_CLICKHOUSE_CA: file })
    expect(untrusted.code).toBe(1)
    expect(untrusted.stderr).toMatch(/WEIR_CLICKHOUSE_CA/)
    expect(untrusted.stderr).toContain(file)
    for (const each of [result, untrusted]) expectOneSentence(each)
  })

  it('a file of options that is none', async () => {
    const file = join(directory, 'weir.json')
    writeFileSync(file, '{"mqttPort": ')
    const result = await start({}, '--config', file)
    expect(result.code).toBe(1)
    expect(result.stderr).toContain(file)
    expectOneSentence(result)
  })

  it('an option or a command that does not exist', async () => {
    const option = await start({}, '--prot', '1')
    expect(option.code).toBe(2)
    expect(option.stderr).toContain('--prot')
    const command = await runWeir(['strat'])
    expect(command.code).toBe(2)
    expect(command.stderr).toContain('strat')
    expectOneSentence(option)
    expectOneSentence(command)
  })

  it('a file of devices that can not be changed', async () => {
    const data = join(directory, 'kept')
    mkdirSync(data)
    // Where whoever changes it would take it for itself.
    writeFileSync(join(data, 'devices.ndjson.lock'), '')
    const result = await runWeir(['device', 'add', 'd', '--data', data])
    expect(result.code, result.stderr).toBe(1)
    expect(result.stderr).toContain(`The file of devices ${join(data, 'devices.ndjson')} can't be changed from here`)
    expectOneSentence(result)
  })

  itOnEmbedded(
    'roles that need the embedded log, on a machine that does not hold it',
    'no machine holds it',
    async () => {
      const elsewhere = ['--data', join(directory, 'elsewhere'), '--roles', 'writer,api']
      const result = await runWeir(['start', ...elsewhere], { env: ports })
      expect(result.code, result.stderr).toBe(1)
      expect(result.stderr).toContain(join(directory, 'elsewhere'))
      expect(result.stderr).toContain('WEIR_LOG=kafka')
      expectOneSentence(result)
    },
  )

  itOnEmbedded('a data directory that another process uses', 'two share the work', async () => {
    const first = await startWeir()
    const result = await runWeir(['start', '--data', first.data], { env: ports })
    expect(result.code, result.stderr).toBe(1)
    expect(result.stderr).toContain(first.data)
    expect(result.stderr).toContain(String(first.pid))
    expectOneSentence(result)
    // The one that had it first goes on.
    expect((await fetch(`${first.http}/readyz`)).status).toBe(200)
    await first.stop()
  })
})
