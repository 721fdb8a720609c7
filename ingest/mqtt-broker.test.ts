// What the front leaves to aedes, seen by a real client library: QoS 0, 1 and 2, commands, wills, sessions, retained messages, and who may
// subscribe to what.
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { afterEach, describe, expect, it } from 'vitest'
import { field, packet, publishPacket, RawMqtt, uint16 } from '../tests/helpers/mqtt-raw.ts'
import { type RunningIngest, runIngest, waitForReadings } from '../tests/helpers/running-ingest.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { ingestLimits } from './limits.ts'

interface Heard {
  topic: string
  payload: string
  qos: number
  retain: boolean
}

let ingest: RunningIngest
const clients: MqttClient[] = []
const raw: RawMqtt[] = []

async function connect(clientId: string, options: IClientOptions = {}): Promise<MqttClient & { heard: Heard[] }> {
  const { host, port } = ingest.address
  const client = mqtt.connect({ host, port, clientId, reconnectPeriod: 0, ...options })
  clients.push(client)
  const heard: Heard[] = []
  client.on('message', (topic, payload, { qos, retain }) =>
    heard.push({ topic, payload: String(payload), qos, retain }),
  )
  client.on('error', () => {})
  await waitFor(() => client.connected, { what: `${clientId} to be connected` })
  return Object.assign(client, { heard })
}

async function rawClient(clientId: string, options = {}): Promise<RawMqtt> {
  const client = await RawMqtt.connected(ingest.address, clientId, options)
  raw.push(client)
  return client
}

/** Subscribes over a bare socket; the codes of the answer. */
async function subscribe(client: RawMqtt, id: number, ...filters: string[]): Promise<number[]> {
  client.send(packet(0x82, uint16(id), ...filters.flatMap((filter) => [field(filter), Buffer.from([1])])))
  const answer = await client.next()
  expect([answer.type, answer.body.readUInt16BE(0)]).toEqual([9, id])
  return [...answer.body.subarray(2)]
}

afterEach(async () => {
  for (const client of clients.splice(0)) client.end(true)
  for (const client of raw.splice(0)) client.destroy()
  await ingest.close()
})

