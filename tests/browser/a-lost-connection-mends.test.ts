// An open page while parts of the product die or hang: it says so, goes on with what it has, and mends itself without being loaded again.
import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { noBrowser, openPage, testMsMax, waitFor } from './browser.ts'
import { type OneDevice, startOneDevice } from './one-device.ts'

vi.setConfig({ testTimeout: testMsMax, hookTimeout: testMsMax })

describe.skipIf(noBrowser !== undefined)('a page that loses what it shows', () => {
  let world: OneDevice
  beforeAll(async () => {
    world = await startOneDevice()
  })
  afterAll(() => world?.close())

  const linkState = (page: Page, state: string) => page.locator(`#link[data-state="${state}"]`).waitFor()
  const value = (page: Page) => page.locator('.chart [data-part="value"]').textContent()
  const points = (page: Page) => page.locator('.chart .plot').getAttribute('data-points').then(Number)

  it('the serving process is killed: what was published meanwhile is there when it is back', async () => {
    const { page, close } = await openPage(world.browser)
    await page.goto(`${world.weir.http}/devices/boiler-1?range=15m`)
    await linkState(page, 'live')
    await waitFor(async () => (await points(page)) === 1)
    await page.evaluate('globalThis.sameDocument = true')

    await world.weir.kill('serve')
    await linkState(page, 'lost')
    await world.device.publish('boiler-1', { temperature: 2 })
    await linkState(page, 'live')
    await waitFor(async () => (await points(page)) === 2, { what: 'the reading of the time between' })
    await world.device.publish('boiler-1', { temperature: 3 })
    await waitFor(async () => (await value(page)) === '3')
    await waitFor(async () => (await points(page)) === 3)
    expect(await page.evaluate('globalThis.sameDocument')).toBe(true)
    await close()
  })

  it('the network goes and comes', async () => {
    const { page, close } = await openPage(world.browser)
    await page.goto(`${world.weir.http}/`)
    await linkState(page, 'live')
    await page.context().setOffline(true)
    await linkState(page, 'lost')
    await page.context().setOffline(false)
    await linkState(page, 'live')
    await world.device.publish('boiler-1', { temperature: 77 })
    await page.locator('tr[data-device="boiler-1"]').getByText('77').waitFor()
    await close()
  })

  it('the store hangs: the page says so, shows what arrives, and draws history when the store is back', async () => {
    const { page, close } = await openPage(world.browser)
    const thaw = world.weir.freeze('clickhouse')
    try {
      await page.goto(`${world.weir.http}/devices/boiler-1?range=15m`)
      await page.getByText('The store is away').first().waitFor()
      await linkState(page, 'live')
      await world.device.publish('boiler-1', { temperature: 88 })
      await waitFor(async () => (await value(page)) === '88')
    } finally {
      thaw()
    }
    await waitFor(async () => (await page.locator('#notices').textContent()) === '', { withinMs: 60_000 })
    await waitFor(async () => (await points(page)) >= 4)
    await close()
  })
})
