// The first five minutes: a fresh start shows what to type, says why a payload can't be used, and turns into a chart at the first reading.
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'
import { launchBrowser, noBrowser, openPage, scrollsSideways, testMsMax } from './browser.ts'
import { connectPublisher } from './publish.ts'

vi.setConfig({ testTimeout: testMsMax, hookTimeout: testMsMax })

describe.skipIf(noBrowser !== undefined)('the first five minutes', () => {
  let weir: WeirProcess
  let browser: Browser
  beforeAll(async () => {
    weir = await startWeir()
    browser = await launchBrowser()
  })
  afterAll(async () => {
    await browser?.close()
  })

  it('the empty page becomes a chart, and then the overview', async () => {
    const { page, troubles } = await openPage(browser)
    await page.goto(weir.http)
    // The lines can be copied and run as they stand.
    expect(await page.locator('#mosquitto').textContent()).toContain(`-p ${weir.mqtt.port} `)
    expect(await page.locator('#node').textContent()).toContain(`mqtt://${weir.mqtt.host}:${weir.mqtt.port}`)
    await page.locator('#link[data-state="live"]').waitFor()

    const device = await connectPublisher(weir)
    try {
      await page.waitForResponse((response) => response.url().endsWith('/v1/pipeline'))
      await device.publish('boiler-1', { temperature: [] })
      await page.getByText('Heard boiler-1, but could not use it').waitFor()
      await device.publish('boiler-1', { temperature: 71.3 })
      await page.getByText('Heard boiler-1: temperature 71.3').waitFor()
      await page.locator('.chart canvas').waitFor()
      await page.locator('.chart [data-part="value"]', { hasText: '71.3' }).waitFor()
      await device.publish('boiler-1', { temperature: 72.5 })
      await page.locator('.chart [data-part="value"]', { hasText: '72.5' }).waitFor()
    } finally {
      await device.close()
    }
    await page.getByRole('link', { name: 'Open boiler-1' }).click()
    await page.locator('h1', { hasText: 'boiler-1' }).waitFor()
    await page.getByRole('link', { name: 'Overview', exact: true }).click()
    await page.locator('tr[data-device="boiler-1"]').waitFor()
    expect(await scrollsSideways(page)).toBe(false)
    expect(troubles).toEqual([])
  })
})