describe('with a client library', () => {
  it('telemetry of QoS 0, 1 and 2 is kept once each', async () => {
    ingest = await runIngest()
    const device = await connect('boiler-1')
    for (const qos of [0, 1, 2] as const) {
      await device.publishAsync('devices/boiler-1/telemetry', JSON.stringify({ qos, retained: qos }), {
        qos,
        retain: true,
      })
    }
    await waitForReadings(ingest, 6)
    const kept = await ingest.readings()
    expect(kept.filter(({ metric }) => metric === 'qos').map(({ value }) => value)).toEqual([0, 1, 2])
    // The retain flag of telemetry means nothing here: a late subscriber gets nothing old.
    const late = await connect('late')
    await late.subscribeAsync('devices/#')
    await device.publishAsync('devices/boiler-1/telemetry', '{"last":1}', { qos: 1 })
    await waitFor(() => late.heard.length > 0)
    expect(late.heard).toEqual([{ topic: 'devices/boiler-1/telemetry', payload: '{"last":1}', qos: 0, retain: false }])
  })

  it('commands reach a device at every QoS, in order', async () => {
    ingest = await runIngest()
    const [owner, device] = [await connect('owner'), await connect('d1')]
    await device.subscribeAsync('devices/d1/commands/#', { qos: 2 })
    const sent: Heard[] = []
    for (let i = 0; i < 30; i++) {
      const qos = (i % 3) as 0 | 1 | 2
      const payload = `{"step":${i}}`
      await owner.publishAsync('devices/d1/commands/set', payload, { qos })
      sent.push({ topic: 'devices/d1/commands/set', payload, qos, retain: false })
    }
    await waitFor(() => device.heard.length === 30)
    expect(device.heard).toEqual(sent)
    await device.unsubscribeAsync('devices/d1/commands/#')
    await owner.publishAsync('devices/d1/commands/set', 'unheard', { qos: 1 })
    await device.publishAsync('devices/d1/telemetry', '{"x":1}', { qos: 1 })
    expect(device.heard).toHaveLength(30)
    expect(ingest.service.totals().receivedReadings).toBe(1)
  })

  it('a will is told when a device is lost, not when it says goodbye', async () => {
    ingest = await runIngest()
    const watcher = await connect('watcher')
    await watcher.subscribeAsync('devices/+/status', { qos: 1 })
    const will = { payload: Buffer.from('gone'), qos: 1 as const, retain: false }
    const polite = await connect('polite', { will: { topic: 'devices/polite/status', ...will } })
    const lost = await connect('lost', { will: { topic: 'devices/lost/status', ...will } })
    await polite.endAsync()
    lost.stream.destroy()
    await waitFor(() => watcher.heard.length > 0)
    expect(watcher.heard).toEqual([{ topic: 'devices/lost/status', payload: 'gone', qos: 1, retain: false }])
  })

  it('a will that is telemetry is kept like telemetry', async () => {
    ingest = await runIngest()
    const will = {
      topic: 'devices/lost/telemetry',
      payload: Buffer.from('{"online":false}'),
      qos: 1 as const,
      retain: true,
    }
    const lost = await connect('lost', { will })
    lost.stream.destroy()
    await waitForReadings(ingest, 1)
    expect(await ingest.readings()).toMatchObject([{ device: 'lost', metric: 'online', value: 0 }])
  })

  it('a session outlives its connection, with what was sent meanwhile', async () => {
    ingest = await runIngest()
    const owner = await connect('owner')
    const device = await connect('sleepy', { clean: false })
    await device.subscribeAsync('devices/sleepy/commands', { qos: 1 })
    await device.endAsync()
    await owner.publishAsync('devices/sleepy/commands', 'one', { qos: 1 })
    await owner.publishAsync('devices/sleepy/commands', 'two', { qos: 2 })
    const again = await connect('sleepy', { clean: false })
    await waitFor(() => again.heard.length === 2)
    expect(again.heard.map(({ payload }) => payload)).toEqual(['one', 'two'])
    await again.endAsync()
    // A clean connection ends it.
    await (await connect('sleepy')).endAsync()
    const fresh = await rawClient('sleepy', { clean: false })
    await owner.publishAsync('devices/sleepy/commands', 'three', { qos: 1 })
    expect(fresh.packets).toEqual([])
  })

  it('a session hears nothing of devices that its owner may no longer speak for', async () => {
    let speaksFor = ['*']
    ingest = await runIngest({
      authenticate: ({ clientId }) => ({
        ...{ tokenId: clientId, tenant: 'default', device: clientId },
        speaksFor: clientId === 'gate' ? speaksFor : ['*'],
      }),
    })
    const owner = await connect('owner')
    const gate = await connect('gate', { clean: false })
    await gate.subscribeAsync(['devices/gate/commands', 'devices/pump-1/commands', 'devices/pump-2/#'], { qos: 1 })
    await gate.endAsync()
    const command = (device: string, payload: string) =>
      owner.publishAsync(`devices/${device}/commands`, payload, { qos: 1 })
    for (const device of ['pump-1', 'pump-2', 'gate']) await command(device, 'while it was away')
    speaksFor = ['pump-2']
    const again = await connect('gate', { clean: false })
    await waitFor(() => again.heard.length === 2)
    for (const device of ['pump-1', 'pump-2', 'gate']) await command(device, 'now')
    await waitFor(() => again.heard.length === 4)
    expect(again.heard.map(({ topic }) => topic.split('/')[1])).toEqual(['pump-2', 'gate', 'pump-2', 'gate'])
  })

  it('MQTT 5 clients are told to speak 3.1.1', async () => {
    ingest = await runIngest()
    const { host, port } = ingest.address
    const client = mqtt.connect({ host, port, protocolVersion: 5, reconnectPeriod: 0 })
    clients.push(client)
    const refused = await new Promise<Error & { code?: number }>((resolve) => client.once('error', resolve))
    expect(refused.code).toBe(0x84)
  })
})

