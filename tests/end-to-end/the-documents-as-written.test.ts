// What README.md and docs/ tell people to type, run as it stands there: programs over WebSocket, asking, dead letters, tokens and certificates. The
// proxy of docs/access.md is in a-proxy-has-the-tls.test.ts; what they name is checked by tests/documents.test.ts.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ask, type ReadingItem } from '../helpers/ask.ts'
import { addressedTo, runModule, runShell, snippetsOf, snippetWith } from '../helpers/snippets.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'
import { adminToken, startWeirWithAuth, type WeirWithAuth } from '../helpers/weir-with-auth.ts'

const missing = ['bash', 'curl', 'mosquitto_pub', 'openssl'].filter((name) => spawnSync('which', [name]).status !== 0)
if (missing.length > 0) {
  const reason = `not here: ${missing.join(', ')}`
  if (process.env.WEIR_TEST_REQUIRE) throw new Error(reason)
  process.stdout.write(`the documents are not run as written: ${reason}
`)
}

describe.skipIf(missing.length > 0)('the documents as written', () => {
  const directory = mkdtempSync(join(tmpdir(), 'weir-test-documents-'))
  afterAll(() => rmSync(directory, { recursive: true, force: true }))

  describe('where everybody may', () => {
    let weir: WeirProcess
    beforeAll(async () => {
      weir = await startWeir()
    })
    const shell = (lines: string) => {
      const env = { WEIR_HTTP_PORT: new URL(weir.http).port }
      return runShell(addressedTo(weir, lines), { directory, env })
    }
    const module = (name: string, text: string, until?: RegExp) =>
      runModule(addressedTo(weir, text), { directory, name, ...(until && { until }) })
    const temperatures = async (query: string, device = 'boiler-1'): Promise<(number | undefined)[]> => {
      const { items } = await ask<{ items: ReadingItem[] }>(
        `${weir.http}/v1/readings?device=${device}&metric=temperature&${query}`,
      )
      return items.map(({ value }) => value)
    }

    it('a device publishes by Node', async () => {
      const overTcp = await module('publish', snippetWith('README.md', 'js', 'publishAsync'))
      expect(overTcp, overTcp.stderr).toMatchObject({ code: 0 })
      const connect = snippetWith('docs/gateway.md', 'js', '/mqtt')
      const publish = `await client.publishAsync('devices/boiler-1/telemetry', '{"temperature": 71.9}', { qos: 1 })\nawait client.endAsync()`
      const overWebSocket = await module('mqtt', `import mqtt from 'mqtt'\n${connect}${publish}`)
      expect(overWebSocket, overWebSocket.stderr).toMatchObject({ code: 0 })
      await waitFor(async () => {
        const values = await temperatures('from=now-1h')
        return values.includes(71.4) && values.includes(71.9)
      })
    })

    it('a gateway keeps a WebSocket open, with frames of both kinds', async () => {
      const snippet = snippetWith('docs/gateway.md', 'js', '/v1/ingest')
      const { stdout, stderr } = await module('ingest', snippet, /"upTo":2/)
      expect(stdout.split('\n')[0], stderr).toBe('{"type":"hello","window":64,"maxBytes":65536}')
      expect(stdout).toContain('{"type":"ack","upTo":2}')
      await waitFor(async () => {
        const values = await temperatures('from=now-1h')
        return values.includes(21.5) && values.includes(21.6)
      })
    })

    it('an HTTP body is answered as docs/gateway.md says', async () => {
      const { code, stdout, stderr } = await shell(snippetWith('docs/gateway.md', 'sh', '/v1/telemetry'))
      expect(code, stderr).toBe(0)
      expect(JSON.parse(stdout)).toEqual({ accepted: 2, deadLettered: 0 })
    })

    it('a viewer watches, in text and in columns', async () => {
      const inTheReadme = await module('watch', snippetWith('README.md', 'js', 'new WebSocket'), /caught-up/)
      expect(inTheReadme.stdout, inTheReadme.stderr).toContain('"caught-up"')
      const inText = await module('live', snippetWith('docs/live.md', 'js', 'mode=every'), /caught-up/)
      expect(inText.stdout, inText.stderr).toContain("'caught-up'")
      await shell(`mosquitto_pub -q 1 -t devices/boiler-1/telemetry -m '{"temperature": 71.3, "state": "heating"}'`)
      const inColumns = await module('columns', snippetWith('docs/live.md', 'js', 'readColumns'), /caught-up/)
      expect(inColumns.stdout, inColumns.stderr).toContain("{ device: 'boiler-1', metric: 'temperature' }")
      expect(inColumns.stdout).toContain('Float64Array')
      expect(inColumns.stdout).toContain("'heating'")
    })

    it('a stream comes to curl', async () => {
      const lines = [snippetWith('README.md', 'sh', '/v1/live'), snippetWith('docs/live.md', 'sh', '/v1/live')]
      for (const line of lines) {
        const { stdout } = await runShell(addressedTo(weir, line).replace('curl', 'exec curl -sS'), {
          directory,
          until: /^event: caught-up$/m,
        })
        expect(stdout, line).toMatch(/^event: caught-up$/m)
      }
    })

    it('an analyst asks', async () => {
      const [publish, ...questions] = snippetsOf('docs/asking.md', 'sh')
      const taken = await shell(publish!)
      expect(JSON.parse(taken.stdout)).toEqual({ accepted: 3, deadLettered: 0 })
      await waitFor(async () => expect(await temperatures('from=0', 'boiler-2')).toEqual([21.5, 21.6, 21.8]))
      for (const question of questions) {
        const { code, stdout, stderr } = await shell(question)
        expect(code, `${question}${stdout}${stderr}`).toBe(0)
      }
      const page = await shell(snippetWith('docs/asking.md', 'sh', '/v1/readings'))
      expect(JSON.parse(page.stdout)).toMatchObject({
        items: [{ value: 21.5 }, { value: 21.6 }],
        next: expect.any(String),
      })
      const csv = await shell('cat boiler-2.csv')
      expect(csv.stdout).toMatch(/^"device","metric","observedAt","value","text"\n/)
      expect(csv.stdout).toContain('"boiler-2","temperature","2026-01-01 00:00:00.000000",21.5,""\n')
      const pages = await module('pages', snippetWith('docs/asking.md', 'js', 'after'))
      expect(pages.code, pages.stderr).toBe(0)
      expect(pages.stdout).toBe(
        '2026-01-01T00:00:00.000Z 21.5\n2026-01-01T00:01:00.000Z 21.6\n2026-01-01T00:02:00.000Z 21.8\n',
      )
    })

    it('a dead letter is looked at, mended and put back', async () => {
      const [send, ...rest] = snippetWith('docs/payloads.md', 'sh', 'dead-letters').split('\n')
      const refused = await shell(send!)
      expect(JSON.parse(refused.stdout)).toMatchObject({ status: 422, deadLetter: expect.any(String) })
      await waitFor(async () => {
        const { items } = await ask<{ items: unknown[] }>(`${weir.http}/v1/dead-letters?device=boiler-1`)
        return items.length > 0
      })
      const { code, stdout, stderr } = await shell(rest.join('\n'))
      expect(code, stderr).toBe(0)
      expect(stdout).toContain('payload (20 bytes): {"temperature": 71.5')
      expect(stdout).toContain('accepted 1, dead-lettered 0')
    })
  })

  describe('where it is asked who somebody is', () => {
    let weir: WeirWithAuth
    const file = (name: string): string => join(directory, name)
    beforeAll(async () => {
      const made = await runShell(snippetWith('docs/access.md', 'sh', 'openssl req -x509'), { directory })
      expect(made.code, made.stderr).toBe(0)
      weir = await startWeirWithAuth({
        env: {
          WEIR_MQTT_TLS_PORT: '0',
          WEIR_TLS_CERT: file('weir.pem'),
          WEIR_TLS_KEY: file('weir.key'),
          WEIR_TLS_CLIENT_CA: file('ca.pem'),
        },
      })
    })
    const shell = (lines: string, env = {}) =>
      runShell(addressedTo(weir, lines), {
        directory,
        env: { WEIR_DATA: weir.data, WEIR_ADMIN_TOKEN: adminToken, ...env },
      })

    it('a device is given a token, publishes, and is shut out', async () => {
      const { code, stdout, stderr } = await shell(snippetWith('README.md', 'sh', 'TOKEN=$(npx weir device add'))
      expect(code, stderr).toBe(0)
      expect(stdout).toContain('{"accepted":1,"deadLettered":0}')
      expect(stdout).toContain('1 token is good for nothing any more')
      const devices = await shell(snippetWith('docs/access.md', 'sh', 'device list').replaceAll('boiler-1', 'boiler-2'))
      expect(devices.code, devices.stderr).toBe(0)
      expect(devices.stdout).toContain('gateway-7  1 token, speaks for hall-7-*, pump-3')
      expect((await shell(snippetWith('docs/access.md', 'sh', '/v1/devices'))).code).toBe(0)
    })

    it('a device comes over TLS, with its token and with its certificate', async () => {
      const made = await shell('npx weir device token boiler-1 --json')
      const { token } = JSON.parse(made.stdout) as { token: string }
      const lines = snippetWith('docs/access.md', 'sh', '--cert boiler-1.pem')
      const { code, stderr } = await shell(lines, { TOKEN: token })
      expect(code, stderr).toBe(0)
      const values = await waitFor(async () => {
        const answer = await weir.ask('/v1/readings?device=boiler-1&metric=temperature&from=now-1h&order=desc&limit=2')
        const { items } = (await answer.json()) as { items: ReadingItem[] }
        return items[0]?.value === 71.4 && items.map(({ value }) => value)
      })
      expect(values).toEqual([71.4, 71.3])
    })
  })
})
