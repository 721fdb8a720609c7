// What the intake counts by cause is there from the start, so that rates and alarms hear of the first of a kind.
import { afterEach, expect, it } from 'vitest'
import { rejectReasons } from '../domain/outcome.ts'
import { systemClock } from '../runtime/clock.ts'
import { createInstruments } from '../runtime/instruments.ts'
import { silentLogger } from '../runtime/logger.ts'
import { closeCauses, createIngestEvents, dropCauses, socketCloseCauses } from './events.ts'
import { refusalHints } from './mqtt-topic.ts'
import { closeAccepters, startAccepter } from './test-accepter.ts'

afterEach(closeAccepters)

type Samples = readonly (readonly [string, number])[]

async function samplesOf(
  instruments: ReturnType<typeof createInstruments>,
  name: string,
  label: string,
): Promise<Samples> {
  const found = (await instruments.snapshot()).find((each) => each.name === name)
  return found!.values.map(({ labels, value }) => [String((labels as Record<string, unknown>)[label]), value])
}

it.each([
  ['weir_mqtt_connections_closed_total', 'cause', closeCauses],
  ['weir_mqtt_publishes_refused_total', 'cause', Object.keys(refusalHints)],
  ['weir_mqtt_messages_dropped_total', 'cause', dropCauses],
  ['weir_gateway_sockets_closed_total', 'cause', socketCloseCauses],
  ['weir_rate_limited_total', 'door', ['mqtt', 'websocket']],
])('%s has every %s at 0 before anything happened', async (name, label, values) => {
  const instruments = createInstruments('ingest')
  createIngestEvents({ clock: systemClock, logger: silentLogger, instruments })
  expect(await samplesOf(instruments, name, label)).toEqual(values.map((value) => [value, 0]))
})

it('dead letters have every reason at 0 before anything came', async () => {
  const { instruments } = startAccepter()
  const samples = await samplesOf(instruments, 'weir_ingest_dead_letters_total', 'reason')
  expect(samples).toEqual(rejectReasons.map((reason) => [reason, 0]))
})

it('a cause that happens counts where it stood at 0', async () => {
  const instruments = createInstruments('ingest')
  const events = createIngestEvents({ clock: systemClock, logger: silentLogger, instruments })
  events.socketClosed('window', { path: '/v1/ingest', peer: '127.0.0.1' })
  const samples = await samplesOf(instruments, 'weir_gateway_sockets_closed_total', 'cause')
  expect(samples).toEqual(socketCloseCauses.map((cause) => [cause, cause === 'window' ? 1 : 0]))
})

it('refused requests have no closed set of causes: one is there once it happened', async () => {
  const instruments = createInstruments('ingest')
  const events = createIngestEvents({ clock: systemClock, logger: silentLogger, instruments })
  const name = 'weir_gateway_requests_refused_total'
  expect(await samplesOf(instruments, name, 'cause')).toEqual([])
  events.requestRefused('wrong-token', { peer: '127.0.0.1', path: '/v1/telemetry/a' })
  expect(await samplesOf(instruments, name, 'cause')).toEqual([['wrong-token', 1]])
})