describe('subscriptions', () => {
  it('outside devices/, of $SYS or shared are refused one by one, and the others granted', async () => {
    ingest = await runIngest()
    const client = await rawClient('c')
    const codes = await subscribe(
      client,
      1,
      'devices/c/commands',
      '#',
      '$SYS/#',
      '+/c/x',
      '$share/g/devices/#',
      'devices/+/telemetry',
      'home',
    )
    expect(codes).toEqual([1, 0x80, 0x80, 0x80, 0x80, 1, 0x80])
    // The connection goes on.
    await client.publish('devices/c/telemetry/json', '{"x":1}')
  })

  it('are at most eight in one packet and fifty a connection', async () => {
    ingest = await runIngest()
    const client = await rawClient('greedy')
    const nine = Array.from({ length: ingestLimits.filtersPerSubscribeMax + 1 }, (_, i) => `devices/d${i}/c`)
    expect(await subscribe(client, 1, ...nine)).toEqual(nine.map(() => 0x80))
    const codes: number[] = []
    for (let i = 0; i < 60; i++) codes.push(...(await subscribe(client, i + 2, `devices/e${i}/c`)))
    expect(codes.filter((code) => code === 1)).toHaveLength(ingestLimits.filtersPerConnectionMax)
    expect(codes.indexOf(0x80)).toBe(ingestLimits.filtersPerConnectionMax)
    // One that is known may be said again, and one that is given up makes room.
    expect(await subscribe(client, 100, 'devices/e1/c')).toEqual([1])
    client.send(packet(0xa2, uint16(101), field('devices/e1/c')))
    expect((await client.next()).type).toBe(11)
    expect(await subscribe(client, 102, 'devices/new/c')).toEqual([1])
  })

  it('that were refused are not remembered in a session either', async () => {
    ingest = await runIngest()
    const owner = await connect('owner')
    const spy = await rawClient('spy', { clean: false })
    expect(await subscribe(spy, 1, 'devices/spy/commands', '#')).toEqual([1, 0x80])
    spy.send(Buffer.from([0xe0, 0]))
    await spy.closed()
    await owner.publishAsync('devices/other/commands', 'secret', { qos: 1 })
    await owner.publishAsync('devices/spy/commands', 'mine', { qos: 1 })
    const again = await RawMqtt.open(ingest.address)
    raw.push(again)
    again.send(packet(0x10, field('MQTT'), Buffer.from([4, 0, 0, 0]), field('spy')))
    await waitFor(() => again.packets.length >= 2)
    expect(again.packets.map(({ type }) => type)).toEqual([2, 3])
    expect(again.packets[1]!.body.toString()).toContain('mine')
  })

  it('of clients that come and go leave nothing to be matched', async () => {
    ingest = await runIngest()
    const device = await rawClient('d')
    for (let i = 0; i < 20; i++) {
      const viewer = await rawClient(`viewer-${i}`)
      expect(await subscribe(viewer, 1, 'devices/+/telemetry')).toEqual([1])
      await device.publish('devices/d/telemetry', '{"x":1}')
      expect((await viewer.next()).type).toBe(3)
      viewer.destroy()
    }
    await waitFor(async () => (await ingest.counted('weir_mqtt_live_filters')) === 0)
  })
})

