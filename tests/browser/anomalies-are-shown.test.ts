// The known trouble of the demo fleet, the failing cooling of an office, is found by itself and said on its device's page, with scripts and without.
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { AnomaliesAnswer } from '../../api/wire.ts'
import { ask, counterOf } from '../helpers/ask.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'
import { launchBrowser, noBrowser, openPage, scrollsSideways, testMsMax, waitFor } from './browser.ts'
import { connectPublisher, type Publisher } from './publish.ts'

vi.setConfig({ testTimeout: testMsMax, hookTimeout: testMsMax })

describe.skipIf(noBrowser !== undefined)('anomalies of the demo fleet', () => {
  let weir: WeirProcess
  let browser: Browser

  beforeAll(async () => {
    weir = await startWeir({ demo: true })
    browser = await launchBrowser()
    await waitFor(
      async () => (await ask<AnomaliesAnswer>(`${weir.http}/v1/anomalies?device=office-hvac`)).items.length > 0,
    )
  })
  afterAll(() => browser?.close())

  it('are markers on the chart, and a sentence', async () => {
    const { items } = await ask<AnomaliesAnswer>(`${weir.http}/v1/anomalies?device=office-hvac`)
    const { explanation, value, expected } = items[0]!
    expect(explanation).toMatch(/^82\.29 is above everything in 3,698 readings; closest 80\.52, 2 h before/)
    expect(value).toBeGreaterThan(expected.high)
    const { page, troubles, close } = await openPage(browser)
    await page.goto(`${weir.http}/devices/office-hvac`)
    await page.waitForSelector('#link[data-state="live"]')
    // It was months ago: the page leads there.
    await page.click('.found a')
    await page.waitForSelector('.plot[data-anomalies="1"] canvas')
    expect(await page.textContent('.anomalies li span:last-child')).toBe(explanation)
    expect(await scrollsSideways(page)).toBe(false)
    if (process.env.WEIR_TEST_SCREENSHOTS)
      await page.screenshot({ path: `${process.env.WEIR_TEST_SCREENSHOTS}/anomaly.png` })
    expect(troubles).toEqual([])
    await close()
  })

  it('are there without scripts', async () => {
    const { items } = await ask<AnomaliesAnswer>(`${weir.http}/v1/anomalies?device=office-hvac`)
    const around = `from=${items[0]!.observedAt - 86_400_000}&to=${items[0]!.observedAt + 86_400_000}`
    const { page, close } = await openPage(browser, { javaScriptEnabled: false })
    await page.goto(`${weir.http}/devices/office-hvac?${around}`)
    expect(await page.locator('.still line.anomaly').count()).toBe(1)
    expect(await page.textContent('.anomalies li span:last-child')).toBe(items[0]!.explanation)
    await close()
  })

  it('are a badge in the fleet, and a sentence on the overview that leads to it', async () => {
    const { page, troubles, close } = await openPage(browser)
    await page.goto(weir.http)
    await page.waitForSelector('tr[data-device="server-5f5533"] .badge')
    // The newest of each device leads, so the office's trouble is there in words, and one step away.
    const office = page.locator('#found li', { hasText: 'office-hvac temperature' })
    await office.filter({ hasText: '82.29 is above everything in 3,698 readings' }).waitFor()
    await office.locator('a').click()
    await page.waitForSelector('.plot[data-anomalies="1"] canvas')
    expect(troubles).toEqual([])
    await close()
  })

  it('fill their room on a phone', async () => {
    const { page, close } = await openPage(browser, { viewport: { width: 390, height: 844 } })
    await page.goto(weir.http)
    const items = page.locator('#found li')
    await waitFor(async () => (await items.count()) === 3, { what: 'something found on each device of the fleet' })
    const panel = (await page.locator('#found').boundingBox())!
    const last = (await items.last().boundingBox())!
    expect(panel.y + panel.height - (last.y + last.height)).toBeLessThan(24)
    await close()
  })
})

