// The rules over the options for a ClickHouse elsewhere: what can't work is refused before anything opens, and a password is never shown.
import { describe, expect, it } from 'vitest'
import { readConfig } from './read-config.ts'
import { problemsOf } from './test-problems.ts'

const server = { WEIR_CLICKHOUSE: 'https://store.example:8443' }

describe('options for ClickHouse', () => {
  it('are embedded by default, with nothing more to say', () => {
    expect(readConfig({ environment: {} })).toMatchObject({
      clickhouse: 'embedded',
      clickhouseUser: 'default',
      clickhouseDatabase: 'weir',
      clickhouseCompression: 'none',
    })
  })

  it.each([
    'http://127.0.0.1:8123',
    'http://[::1]:8123/',
    'https://store.example:443/telemetry',
    'https://a-b.example:8443',
  ])('%s is an address', (address) => {
    expect(readConfig({ environment: { WEIR_CLICKHOUSE: address } }).clickhouse).toBe(address.replace(/\/$/, ''))
  })

  it.each([
    'store.example:8123',
    'http://store.example',
    'http://store.example:99999',
    'tcp://store.example:9000',
    'http://store.example:8123/a/b',
    'http://store.example:8123/?user=x',
    'embeded',
  ])('%s is refused with what it should be', (address) => {
    expect(problemsOf({ environment: { WEIR_CLICKHOUSE: address } })).toEqual([
      expect.stringMatching(/http:\/\/host:port/),
    ])
  })

  it.each(['hunter2', 'hun/ter@2', 'hun"ter2'])(
    'a password in the address is refused, and not shown: %s',
    (password) => {
      const problems = problemsOf({ environment: { WEIR_CLICKHOUSE: `https://me:${password}@store.example:8443` } })
      expect(problems).toEqual([expect.stringMatching(/WEIR_CLICKHOUSE_PASSWORD/)])
      expect(problems[0]).not.toMatch(/hun|ter/)
    },
  )

  it('a password that can not be used is not shown either', () => {
    const problems = problemsOf({ environment: { ...server, WEIR_CLICKHOUSE_PASSWORD: 'gehëim' } })
    expect(problems).toEqual([expect.stringMatching(/^WEIR_CLICKHOUSE_PASSWORD must be/)])
  })

  it.each<[string, Record<string, string>, RegExp]>([
    ['a user of the embedded one', { WEIR_CLICKHOUSE_USER: 'me' }, /WEIR_CLICKHOUSE_USER is for a server elsewhere/],
    ['a cluster of the embedded one', { WEIR_CLICKHOUSE_CLUSTER: 'c' }, /WEIR_CLICKHOUSE_CLUSTER is for a server/],
    ['a port beside an address', { ...server, WEIR_CLICKHOUSE_PORT: '9' }, /in WEIR_CLICKHOUSE$/],
    [
      'an authority without TLS',
      { WEIR_CLICKHOUSE: 'http://store.example:8123', WEIR_CLICKHOUSE_CA: 'ca.pem' },
      /use https/,
    ],
    [
      'two databases',
      { WEIR_CLICKHOUSE: 'http://store.example:8123/one', WEIR_CLICKHOUSE_DATABASE: 'two' },
      /names the database one/,
    ],
    ['a database that is SQL', { ...server, WEIR_CLICKHOUSE_DATABASE: 'a; DROP' }, /letters, digits/],
    ['a cluster that is SQL', { ...server, WEIR_CLICKHOUSE_CLUSTER: "c' SYNC" }, /letters, digits/],
  ])('%s is refused with what to set', (_name, environment, words) => {
    expect(problemsOf({ environment })).toEqual([expect.stringMatching(words)])
  })
})
