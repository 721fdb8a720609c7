// Where looking takes the admin token: a person who opens any page is asked for it once, comes to the page that was wanted, and sees it move; no script
// sees the session. When the session is over, the open page leads back to the form.
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { adminToken, startWeirWithAuth, type WeirWithAuth } from '../helpers/weir-with-auth.ts'
import { launchBrowser, noBrowser, openPage, scrollsSideways, testMsMax, waitFor } from './browser.ts'

vi.setConfig({ testTimeout: testMsMax, hookTimeout: testMsMax })

describe.skipIf(noBrowser !== undefined)('a person signs in', () => {
  let weir: WeirWithAuth
  let browser: Browser
  let token: string
  beforeAll(async () => {
    weir = await startWeirWithAuth()
    browser = await launchBrowser()
    token = await weir.addDevice('boiler-1')
    await weir.post('boiler-1', '{"temperature": 1}', token)
  })
  afterAll(() => browser?.close())

  it('once, and is where it wanted to be', async () => {
    const { page, troubles, close } = await openPage(browser)
    await page.goto(`${weir.http}/devices/boiler-1?range=15m`)
    expect(new URL(page.url()).pathname).toBe('/login')
    expect(await scrollsSideways(page)).toBe(false)
    expect(await page.locator('#zone').textContent()).toBe('Europe/Berlin')
    // Nothing stands in another thing's lines.
    const boxes = await Promise.all(
      ['h1', 'h1 + p', 'label', '#token', '.login button'].map((each) => page.locator(each).boundingBox()),
    )
    for (const [at, box] of boxes.slice(1).entries())
      expect(box!.y).toBeGreaterThanOrEqual(boxes[at]!.y + boxes[at]!.height)
    const styles = (await page.evaluate(
      `[getComputedStyle(document.querySelector('.login h1'))].map((h1) => [h1.fontSize, h1.lineHeight])[0]`,
    )) as string[]
    const [letters, line] = styles.map(Number.parseFloat) as [number, number]
    expect(line).toBeGreaterThan(letters)
    await page.getByLabel('Admin token').fill('not-the-admin-token')
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.getByText('That was not it').waitFor()
    await page.getByLabel('Admin token').fill(adminToken)
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.waitForURL(`${weir.http}/devices/boiler-1?range=15m`)
    await page.locator('#link[data-state="live"]').waitFor()
    await weir.post('boiler-1', '{"temperature": 42}', token)
    const value = () => page.locator('.chart [data-part="value"]').textContent()
    await waitFor(async () => (await value()) === '42')
    expect(await page.evaluate('document.cookie')).toBe('')
    const [cookie] = await page.context().cookies()
    expect(cookie).toMatchObject({ name: 'weir_session', httpOnly: true, sameSite: 'Strict' })
    expect(cookie!.value).not.toContain(adminToken)
    expect(troubles).toEqual([])

    // As after twelve hours, with a connection that has to be made again.
    await page.context().clearCookies()
    await weir.kill('serve')
    await page.waitForURL((url) => url.pathname === '/login', { timeout: 30_000 })
    expect(new URL(page.url()).searchParams.get('next')).toBe('/devices/boiler-1?range=15m')
    // The browser's own words for a WebSocket that was refused; whether one is tried before the way in is reached is a matter of a moment.
    expect(troubles.filter((each) => !/WebSocket connection .*Authentication failed/.test(each))).toEqual([])
    await close()
  })
})
