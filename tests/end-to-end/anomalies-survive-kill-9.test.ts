// Whatever is killed, what is found is what the detector finds in the same readings undisturbed: the same ids, the same scores, each once.
import { expect, it } from 'vitest'
import type { AnomaliesAnswer, AnomalyAnswer } from '../../api/wire.ts'
import { ask, counterOf } from '../helpers/ask.ts'
import {
  oddDevices as devices,
  oddEnvironment as env,
  oddMessagesMin as messagesMin,
  publishOddReadings,
  undisturbed,
} from '../helpers/odd-readings.ts'
import { createRandom } from '../helpers/random.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

async function all(weir: WeirProcess): Promise<AnomalyAnswer[]> {
  return (await ask<AnomaliesAnswer>(`${weir.http}/v1/anomalies?limit=1000`)).items
}

it('finds the same after kills of the serving process and of everything', async () => {
  const random = createRandom()
  let weir = await startWeir({ env })
  const { data } = weir
  const publishers = publishOddReadings(() => weir.mqtt)
  for (const publisher of publishers) publisher.resume()
  for (const what of ['serve', 'all', 'serve', 'all'] as const) {
    await pause(1_000 + random.next() * 1_500)
    await weir.kill(what)
    if (what === 'all') weir = await startWeir({ data, env })
  }
  await waitFor(() => publishers.every((publisher) => publisher.sent >= messagesMin), { withinMs: 60_000 })
  for (const publisher of publishers) publisher.pause()
  await waitFor(() => publishers.every((publisher) => publisher.acknowledged >= publisher.sent))
  for (const publisher of publishers) publisher.stop()
  const expected = undisturbed(publishers.map((publisher) => publisher.sent))
  expect(expected.size).toBeGreaterThan(10)
  const found = await waitFor(
    async () => {
      const items = await all(weir)
      return items.length >= expected.size && items
    },
    { what: `${expected.size} anomalies` },
  )
  expect(new Set(found.map(({ id }) => id)).size).toBe(found.length)
  expect(new Map(found.map(({ device, observedAt, score }) => [`${device} ${observedAt}`, score]))).toEqual(expected)
  expect(await counterOf(weir.http, 'weir_detector_missed_chunks')).toBe(0)
  // What was found before the last kill is told again: a stop within a chunk leaves that chunk, and what no snapshot speaks of, to the next start.
  const total = publishers.reduce((sum, { sent }) => sum + sent, 0)
  let before = -1
  const isIdle = async (): Promise<boolean> => {
    const now = await counterOf(weir.http, 'weir_detector_readings')
    const isSame = now === before
    before = now
    return isSame && now >= total
  }
  await waitFor(isIdle, { everyMs: 2_000, what: 'detection to have nothing in hand' })
  // After a stop in order nothing is read again.
  await weir.stop()
  weir = await startWeir({ data, env })
  await waitFor(async () => (await counterOf(weir.http, 'weir_detector_series')) === devices)
  expect(await counterOf(weir.http, 'weir_detector_readings')).toBe(0)
  expect((await all(weir)).length).toBe(expected.size)
})
