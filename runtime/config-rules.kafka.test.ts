// The rules over the options for Kafka: what can't work is refused before anything opens, with what to set instead.
import * as zlib from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { readConfig } from './read-config.ts'
import { problemsOf } from './test-problems.ts'

const brokers = { WEIR_LOG: 'kafka', WEIR_KAFKA_BROKERS: 'one.example:9092, two.example:9092' }

describe('options for Kafka', () => {
  it.skipIf('zstdCompressSync' in zlib)('zstd is refused by a Node that lacks it (newer ones have it)', () => {
    expect(problemsOf({ environment: { ...brokers, WEIR_KAFKA_COMPRESSION: 'zstd' } })).toEqual([
      expect.stringMatching(/needs Node 22\.15 or newer.*use gzip/),
    ])
  })

  it('brokers are a list of host:port', () => {
    expect(readConfig({ environment: brokers }).kafkaBrokers).toEqual(['one.example:9092', 'two.example:9092'])
  })

  it.each<[string, Record<string, string>, RegExp]>([
    ['kafka without brokers', { WEIR_LOG: 'kafka' }, /set WEIR_KAFKA_BROKERS/],
    ['brokers without kafka', { WEIR_KAFKA_BROKERS: 'one.example:9092' }, /set WEIR_LOG=kafka/],
    [
      'a broker without a port',
      { ...brokers, WEIR_KAFKA_BROKERS: 'one.example' },
      /"one.example", which is not host:port/,
    ],
    ['a broker that is a URL', { ...brokers, WEIR_KAFKA_BROKERS: 'kafka://one.example:9092' }, /not host:port/],
    ['a certificate without its key', { ...brokers, WEIR_KAFKA_TLS_CERT: 'own.pem' }, /belong together/],
    [
      'SASL without a password',
      { ...brokers, WEIR_KAFKA_SASL: 'scram-sha-256', WEIR_KAFKA_USERNAME: 'weir' },
      /WEIR_KAFKA_PASSWORD/,
    ],
    ['a password without SASL', { ...brokers, WEIR_KAFKA_PASSWORD: 'secret' }, /set WEIR_KAFKA_SASL/],
    ['OAUTHBEARER without a token', { ...brokers, WEIR_KAFKA_SASL: 'oauthbearer' }, /WEIR_KAFKA_TOKEN_FILE/],
    [
      'a password over the network in the clear',
      { ...brokers, WEIR_KAFKA_SASL: 'plain', WEIR_KAFKA_USERNAME: 'weir', WEIR_KAFKA_PASSWORD: 'secret' },
      /WEIR_KAFKA_TLS=true/,
    ],
    ['a prefix that Kafka would not take', { ...brokers, WEIR_KAFKA_PREFIX: 'a b' }, /letters, digits/],
  ])('%s is refused with what to set', (_name, environment, words) => {
    expect(problemsOf({ environment })).toEqual([expect.stringMatching(words)])
  })

  it.each<[string, Record<string, string>]>([
    [
      'TLS and SCRAM',
      { WEIR_KAFKA_TLS: 'true', WEIR_KAFKA_SASL: 'scram-sha-512', WEIR_KAFKA_USERNAME: 'u', WEIR_KAFKA_PASSWORD: 'p' },
    ],
    ['OAUTHBEARER', { WEIR_KAFKA_TLS_CA: 'ca.pem', WEIR_KAFKA_SASL: 'oauthbearer', WEIR_KAFKA_TOKEN_FILE: 'token' }],
    ['our own certificate', { WEIR_KAFKA_TLS_CERT: 'own.pem', WEIR_KAFKA_TLS_KEY: 'own.key' }],
  ])('%s is taken', (_name, environment) => {
    expect(problemsOf({ environment: { ...brokers, ...environment } })).toEqual([])
  })
})
