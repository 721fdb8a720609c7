// Where authentication is required, a device sends with its own token, for itself, through any door; a gateway for those that it speaks for; and who
// looks shows the admin token, or signs in. Anything else is refused with the status that says why, and no secret is found on disk or in the log.
import { execFileSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import type { MqttClient } from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connectPacket, packetType, RawMqtt } from '../helpers/mqtt-raw.ts'
import { SseViewer } from '../helpers/sse.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { runWeir } from '../helpers/weir-process.ts'
import { adminToken, startWeirWithAuth, type WeirWithAuth } from '../helpers/weir-with-auth.ts'

const slow = { withinMs: 20_000 }
const reading = '{"temperature": 21.5}'
const wrong = `weir_${'0'.repeat(16)}_${'x'.repeat(43)}`

describe('only the right token gets in', () => {
  let weir: WeirWithAuth
  let boiler: string
  let pump: string
  let gateway: string
  const clients: MqttClient[] = []
  beforeAll(async () => {
    weir = await startWeirWithAuth()
    boiler = await weir.addDevice('boiler')
    pump = await weir.addDevice('pump')
    gateway = await weir.addDevice('gateway', '--speaks-for', 'hall-*,pump')
  }, 120_000)
  afterAll(() => {
    for (const client of clients) client.end(true)
  })

  const connect = async (...given: Parameters<WeirWithAuth['connect']>): Promise<MqttClient> => {
    const client = await weir.connect(...given)
    clients.push(client)
    return client
  }
  /** The return code of the CONNACK. */
  const connack = async (clientId: string, options: Parameters<typeof connectPacket>[1]): Promise<number> => {
    const client = await RawMqtt.open(weir.mqtt)
    client.send(connectPacket(clientId, options))
    const answer = await client.next()
    client.destroy()
    expect(answer.type).toBe(packetType.connack)
    return answer.body[1]!
  }
  const problem = async (answer: Response): Promise<[number, string]> => {
    expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/)
    return [answer.status, ((await answer.json()) as { type: string }).type]
  }
  const isThere = (device: string, value: number): Promise<true> =>
    waitFor(async () => {
      const answer = await weir.ask(`/v1/latest?device=${device}`)
      const { items } = (await answer.json()) as { items: { value: number }[] }
      return items.some((item) => item.value === value) || null
    }, slow) as Promise<true>

  describe('over HTTP', () => {
    it('its own telemetry and no other', async () => {
      const answer = await weir.post('boiler', '{"temperature": 1.5}', boiler)
      expect([answer.status, await answer.json()]).toEqual([200, { accepted: 1, deadLettered: 0 }])
      await isThere('boiler', 1.5)
      const other = await weir.post('pump', reading, boiler)
      expect(await problem(other)).toEqual([403, '/problems/not-this-device'])
      expect((await weir.post('hall-7', reading, gateway)).status).toBe(200)
      expect((await weir.post('pump', reading, gateway)).status).toBe(200)
      expect((await weir.post('boiler', reading, gateway)).status).toBe(403)
    })

    it.each([
      ['none', undefined, 'unauthorised'],
      ['one that nobody has', wrong, 'wrong-token'],
      ['one that is none', 'x', 'wrong-token'],
      ['the admin token', adminToken, 'wrong-token'],
    ])('a token that is %s is 401', async (_, token, slug) => {
      const answer = await weir.post('boiler', reading, token)
      expect(answer.headers.get('www-authenticate')).toMatch(/^Bearer realm="weir"/)
      expect(await problem(answer)).toEqual([401, `/problems/${slug}`])
    })

    it('a secret that is wrong at its end is wrong', async () => {
      const almost = `${boiler.slice(0, -2)}${boiler.endsWith('AA') ? 'BB' : 'AA'}`
      expect((await weir.post('boiler', reading, almost)).status).toBe(401)
    })
  })

  describe('over /v1/ingest', () => {
    it('with the token in the header', async () => {
      const headers = { authorization: `Bearer ${boiler}` }
      const socket = weir.socket('/v1/ingest?device=boiler', { headers })
      await socket.hello()
      socket.json({ id: 1, payload: { temperature: 2.5 } })
      await waitFor(() => socket.ackedUpTo === 1, slow)
      socket.json({ id: 2, device: 'pump', payload: { temperature: 9 } })
      await waitFor(() => socket.messages.some(({ type, reason }) => type === 'reject' && reason === 'not-this-device'))
      socket.destroy()
      await isThere('boiler', 2.5)
      const other = weir.socket('/v1/ingest?device=pump', { headers })
      await waitFor(() => other.head !== '', slow)
      expect(other.head).toMatch(/^HTTP\/1\.1 403 /)
      const none = weir.socket('/v1/ingest?device=boiler', { headers: { authorization: `Bearer ${wrong}` } })
      await waitFor(() => none.head !== '', slow)
      expect(none.head).toMatch(/^HTTP\/1\.1 401 [\s\S]*www-authenticate: Bearer/i)
    })

    it('with the token in the first frame, as a browser must', async () => {
      const socket = weir.socket('/v1/ingest?device=boiler')
      await socket.hello()
      socket.json({ type: 'auth', token: boiler })
      socket.json({ id: 1, payload: { temperature: 3.5 } })
      await waitFor(() => socket.ackedUpTo === 1, slow)
      socket.destroy()
    })

    it.each([
      ['a wrong token', { type: 'auth', token: wrong }],
      ['readings before it', { id: 1, payload: { temperature: 1 } }],
    ])('%s in the first frame closes it with 4401', async (_, frame) => {
      const socket = weir.socket('/v1/ingest?device=boiler')
      await socket.hello()
      socket.json(frame)
      expect([await socket.closed(), socket.closeReason]).toEqual([4401, 'not-authorised'])
    })

    it('another device in the address than that of the token closes it too', async () => {
      const socket = weir.socket('/v1/ingest?device=pump')
      await socket.hello()
      socket.json({ type: 'auth', token: boiler })
      expect(await socket.closed()).toBe(4401)
    })

    it('silence closes it', async () => {
      const socket = weir.socket('/v1/ingest?device=boiler')
      await socket.hello()
      await waitFor(() => socket.isClosed, slow)
      expect(socket.closeCode).toBe(4401)
    })

    it('a gateway speaks for many in one socket, and a device without a name in the address for itself', async () => {
      const socket = weir.socket('/v1/ingest', { headers: { authorization: `Bearer ${gateway}` } })
      await socket.hello()
      socket.json({ id: 1, device: 'hall-1', payload: { temperature: 1 } })
      socket.json({ id: 2, device: 'boiler', payload: { temperature: 99 } })
      socket.json({ id: 3, device: 'hall-2', payload: { temperature: 2 } })
      await waitFor(() => socket.ackedUpTo === 3, slow)
      expect(socket.messages.filter(({ type }) => type === 'reject')).toEqual([
        { type: 'reject', id: 2, reason: 'not-this-device' },
      ])
      socket.destroy()
      const own = weir.socket('/v1/ingest', { headers: { authorization: `Bearer ${pump}` } })
      await own.hello()
      own.json({ id: 1, payload: { temperature: 4.5 } })
      await waitFor(() => own.ackedUpTo === 1, slow)
      own.destroy()
      await isThere('pump', 4.5)
    })
  })

  describe('over MQTT', () => {
    it('with the device as the user and the token as the password', async () => {
      const client = await connect('boiler', boiler)
      await client.publishAsync('devices/boiler/telemetry', '{"temperature": 5.5}', { qos: 1 })
      await isThere('boiler', 5.5)
      const long = await connect('pump', pump, { username: 'pump@default', clientId: 'anything' })
      await long.publishAsync('devices/pump/telemetry', '{"temperature": 6.5}', { qos: 1 })
    })

    it('the same in a WebSocket', async () => {
      const { host } = new URL(weir.gateway)
      const mqtt = await import('mqtt')
      const client = await mqtt.default.connectAsync(`ws://${host}/mqtt`, {
        username: 'pump',
        password: pump,
        clientId: 'pump',
      })
      clients.push(client)
      await client.publishAsync('devices/pump/telemetry', '{"temperature": 7.5}', { qos: 1 })
      await isThere('pump', 7.5)
    })

    it('nobody else is let in', async () => {
      expect(await connack('boiler', {})).toBe(5)
      expect(await connack('boiler', { username: 'boiler' })).toBe(5)
      expect(await connack('boiler', { username: 'boiler', password: wrong })).toBe(4)
      expect(await connack('boiler', { username: 'boiler', password: '' })).toBe(4)
      expect(await connack('boiler', { username: 'boiler', password: pump })).toBe(4)
      expect(await connack('boiler', { username: 'boiler@other', password: boiler })).toBe(4)
      expect(await connack('boiler', { username: 'boiler', password: adminToken })).toBe(4)
    })

    it('nothing is published under another device, and nothing of it is heard', async () => {
      const client = await connect('boiler', boiler, { clientId: 'boiler/2' })
      const granted = await client.subscribeAsync(['devices/boiler/commands', 'devices/boiler/#'])
      expect(granted.map(({ qos }) => qos)).toEqual([0, 0])
      for (const filter of ['devices/pump/commands', 'devices/+/commands', 'devices/#', '#', '+/pump/commands'])
        await expect(client.subscribeAsync(filter), filter).rejects.toThrow()
      let closed = false
      client.on('close', () => {
        closed = true
      })
      client.on('error', () => {})
      client.publish('devices/pump/telemetry', reading, { qos: 1 })
      await waitFor(() => closed, slow)
      const commands = await connect('boiler', boiler, { clientId: 'boiler/3' })
      let refused = false
      commands.on('close', () => {
        refused = true
      })
      commands.publish('devices/pump/commands', 'open', { qos: 0 })
      await waitFor(() => refused, slow)
    })

    it('a client id, a session or a will of somebody else is refused at CONNECT', async () => {
      const victim = await connect('pump', pump, { clientId: 'pump', clean: false })
      const shared = await connect('pump', pump, { clientId: 'shared', clean: false })
      await shared.subscribeAsync('devices/pump/commands', { qos: 1 })
      const as = (clientId: string) => connack(clientId, { username: 'boiler', password: boiler })
      expect(await as('pump')).toBe(2)
      expect(await as('pump/1')).toBe(2)
      expect(await as('shared')).toBe(2)
      await shared.endAsync()
      // It is away, and its session waits for it.
      expect(await as('shared')).toBe(2)
      expect(victim.connected).toBe(true)
      const will = { topic: 'devices/pump/status', payload: 'gone' }
      expect(await connack('boiler/4', { username: 'boiler', password: boiler, will })).toBe(5)
      const own = { topic: 'devices/boiler/status', payload: 'gone' }
      expect(await connack('boiler/4', { username: 'boiler', password: boiler, will: own })).toBe(0)
    })
  })

  it('a device that is registered late has its own name, whoever took it before', async () => {
    const squatter = await connect('boiler', boiler, { clientId: 'late', clean: false })
    await squatter.subscribeAsync('devices/boiler/commands', { qos: 1 })
    const kept = await connect('boiler', boiler, { clientId: 'late/1', clean: false })
    await kept.subscribeAsync('devices/boiler/commands', { qos: 1 })
    await kept.endAsync()
    const late = await weir.addDevice('late')
    let isOut = false
    squatter.on('close', () => {
      isOut = true
    })
    for (const clientId of ['late', 'late/1']) {
      const own = await connect('late', late, { clientId, clean: false })
      const heard: string[] = []
      own.on('message', (topic) => heard.push(topic))
      await own.subscribeAsync('devices/late/commands', { qos: 1 })
      const owner = await connect('boiler', boiler, { clientId: 'boiler/5' })
      await owner.publishAsync('devices/boiler/commands', 'not for it', { qos: 1 })
      await own.publishAsync('devices/late/commands', 'for it', { qos: 1 })
      await waitFor(() => heard.length > 0, slow)
      expect(heard).toEqual(['devices/late/commands'])
    }
    await waitFor(() => isOut, slow)
    expect(await connack('late', { username: 'boiler', password: boiler })).toBe(2)
  })

  describe('who looks', () => {
    it.each([
      '/v1/devices',
      '/v1/latest',
      '/v1/pipeline',
      '/v1/live',
      '/metrics',
      '/openapi.json',
      '/docs',
      '/',
      '/nothing',
    ])('%s is for the admin token alone', async (path) => {
      const without = await fetch(`${weir.http}${path}`)
      expect(without.headers.get('www-authenticate')).toBe('Bearer realm="weir"')
      expect(await problem(without)).toEqual([401, '/problems/unauthorised'])
      const headers = { authorization: `Bearer ${adminToken}x` }
      expect(await problem(await fetch(`${weir.http}${path}`, { headers }))).toEqual([401, '/problems/wrong-token'])
      const asDevice = { authorization: `Bearer ${boiler}` }
      expect(await problem(await fetch(`${weir.http}${path}`, { headers: asDevice }))).toEqual([
        403,
        '/problems/device-token',
      ])
      const within = new AbortController()
      const answer = await weir.ask(path, { signal: within.signal })
      expect(answer.status).toBe(path === '/nothing' ? 404 : 200)
      within.abort()
    })

    it('/healthz and /readyz are open', async () => {
      for (const path of ['/healthz', '/readyz']) expect((await fetch(`${weir.http}${path}`)).status).toBe(200)
    })

    it('live too', async () => {
      const headers = { authorization: `Bearer ${adminToken}` }
      const viewer = await SseViewer.open(`${weir.http}/v1/live?device=boiler&mode=every`, headers)
      await weir.post('boiler', '{"temperature": 8.5}', boiler)
      await waitFor(() => viewer.readings().some(({ value }) => value === 8.5), slow)
      viewer.close()
    })

    const signIn = (token: string, headers: Record<string, string> = {}) =>
      fetch(`${weir.http}/login`, {
        method: 'POST',
        body: new URLSearchParams({ token, next: '/devices/boiler' }),
        headers,
        redirect: 'manual',
      })

    it('a person signs in, and has a session that is not the token', async () => {
      const asked = await fetch(`${weir.http}/devices/boiler`, { headers: { accept: 'text/html' }, redirect: 'manual' })
      expect([asked.status, asked.headers.get('location')]).toEqual([303, '/login?next=%2Fdevices%2Fboiler'])
      const form = await fetch(`${weir.http}/login?next=/devices/boiler`)
      expect([form.status, await form.text()]).toEqual([200, expect.stringContaining('name="token"')])
      const bad = await signIn('not-the-admin-token-at-all')
      expect([bad.status, bad.headers.get('set-cookie')]).toEqual([303, null])
      expect(bad.headers.get('location')).toBe('/login?next=%2Fdevices%2Fboiler&wrong=1')
      const good = await signIn(adminToken)
      expect([good.status, good.headers.get('location')]).toEqual([303, '/devices/boiler'])
      const given = good.headers.get('set-cookie')!
      expect(given).toMatch(/; Path=\/; HttpOnly; SameSite=Strict; Max-Age=\d+$/)
      expect(given).not.toContain(adminToken)
      const cookie = given.split(';', 1)[0]!
      const page = await fetch(`${weir.http}/devices/boiler`, { headers: { cookie } })
      expect([page.status, await page.text()]).toEqual([200, expect.stringContaining('boiler')])
      expect((await fetch(`${weir.http}/v1/devices`, { headers: { cookie } })).status).toBe(200)
      const forged = cookie.replace(/\.([^.]+)$/, (_, signature: string) => `.${[...signature].reverse().join('')}`)
      expect((await fetch(`${weir.http}/v1/devices`, { headers: { cookie: forged } })).status).toBe(401)
      const later = cookie.replace(/=\d+/, '=9999999999999')
      expect((await fetch(`${weir.http}/v1/devices`, { headers: { cookie: later } })).status).toBe(401)
      // What changes something must come from a page of ours, which a cookie alone does not show.
      const put = (headers: Record<string, string>) =>
        fetch(`${weir.http}/v1/devices/valve`, {
          method: 'PUT',
          body: '{"labels": {"hall": "7"}}',
          headers: { cookie, 'content-type': 'application/json', ...headers },
        })
      expect((await put({})).status).toBe(403)
      expect((await put({ origin: 'http://evil.example' })).status).toBe(403)
      expect((await put({ origin: 'http://127.0.0.1:1' })).status).toBe(403)
      expect((await put({ origin: weir.http })).status).toBe(200)
      expect((await signIn(adminToken, { origin: 'http://evil.example' })).status).toBe(403)
    })

    it('a link to the form leads nowhere else', async () => {
      for (const next of ['//evil.example/', '/\\evil.example', 'http://evil.example', '/%0d%0a', '']) {
        const body = new URLSearchParams({ token: adminToken, next })
        const answer = await fetch(`${weir.http}/login`, { method: 'POST', body, redirect: 'manual' })
        expect(answer.headers.get('location'), next).toMatch(/^\/(%0d%0a)?$/)
      }
    })
  })

  describe('the registry', () => {
    const json = { 'content-type': 'application/json' }

    it('over REST: labels, tokens that work at once, and are gone at once', async () => {
      const put = await weir.ask('/v1/devices/fan', { method: 'PUT', body: '{"labels": {"hall": "7"}}', headers: json })
      expect([put.status, await put.json()]).toMatchObject([200, { device: 'fan', labels: { hall: '7' }, tokens: [] }])
      const made = await weir.ask('/v1/devices/fan/tokens', { method: 'POST' })
      const { id, token } = (await made.json()) as { id: string; token: string }
      expect(made.status).toBe(201)
      expect((await weir.post('fan', reading, token)).status).toBe(200)
      const second = await weir.ask('/v1/devices/fan/tokens', { method: 'POST', headers: json })
      expect(second.status).toBe(201)
      expect((await weir.ask(`/v1/devices/fan/tokens/${id}`, { method: 'DELETE' })).status).toBe(204)
      expect((await weir.ask(`/v1/devices/fan/tokens/${id}`, { method: 'DELETE' })).status).toBe(404)
      await waitFor(async () => (await weir.post('fan', reading, token)).status === 401, slow)
      const other = ((await second.json()) as { token: string }).token
      expect((await weir.post('fan', reading, other)).status).toBe(200)
      await waitFor(async () => {
        const known = (await (await weir.ask('/v1/devices/fan')).json()) as { labels?: object }
        expect(known.labels).toEqual({ hall: '7' })
        return true
      }, slow)
      expect((await weir.ask('/v1/devices/fan', { method: 'DELETE' })).status).toBe(204)
      await waitFor(async () => (await weir.post('fan', reading, other)).status === 401, slow)
      expect((await weir.ask('/v1/devices/fan/registration')).status).toBe(404)
    })

    it.each([
      ['PUT', '/v1/devices/a%20b', '{}', 400],
      ['PUT', '/v1/devices/x', '{"labels": {"a b": "c"}}', 400],
      ['PUT', '/v1/devices/x', '{"label": {}}', 400],
      ['PUT', '/v1/devices/x', '{"speaksFor": ["a**"]}', 400],
      ['PUT', '/v1/devices/x', '{', 400],
      ['PUT', '/v1/devices/x', '[]', 400],
      ['DELETE', '/v1/devices/nobody', undefined, 404],
    ])('%s %s %s is %i', async (method, path, body, status) => {
      const answer = await weir.ask(path, { method, ...(body !== undefined && { body, headers: json }) })
      expect((await problem(answer))[0]).toBe(status)
    })

    it('a device is registered without a body too; one that is no JSON is refused', async () => {
      expect((await weir.ask('/v1/devices/bare', { method: 'PUT' })).status).toBe(200)
      const words = { method: 'PUT', body: 'labels', headers: { 'content-type': 'text/plain' } }
      expect((await problem(await weir.ask('/v1/devices/bare', words)))[0]).toBe(415)
    })

    it('by the command line: add, list, show, token, revoke', async () => {
      const plain = await weir.device('add', 'plain')
      const [token] = plain.stdout.split('\n')
      expect(token).toMatch(/^weir_[0-9a-f]{16}_[\w-]{43}$/)
      expect((await weir.post('plain', reading, token)).status).toBe(200)
      expect((await weir.device('add', 'plain')).stderr).toMatch(/already: weir device token plain/)
      const second = await weir.device('token', 'plain', '--json')
      expect(JSON.parse(second.stdout)).toMatchObject({ device: 'plain' })
      expect((await weir.device('list')).stdout).toMatch(/^plain {2}2 tokens$/m)
      const shown = await weir.device('show', 'plain', '--json')
      expect(JSON.parse(shown.stdout)).toMatchObject({ device: 'plain', tokens: [{}, {}] })
      expect(shown.stdout).not.toContain('hash')
      expect((await weir.device('revoke', 'plain', '--json')).stdout).toBe('{"device":"plain","revoked":2}\n')
      await waitFor(async () => (await weir.post('plain', reading, token)).status === 401, slow)
      const listed = (await (await weir.ask('/v1/registrations?limit=1')).json()) as { items: unknown[]; next: string }
      expect([listed.items.length, typeof listed.next]).toEqual([1, 'string'])
      for (const words of [
        [],
        ['add'],
        ['add', 'a b'],
        ['list', 'x'],
        ['steal', 'x'],
        ['add', 'x', '--speaks-for', '**'],
      ])
        expect((await weir.device(...words)).code, words.join(' ')).toBe(2)
      for (const words of [
        ['show', 'nobody'],
        ['token', 'nobody'],
        ['revoke', 'nobody'],
      ])
        expect((await weir.device(...words)).code, words.join(' ')).toBe(1)
    }, 180_000)
  })

  it('what could not be used is put back, by the command line with the admin token', async () => {
    const refused = await weir.post('boiler', '{"temperature": 9.5', boiler)
    const { deadLetter } = (await refused.json()) as { deadLetter: string }
    await waitFor(async () => (await weir.ask(`/v1/dead-letters/${deadLetter}`)).ok, slow)
    const mended = await weir.ask(`/v1/dead-letters/${deadLetter}/replay`, {
      method: 'POST',
      body: '{"temperature": 9.5}',
    })
    expect([mended.status, await mended.json()]).toEqual([200, { accepted: 1, deadLettered: 0 }])
    const list = ['dead-letters', 'list', '--url', weir.http]
    expect((await runWeir(list)).stderr).toMatch(/Who are you/)
    const { stdout } = await runWeir(list, { env: { WEIR_ADMIN_TOKEN: adminToken } })
    expect(stdout).toContain(deadLetter)
  }, 90_000)

  it('no secret is on disk or in the log, and the hashes are for the owner alone', async () => {
    for (const secret of [boiler, gateway, adminToken]) {
      // 1 is: nothing found.
      const search = () => execFileSync('grep', ['-rqaF', '--', secret, weir.data], { stdio: 'pipe' })
      expect(search, secret).toThrow(expect.objectContaining({ status: 1 }))
      expect(weir.stderr() + weir.stdout()).not.toContain(secret)
    }
    expect(statSync(join(weir.data, 'devices.ndjson')).mode & 0o777).toBe(0o600)
  }, 90_000)
})
