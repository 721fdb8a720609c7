// A chart never says that there is nothing while nobody has answered yet, or because nobody looks at it: what the server drew stays until then.
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { ask } from '../helpers/ask.ts'
import { noBrowser, openPage, testMsMax, waitFor } from './browser.ts'
import { type OneDevice, startOneDevice } from './one-device.ts'

vi.setConfig({ testTimeout: testMsMax, hookTimeout: testMsMax })

const metrics = Array.from({ length: 8 }, (_, index) => `metric-${index}`)
const readings = 100

let one: OneDevice
beforeAll(async () => {
  if (noBrowser !== undefined) return
  one = await startOneDevice()
  const ts = Array.from({ length: readings }, (_, i) => Date.now() - (readings - i) * 10_000)
  await one.device.publish('press-4', {
    ts,
    values: Object.fromEntries(metrics.map((metric) => [metric, ts.map((_, i) => i)])),
  })
  const stored = `${one.weir.http}/v1/readings?device=press-4&limit=1000`
  await waitFor(async () => (await ask<{ items: unknown[] }>(stored)).items.length === readings * metrics.length)
})
afterAll(async () => {
  await one?.close()
})

it.skipIf(noBrowser !== undefined)('while history is on its way, and where it is out of sight', async () => {
  const { page, troubles, close } = await openPage(one.browser)
  let letHistoryPass = (): void => {}
  const held = new Promise<void>((done) => {
    letHistoryPass = done
  })
  await page.route('**/v1/series?*', async (route) => {
    await held
    await route.continue()
  })
  await page.goto(`${one.weir.http}/devices/press-4?range=1h`)
  await page.locator('#link[data-state="live"]').waitFor()
  // Charts have been made by then, and a few times it was their turn to be drawn.
  await page.locator('.u-over').first().waitFor({ state: 'attached' })
  await page.evaluate('new Promise((done) => setTimeout(done, 1_000))')
  const plots = page.locator('.plot')
  const isSeen = (selector: string) => plots.first().locator(selector).first().isVisible()
  expect(await isSeen('.still polyline')).toBe(true)
  expect(await isSeen('.uplot')).toBe(false)
  expect(await page.getByText('No readings in this range').filter({ visible: true }).count()).toBe(0)

  letHistoryPass()
  await waitFor(() => isSeen('.uplot'))
  expect(await page.locator('.still').count()).toBe(0)
  const last = plots.last()
  expect((await last.boundingBox())!.y).toBeGreaterThan(page.viewportSize()!.height)
  expect(Number(await last.getAttribute('data-points'))).toBe(readings)
  expect(await page.getByText('No readings in this range').filter({ visible: true }).count()).toBe(0)
  expect(troubles).toEqual([])
  await close()
})

it.skipIf(noBrowser !== undefined)('while the table can not be asked', async () => {
  const { page, close } = await openPage(one.browser)
  await page.route('**/v1/series?*', (route) =>
    route.fulfill({ status: 500, contentType: 'application/problem+json', body: '{"detail":"It broke."}' }),
  )
  await page.goto(`${one.weir.http}/devices/press-4?range=1h`)
  await page.locator('#notices').getByText('It broke.').waitFor()
  expect(await page.locator('.still polyline').first().isVisible()).toBe(true)
  // Moving in time works already.
  await page.locator('.plot').first().focus()
  await page.keyboard.press('+')
  await waitFor(() => Number(new URL(page.url()).searchParams.get('from')) > Date.now() - 2 * 3_600_000)
  expect(await page.getByText('No readings in this range').filter({ visible: true }).count()).toBe(0)
  await close()
})

it.skipIf(noBrowser !== undefined)('draws what is off or on in steps, until it is more than that', async () => {
  const now = Date.now()
  const ts = [now - 40_000, now - 30_000, now - 20_000, now - 10_000]
  await one.device.publish('gate-1', { ts, values: { open: [false, true, true, false], level: [1, 4, 2, 3] } })
  const stored = `${one.weir.http}/v1/readings?device=gate-1`
  await waitFor(async () => (await ask<{ items: unknown[] }>(stored)).items.length === 8)
  const { page, troubles, close } = await openPage(one.browser)
  await page.goto(`${one.weir.http}/devices/gate-1?range=15m`)
  const lineOf = (metric: string) => page.locator(`.chart[data-metric="${metric}"] .plot`).getAttribute('data-line')
  await waitFor(async () => (await lineOf('open')) === 'steps' && (await lineOf('level')) === 'slopes')
  await one.device.publish('gate-1', { open: 0.5 })
  await waitFor(async () => (await lineOf('open')) === 'slopes')
  expect(troubles).toEqual([])
  await close()
})
