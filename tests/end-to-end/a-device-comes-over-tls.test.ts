// MQTT over TLS, on a port of its own: with a token as anywhere, or with a certificate that names a registered device. Whoever shows another one, or speaks
// no TLS, is not let in, and disturbs nobody.
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect as connectSocket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { waitFor } from '../helpers/wait-for.ts'
import { startWeirWithAuth, type WeirWithAuth } from '../helpers/weir-with-auth.ts'

const slow = { withinMs: 20_000 }
const hasOpenssl = spawnSync('openssl', ['version']).status === 0
if (!hasOpenssl) {
  const reason = 'there is no openssl here to make certificates with'
  if (process.env.WEIR_TEST_REQUIRE) throw new Error(reason)
  process.stdout.write(`the tests of TLS are skipped: ${reason}\n`)
}

describe.skipIf(!hasOpenssl)('a device comes over TLS', () => {
  const directory = mkdtempSync(join(tmpdir(), 'weir-test-tls-'))
  const path = (name: string): string => join(directory, name)
  const pem = (name: string): string => readFileSync(path(name), 'utf8')
  const clients: MqttClient[] = []
  let weir: WeirWithAuth
  let token: string

  const openssl = (...words: string[]): void => {
    const { status, stderr } = spawnSync('openssl', words, { cwd: directory, encoding: 'utf8' })
    if (status !== 0) throw new Error(`openssl ${words.join(' ')}: ${stderr}`)
  }
  const authority = (name: string): void =>
    openssl(
      ...`req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=${name} -keyout ${name}.key -out ${name}.pem`.split(' '),
    )
  const certificate = (name: string, by: string): void => {
    openssl(...`req -newkey rsa:2048 -nodes -subj /CN=${name} -keyout ${by}-${name}.key -out ${name}.csr`.split(' '))
    const files = `-in ${name}.csr -CA ${by}.pem -CAkey ${by}.key -CAcreateserial -out ${by}-${name}.pem`
    openssl(...`x509 -req -days 2 ${files}`.split(' '))
  }

  beforeAll(async () => {
    authority('ours')
    authority('theirs')
    for (const name of ['localhost', 'boiler', 'stranger']) certificate(name, 'ours')
    certificate('boiler', 'theirs')
    weir = await startWeirWithAuth({
      env: {
        WEIR_MQTT_TLS_PORT: '0',
        WEIR_TLS_CERT: path('ours-localhost.pem'),
        WEIR_TLS_KEY: path('ours-localhost.key'),
        WEIR_TLS_CLIENT_CA: path('ours.pem'),
      },
    })
    token = await weir.addDevice('boiler')
  }, 120_000)
  afterAll(() => {
    for (const client of clients) client.end(true)
    rmSync(directory, { recursive: true, force: true })
  })

  const connect = async (options: IClientOptions): Promise<MqttClient> => {
    const { hostname, port } = new URL(weir.urls.mqtts!)
    const client = await mqtt.connectAsync(`mqtts://${hostname}:${port}`, {
      ca: pem('ours.pem'),
      servername: 'localhost',
      // The certificate names localhost; the address is its number.
      checkServerIdentity: () => undefined,
      reconnectPeriod: 0,
      clientId: 'boiler',
      ...options,
    } as IClientOptions)
    clients.push(client)
    return client
  }
  const shown = (by: string, name: string): IClientOptions => ({
    cert: pem(`${by}-${name}.pem`),
    key: pem(`${by}-${name}.key`),
  })

  it('with its token', async () => {
    const client = await connect({ username: 'boiler', password: token })
    await client.publishAsync('devices/boiler/telemetry', '{"temperature": 1}', { qos: 1 })
    await expect(connect({ username: 'boiler', password: 'x' })).rejects.toThrow(/[Bb]ad/)
    await expect(connect({})).rejects.toThrow(/[Nn]ot authorized/)
  })

  it('with a certificate that names it, and as nobody else', async () => {
    const client = await connect(shown('ours', 'boiler'))
    await client.publishAsync('devices/boiler/telemetry', '{"temperature": 2}', { qos: 1 })
    await waitFor(async () => {
      const answer = await (await weir.ask('/v1/latest?device=boiler')).json()
      expect(answer).toMatchObject({ items: [{ value: 2 }] })
      return true
    }, slow)
    await expect(connect({ ...shown('ours', 'boiler'), username: 'pump' })).rejects.toThrow()
    await expect(connect({ ...shown('theirs', 'boiler') })).rejects.toThrow()
    await expect(connect({ ...shown('ours', 'stranger'), clientId: 'stranger' })).rejects.toThrow()
  })

  it('until it is forgotten', async () => {
    const client = await connect(shown('ours', 'boiler'))
    expect((await weir.ask('/v1/devices/boiler', { method: 'DELETE' })).status).toBe(204)
    await waitFor(() => !client.connected, { withinMs: 5_000, what: 'the connection to end' })
    await expect(connect(shown('ours', 'boiler'))).rejects.toThrow()
    token = await weir.addDevice('boiler')
  })

  it('what is no TLS, or an old one, or never comes to its end, is let go', async () => {
    const { hostname, port } = new URL(weir.urls.mqtts!)
    const plain = connectSocket(Number(port), hostname, () =>
      plain.write('\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00'),
    )
    const silent = connectSocket(Number(port), hostname)
    for (const socket of [plain, silent]) socket.resume().on('error', () => {})
    const old = connectTls({
      host: hostname,
      port: Number(port),
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1',
      rejectUnauthorized: false,
    })
    old.resume().on('error', () => {})
    await waitFor(() => plain.destroyed && old.destroyed && silent.destroyed, slow)
    const client = await connect({ username: 'boiler', password: token })
    await client.publishAsync('devices/boiler/telemetry', '{"temperature": 3}', { qos: 1 })
  }, 60_000)

  it('shows a certificate that was renewed to who comes from then on, and goes on with it when the next is broken', async () => {
    const { hostname, port } = new URL(weir.urls.mqtts!)
    const shownNow = (): Promise<string> =>
      new Promise((done) => {
        const socket = connectTls({ host: hostname, port: Number(port), rejectUnauthorized: false }, () => {
          done(String(socket.getPeerCertificate().subject?.CN))
          socket.destroy()
        })
        socket.on('error', (error) => done(error.message))
      })
    const isShown = (name: string): Promise<boolean> =>
      waitFor(async () => (await shownNow()) === name, { ...slow, everyMs: 200, what: `the certificate of ${name}` })
    const before = await connect({ username: 'boiler', password: token })
    await isShown('localhost')
    certificate('renewed', 'ours')
    // One file after the other, as they are replaced.
    copyFileSync(path('ours-renewed.pem'), path('ours-localhost.pem'))
    expect(['localhost', 'renewed']).toContain(await shownNow())
    copyFileSync(path('ours-renewed.key'), path('ours-localhost.key'))
    await isShown('renewed')
    await before.publishAsync('devices/boiler/telemetry', '{"temperature": 4}', { qos: 1 })

    writeFileSync(path('ours-localhost.pem'), 'no certificate')
    await waitFor(() => weir.stderr().includes('can’t be used: the one before is shown on'), slow)
    expect(await shownNow()).toBe('renewed')
    const after = await connect({ ...shown('ours', 'boiler'), clientId: 'boiler/2' })
    await after.publishAsync('devices/boiler/telemetry', '{"temperature": 5}', { qos: 1 })

    certificate('again', 'ours')
    copyFileSync(path('ours-again.key'), path('ours-localhost.key'))
    copyFileSync(path('ours-again.pem'), path('ours-localhost.pem'))
    await isShown('again')
  }, 120_000)
})