describe('QoS 2', () => {
  const publish = (id: number, topic: string, payload: string, dup = false) =>
    publishPacket({ topic, payload, qos: 2, id, dup })

  it('telemetry sent again before its release is kept once, though it has no clock', async () => {
    ingest = await runIngest()
    const device = await rawClient('d')
    ingest.stall()
    device.send(
      Buffer.concat([publish(7, 'devices/d/telemetry', '{"x":1}'), publish(7, 'devices/d/telemetry', '{"x":1}', true)]),
    )
    await waitFor(() => ingest.service.totals().receivedReadings === 1)
    expect(device.packets).toEqual([])
    ingest.goOn()
    for (let i = 0; i < 2; i++) expect(await device.next()).toMatchObject({ type: 5 })
    device.send(Buffer.from([0x62, 2, 0, 7, 0x62, 2, 0, 7]))
    for (let i = 0; i < 2; i++) expect([...(await device.next()).body]).toEqual([0, 7])
    // After the release the id may be used for another message.
    device.send(publish(7, 'devices/d/telemetry', '{"x":2}'))
    expect(await device.next()).toMatchObject({ type: 5 })
    expect((await ingest.readings()).map(({ value }) => value)).toEqual([1, 2])
  })

  it('telemetry sent again on a new connection is kept once, though it has no clock', async () => {
    ingest = await runIngest()
    const first = await rawClient('d')
    ingest.stall()
    first.send(
      Buffer.concat([
        publish(7, 'devices/d/telemetry', '{"x":1}'),
        publishPacket({ topic: 'devices/d/telemetry', payload: '{"y":1}', id: 8 }),
      ]),
    )
    await waitFor(() => ingest.service.totals().receivedReadings === 2)
    first.destroy()
    ingest.goOn()
    const second = await rawClient('d')
    second.send(
      Buffer.concat([
        publish(7, 'devices/d/telemetry', '{"x":1}', true),
        publishPacket({ topic: 'devices/d/telemetry', payload: '{"y":1}', id: 8, dup: true }),
      ]),
    )
    expect([(await second.next()).type, (await second.next()).type]).toEqual([5, 4])
    expect(await ingest.readings()).toHaveLength(2)
  })

  it('messages that are never released are bounded', async () => {
    ingest = await runIngest()
    for (const [clientId, topic] of [
      ['t', 'devices/t/telemetry'],
      ['c', 'devices/c/commands'],
    ] as const) {
      const device = await rawClient(clientId)
      for (let id = 1; id <= ingestLimits.unreleasedMax; id += 64) {
        device.send(Buffer.concat(Array.from({ length: 64 }, (_, i) => publish(id + i, topic, '{"x":1}'))))
      }
      await waitFor(() => device.packets.length === ingestLimits.unreleasedMax)
      device.send(publish(ingestLimits.unreleasedMax + 1, topic, '{"x":1}'))
      await device.closed()
    }
    expect(await ingest.counted('weir_mqtt_connections_closed_total', 'unreleased')).toBe(2)
  })
})

describe('with open topics', () => {
  it('any topic is an ordinary message, with wildcards and retained messages', async () => {
    ingest = await runIngest({ topicsOpen: true })
    const [a, b] = [await connect('a'), await connect('b')]
    await a.publishAsync('home/kitchen/light', 'on', { qos: 1, retain: true })
    await b.subscribeAsync('home/+/light', { qos: 1 })
    await waitFor(() => b.heard.length === 1)
    expect(b.heard[0]).toEqual({ topic: 'home/kitchen/light', payload: 'on', qos: 1, retain: true })
    await b.subscribeAsync('#', { qos: 0 })
    await a.publishAsync('devices/a/telemetry', '{"x":1}', { qos: 1 })
    await waitFor(() => b.heard.some(({ topic }) => topic === 'devices/a/telemetry'))
    expect(await ingest.readings()).toHaveLength(1)
    expect(b.heard.filter(({ topic }) => topic.startsWith('$'))).toEqual([])
  })

  it('retained messages, waiting messages and sessions are bounded, and what is dropped is counted', async () => {
    ingest = await runIngest({ topicsOpen: true })
    const sleeper = await rawClient('sleeper', { clean: false })
    expect(await subscribe(sleeper, 1, 'load/#')).toEqual([1])
    sleeper.destroy()
    const writer = await connect('writer')
    const payload = Buffer.alloc(10_000, 97)
    for (let round = 0; round < 20; round++) {
      await Promise.all(
        Array.from({ length: 100 }, (_, i) =>
          writer.publishAsync(`load/${round}/${i}`, payload, { qos: 1, retain: true }),
        ),
      )
    }
    expect(await ingest.counted('weir_mqtt_retained_bytes')).toBeLessThanOrEqual(ingestLimits.retainedBytesMax)
    expect(await ingest.counted('weir_mqtt_sessions_bytes')).toBeLessThanOrEqual(ingestLimits.sessionBytesMax)
    expect(await ingest.counted('weir_mqtt_messages_dropped_total', 'retained-full')).toBeGreaterThan(0)
    expect(await ingest.counted('weir_mqtt_messages_dropped_total', 'session-full')).toBeGreaterThan(1_500)
  })

  it('$SYS is still nobody’s, neither to hear nor to say', async () => {
    ingest = await runIngest({ topicsOpen: true })
    const client = await rawClient('c')
    expect(await subscribe(client, 1, '$SYS/#', '#', '$share/g/x')).toEqual([0x80, 1, 0x80])
    const victim = await rawClient('victim')
    client.send(publishPacket({ topic: '$SYS/x/new/clients', payload: 'victim' }))
    await client.closed()
    await victim.publish('devices/victim/telemetry', '{"x":1}')
  })
})
