// The known trouble of the demo fleet, the failing cooling of an office, is found by itself and said on its device's page, with scripts and without.
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { AnomaliesAnswer } from '../../api/wire.ts'
import { ask } from '../helpers/ask.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'
import { launchBrowser, noBrowser, openPage, scrollsSideways, testMsMax, waitFor } from './browser.ts'

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
    expect(explanation).toMatch(/^82\.29 is above everything in 3,698 readings; closest 80\.52, 2 h ago/)
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

  it('are a badge in the fleet', async () => {
    const { page, troubles, close } = await openPage(browser)
    await page.goto(weir.http)
    await page.waitForSelector('tr[data-device="server-5f5533"] .badge')
    if (process.env.WEIR_TEST_SCREENSHOTS)
      await page.screenshot({ path: `${process.env.WEIR_TEST_SCREENSHOTS}/overview.png` })
    expect(troubles).toEqual([])
    await close()
  })
})
