// How a cluster that asks who we are is reached: TLS with our own certificate, SASL PLAIN, SCRAM and OAUTHBEARER, each against a real broker.
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { EventLog } from '../../domain/event-log.ts'
import { systemClock } from '../../runtime/clock.ts'
import { RetryableError, StartError } from '../../runtime/errors.ts'
import { type Logger, silentLogger } from '../../runtime/logger.ts'
import { readConfig } from '../../runtime/read-config.ts'
import { kafkaMissing, startKafka, type TestKafka } from '../../tests/helpers/kafka.ts'
import { waitFor } from '../../tests/helpers/wait-for.ts'
import { openLog } from './open-log.ts'

const secret = 'test-secret'
const reasonOf = (log: EventLog): string => {
  const state = log.state()
  return state.state === 'ok' ? 'ok' : state.reason
}

describe.skipIf(kafkaMissing())('a Kafka that asks who we are', () => {
  let kafka: TestKafka
  let directory: string
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'weir-kafka-auth-'))
    makeCertificate(directory)
    const module = 'org.apache.kafka.common.security'
    kafka = await startKafka({
      extraListeners: { SASL: 'SASL_PLAINTEXT', TLS: 'SSL', BOTH: 'SASL_SSL' },
      scramUsers: { weir: secret },
      properties: {
        'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER',
        ...Object.fromEntries(
          ['sasl', 'both'].flatMap((listener) => [
            [
              `listener.name.${listener}.plain.sasl.jaas.config`,
              `${module}.plain.PlainLoginModule required user_weir="${secret}";`,
            ],
            ...['256', '512'].map((bits) => [
              `listener.name.${listener}.scram-sha-${bits}.sasl.jaas.config`,
              `${module}.scram.ScramLoginModule required;`,
            ]),
            [
              `listener.name.${listener}.oauthbearer.sasl.jaas.config`,
              `${module}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`,
            ],
          ]),
        ),
        'listener.name.tls.ssl.client.auth': 'required',
        'ssl.keystore.type': 'PEM',
        'ssl.keystore.location': join(directory, 'both.pem'),
        'ssl.truststore.type': 'PEM',
        'ssl.truststore.location': join(directory, 'cert.pem'),
      },
    })
  }, 180_000)
  afterAll(async () => {
    await kafka?.dispose()
    rmSync(directory, { recursive: true, force: true })
  })

  /** By the options that an operator sets. */
  const open = (
    listener: string,
    environment: Record<string, string>,
    { isTls = false, logger = silentLogger }: { isTls?: boolean; logger?: Logger } = {},
  ) =>
    openLog({
      config: readConfig({
        environment: {
          WEIR_LOG: 'kafka',
          WEIR_KAFKA_BROKERS: kafka.listeners[listener]!,
          WEIR_KAFKA_PREFIX: `auth-${randomBytes(4).toString('hex')}.`,
          WEIR_KAFKA_REQUEST_TIMEOUT: '10s',
          ...(isTls && { WEIR_KAFKA_TLS: 'true' }),
          ...environment,
        },
      }),
      mode: 'append',
      logger,
      clock: systemClock,
    })
  const sasl = (mechanism: string, password = secret): Record<string, string> => ({
    WEIR_KAFKA_SASL: mechanism,
    WEIR_KAFKA_USERNAME: 'weir',
    WEIR_KAFKA_PASSWORD: password,
  })
  const ca = (): Record<string, string> => ({ WEIR_KAFKA_TLS_CA: join(directory, 'cert.pem') })

  it.each<[string, string, () => Record<string, string>]>([
    ['SASL PLAIN', 'SASL', () => sasl('plain')],
    ['SCRAM-SHA-256', 'SASL', () => sasl('scram-sha-256')],
    ['SCRAM-SHA-512 over TLS', 'BOTH', () => ({ ...sasl('scram-sha-512'), ...ca() })],
    [
      'OAUTHBEARER with a token from a file',
      'SASL',
      () => {
        const file = join(directory, 'token')
        writeFileSync(file, `${unsecuredToken()}\n`)
        return { WEIR_KAFKA_SASL: 'oauthbearer', WEIR_KAFKA_TOKEN_FILE: file }
      },
    ],
    [
      'TLS with our own certificate',
      'TLS',
      () => ({
        ...ca(),
        WEIR_KAFKA_TLS_CERT: join(directory, 'cert.pem'),
        WEIR_KAFKA_TLS_KEY: join(directory, 'key.pem'),
      }),
    ],
  ])(
    '%s',
    async (_name, listener, environment) => {
      const log = await open(listener, environment())
      await waitFor(() => log.state().state === 'ok', { withinMs: 30_000, what: 'the cluster to answer' })
      expect(await log.append('readings', 1, Buffer.from('kept'), 1, 1)).toBe(0)
      const reader = await log.subscribe('any', 'readings')
      const [chunk] = await reader.read(1e6, new AbortController().signal)
      expect(Buffer.from(chunk!.rows).toString()).toBe('kept')
      await reader.close()
      await log.close()
    },
    60_000,
  )

  it('a certificate that is not trusted is said, and nothing is taken', async () => {
    const log = await open('BOTH', sasl('scram-sha-512', secret), { isTls: true })
    await waitFor(() => /certificate/.test(reasonOf(log)), { withinMs: 30_000, what: () => reasonOf(log) })
    expect(log.state().state).toBe('stalled')
    await expect(log.append('readings', 1, Buffer.from('refused'), 1, 1)).rejects.toBeInstanceOf(RetryableError)
    await log.close()
  }, 60_000)

  it('a password that is changed while we run is said, and nothing is lost when it is put right', async () => {
    const lines: string[] = []
    const log = await open('SASL', sasl('scram-sha-256'), { logger: collecting(lines) })
    await waitFor(() => log.state().state === 'ok', { withinMs: 30_000, what: 'the cluster to answer' })
    expect(await log.append('readings', 1, Buffer.from('before'), 1, 1)).toBe(0)
    setPassword('another')
    // Who was let in stays in, until the connection breaks.
    await kafka.kill(1)
    await kafka.revive(1)
    const waiting = log.append('readings', 1, Buffer.from('meanwhile'), 1, 2)
    await waitFor(() => log.state().state === 'stalled' && /SASL|[Aa]uthentication/.test(reasonOf(log)), {
      withinMs: 90_000,
      what: () => `the log to say that it is not let in; it says ${reasonOf(log)}`,
    })
    expect(lines.join('\n')).toMatch(
      /has not acknowledged partition 1 of .*readings.*(SASL|[Aa]uthentication).*nothing more is taken/,
    )
    await expect(log.append('readings', 1, Buffer.from('refused'), 1, 3)).rejects.toBeInstanceOf(RetryableError)
    setPassword(secret)
    expect(await waiting).toBe(1)
    await waitFor(() => log.state().state === 'ok', { withinMs: 30_000, what: 'the log to go on' })
    expect(await log.append('readings', 1, Buffer.from('after'), 1, 4)).toBe(2)
    await log.close()
  }, 240_000)

  /** By the listener that asks nobody. */
  const setPassword = (password: string): void => {
    const scram = `SCRAM-SHA-256=[password=${password}]`
    const words = ['--alter', '--add-config', scram, '--entity-type', 'users', '--entity-name', 'weir']
    kafka.runTool(['kafka.admin.ConfigCommand', '--bootstrap-server', kafka.brokers[0]!, ...words])
  }

  it.each(['plain', 'scram-sha-256'])('a wrong password for %s is one sentence, and no wait', async (mechanism) => {
    const error = await open('SASL', sasl(mechanism, 'wrong')).catch((caught) => caught)
    expect(error).toBeInstanceOf(StartError)
    expect(error.message).toMatch(/Kafka does not let us in/)
  })
})

function collecting(lines: string[]): Logger {
  const logger: Logger = { ...silentLogger, error: (_fields, message) => lines.push(message), child: () => logger }
  return logger
}

/** What a broker in its own test mode takes: signed by nobody. */
function unsecuredToken(): string {
  const encode = (claims: object): string => Buffer.from(JSON.stringify(claims)).toString('base64url')
  const now = Math.floor(Date.now() / 1_000)
  return `${encode({ alg: 'none' })}.${encode({ sub: 'weir', iat: now, exp: now + 3_600 })}.`
}

function makeCertificate(directory: string): void {
  const words = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost']
  const names = ['-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost']
  const files = ['-keyout', join(directory, 'key.pem'), '-out', join(directory, 'cert.pem')]
  const made = spawnSync('openssl', [...words, ...names, ...files], { encoding: 'utf8' })
  if (made.status !== 0) throw new Error(`no certificate could be made: ${made.stderr}`)
  const [key, certificate] = ['key.pem', 'cert.pem'].map((name) => readFileSync(join(directory, name), 'utf8'))
  writeFileSync(join(directory, 'both.pem'), `${key}${certificate}`)
}