describe.skipIf(noBrowser !== undefined)('anomalies as they are found', () => {
  let weir: WeirProcess
  let browser: Browser
  let device: Publisher
  const stepMs = 60_000
  const learned = 3_000

  beforeAll(async () => {
    weir = await startWeir()
    browser = await launchBrowser()
    device = await connectPublisher(weir)
    // Fifty hours of a rhythm with noise: what is usual. (Nothing is told of the first day of a series.)
    const firstAt = Date.now() - learned * stepMs
    const ts = Array.from({ length: learned }, (_, i) => firstAt + i * stepMs)
    const usual = ts.map((_, i) => 20 + 5 * Math.sin(i / 40) + ((i * 7_919) % 1_003) / 1_000)
    for (const name of ['press-4', 'press-5'])
      for (let i = 0; i < learned; i += 500)
        await device.publish(name, { ts: ts.slice(i, i + 500), values: { pressure: usual.slice(i, i + 500) } })
    await waitFor(async () => (await counterOf(weir.http, 'weir_detector_readings')) >= 2 * learned)
  })
  afterAll(async () => {
    await device?.close()
    await browser?.close()
  })

  const found = (page: Page) => page.locator('#found li')
  const today = (page: Page) => page.locator('[data-number="anomalies"]').textContent()

  it('show on an open overview and device page without reload, with their sentence, and once', async () => {
    const overview = await openPage(browser)
    const own = await openPage(browser)
    await overview.page.goto(weir.http)
    await own.page.goto(`${weir.http}/devices/press-4?range=1h`)
    for (const { page } of [overview, own]) {
      await page.locator('#link[data-state="live"]').waitFor()
      await page.evaluate('globalThis.sameDocument = true')
    }
    await waitFor(async () => /^\d+$/.test((await today(overview.page)) ?? ''))
    const before = await ask<AnomaliesAnswer>(`${weir.http}/v1/anomalies?device=press-4`)
    const height = async (): Promise<number> => (await overview.page.locator('#found').boundingBox())!.height
    const heightBefore = await height()
    await device.publish('press-4', { pressure: 400 })
    await found(overview.page).filter({ hasText: '400 is above everything' }).waitFor()
    await found(own.page).filter({ hasText: '400 is above everything' }).waitFor()
    await own.page.locator('.anomalies li', { hasText: '400 is above everything' }).waitFor()
    const all = await waitFor(async () => {
      const { items } = await ask<AnomaliesAnswer>(`${weir.http}/v1/anomalies?device=press-4`)
      return items.length > before.items.length && items
    })
    await overview.page.locator('tr[data-device="press-4"] .badge').waitFor()
    // Counted again from the table, it stays the same.
    await waitFor(async () => (await today(overview.page)) === String(all.length))
    await waitFor(
      async () => (await overview.page.locator('#found li.fresh').count()) === all.length - before.items.length,
    )
    expect(await height()).toBe(heightBefore)
    for (const { page, troubles, close } of [overview, own]) {
      expect(await page.evaluate('globalThis.sameDocument')).toBe(true)
      expect(troubles).toEqual([])
      await close()
    }
  })

  it('found while the connection was lost are there when it stands again', async () => {
    const { page, close } = await openPage(browser)
    await page.goto(weir.http)
    await page.locator('#link[data-state="live"]').waitFor()
    await page.context().setOffline(true)
    await page.locator('#link[data-state="lost"]').waitFor()
    await device.publish('press-5', { pressure: 900 })
    const count = await waitFor(async () => {
      const { items } = await ask<AnomaliesAnswer>(`${weir.http}/v1/anomalies?order=desc`)
      return items.some(({ value }) => value === 900) && items.length
    })
    await page.context().setOffline(false)
    await found(page).filter({ hasText: '900 is above everything' }).waitFor()
    await waitFor(async () => (await today(page)) === String(count))
    await close()
  })
})
