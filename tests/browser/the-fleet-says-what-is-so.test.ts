// The overview's own words about what the stream told it: counted once, and called shown when it is. The stream is the product's; a frame is put into it
// that the product sends after a kill or an outage.
import type { WebSocketRoute } from 'playwright-core'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { noBrowser, type OpenPage, openPage, testMsMax, waitFor } from './browser.ts'
import { type OneDevice, startOneDevice } from './one-device.ts'

vi.setConfig({ testTimeout: testMsMax, hookTimeout: testMsMax })

const longMetric = 'm'.repeat(128)
let one: OneDevice
beforeAll(async () => {
  if (noBrowser !== undefined) return
  one = await startOneDevice()
  await one.device.publish('press-4', { [longMetric]: 42.25, state: 'x'.repeat(500) })
})
afterAll(async () => {
  await one?.close()
})

/** An overview that is live, and a way to tell it more. */
async function openOverview(): Promise<OpenPage & { tell(frame: object): void }> {
  const opened = await openPage(one.browser)
  const sockets: WebSocketRoute[] = []
  // The fleet is looked at again every now and then too: not here, where something else should be the cause.
  await opened.page.addInitScript(
    'const every = setInterval; globalThis.setInterval = (what, ms) => (ms === 20000 ? 0 : every(what, ms))',
  )
  await opened.page.routeWebSocket(/\/v1\/live/, (socket) => {
    sockets.push(socket)
    socket.connectToServer()
  })
  await opened.page.goto(one.weir.http)
  await opened.page.locator('#link[data-state="live"][data-over="websocket"]').waitFor()
  return { ...opened, tell: (frame) => sockets.at(-1)!.send(JSON.stringify(frame)) }
}

const anomaly = {
  ...{ id: 'told-again', device: 'boiler-1', metric: 'temperature', value: 9, score: 0.5, detector: 'd' },
  ...{ expected: { low: 1, high: 2 }, explanation: '9 is above everything', evidence: {} },
}

it.skipIf(noBrowser !== undefined)(
  'an anomaly that was counted before, and is told again, leaves the badge as it is',
  async () => {
    const { page, tell, close } = await openOverview()
    const badge = page.locator('tr[data-device="boiler-1"] .badge')
    tell({ type: 'anomaly', anomaly: { ...anomaly, observedAt: Date.now() } })
    await page.locator('#found li', { hasText: '9 is above everything' }).waitFor()
    // The table knows none of this name.
    await waitFor(async () => (await badge.count()) === 0, { what: 'the badge to say what the table says' })
    await close()
  },
)

it.skipIf(noBrowser !== undefined)('one that is older than what the badge counts is not counted', async () => {
  const { page, tell, close } = await openOverview()
  tell({ type: 'anomaly', anomaly: { ...anomaly, observedAt: Date.now() - 8 * 86_400_000 } })
  await page.locator('#found li', { hasText: '9 is above everything' }).waitFor()
  expect(await page.locator('tr[data-device="boiler-1"] .badge').count()).toBe(0)
  await close()
})

it.skipIf(noBrowser !== undefined)(
  'a fleet that takes long to be listed is listed, whatever comes meanwhile',
  async () => {
    const { page, close } = await openPage(one.browser)
    await page.route('**/fragments/fleet*', async (route) => {
      await new Promise((done) => setTimeout(done, 3_000))
      await route.continue()
    })
    await page.goto(one.weir.http)
    await page.locator('#link[data-state="live"]').waitFor()
    const talking = setInterval(() => void one.device.publish('new-to-the-page', { temperature: Math.random() }), 500)
    await page
      .locator('tr[data-device="new-to-the-page"]')
      .waitFor()
      .finally(() => clearInterval(talking))
    await page.unrouteAll({ behavior: 'ignoreErrors' })
    await close()
  },
)

it.skipIf(noBrowser !== undefined)('what was found is asked for until the table answers', async () => {
  const { page, close } = await openPage(one.browser)
  let isAway = true
  await page.route('**/v1/anomalies?*', (route) => (isAway ? route.abort() : route.continue()))
  await page.route(`${one.weir.http}/`, async (route) => {
    const response = await route.fetch()
    await route.fulfill({
      response,
      body: (await response.text()).replace('Nothing odd has been found yet.', 'Not known.'),
    })
  })
  await page.goto(one.weir.http)
  await page.locator('#link[data-state="live"]').waitFor()
  expect(await page.locator('#found .none').textContent()).toContain('Not known.')
  isAway = false
  await page.locator('#found .none', { hasText: 'Nothing odd has been found yet.' }).waitFor()
  await close()
})

it.skipIf(noBrowser !== undefined)('a gap is called shown from the table once the table has been asked', async () => {
  const { page, tell, close } = await openOverview()
  let isAway = true
  await page.route('**/fragments/fleet*', async (route) => {
    const response = await route.fetch()
    const body = (await response.text()).replace('data-away="false"', `data-away="${isAway}"`)
    await route.fulfill({ response, body })
  })
  const loads = (): Promise<unknown> => page.waitForResponse('**/fragments/fleet*')
  const twice = loads().then(loads)
  tell({ type: 'gap', cause: 'store-away', from: Date.now() - 60_000, to: Date.now() })
  const done = page.locator('#gaps [data-part="done"]')
  await done.waitFor()
  await twice
  expect(await done.textContent()).toBe('The table is asked.')
  isAway = false
  await waitFor(async () => (await done.textContent()) === 'Shown from the table.')
  await page.unrouteAll({ behavior: 'ignoreErrors' })
  await close()
})

it.skipIf(noBrowser !== undefined).each([1280, 390])(
  'a name as long as may be leaves its value in sight: %i px',
  async (width) => {
    const { page, close } = await openPage(one.browser, { viewport: { width, height: 800 } })
    await page.goto(one.weir.http)
    const row = page.locator('tr[data-device="press-4"]')
    const value = row.locator('.value b', { hasText: '42.25' })
    await value.waitFor()
    const cell = (await row.locator('.values').boundingBox())!
    const shown = (await value.boundingBox())!
    const holder = (await row.locator('.value').first().boundingBox())!
    expect(shown.x + shown.width).toBeLessThanOrEqual(Math.min(cell.x + cell.width, holder.x + holder.width) + 0.5)
    await close()
  },
)
