// The live connection of a page: over the WebSocket where it can be had, over server-sent events where not, and from one to the other while readings
// come in: nothing missing, nothing twice. What the stream declares missing is seen, until the table has filled it.
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'
import { launchBrowser, noBrowser, type OpenPage, openPage, testMsMax, waitFor } from './browser.ts'
import { type LivePort, leadThrough, passLivePort, recordReadings } from './live-port.ts'
import { connectPublisher, type Publisher } from './publish.ts'

vi.setConfig({ testTimeout: 2 * testMsMax, hookTimeout: testMsMax })

describe.skipIf(noBrowser !== undefined)('a live page', () => {
  let weir: WeirProcess
  let browser: Browser
  let device: Publisher
  let livePort: LivePort
  const opened: OpenPage[] = []
  beforeAll(async () => {
    weir = await startWeir()
    // A page that the test has changed came from nowhere, as the browser sees it, and might not speak to this machine.
    browser = await launchBrowser(['--disable-features=LocalNetworkAccessChecks'])
    device = await connectPublisher(weir)
    livePort = await passLivePort(weir)
  })
  afterEach(async () => {
    for (const each of opened.splice(0)) await each.close()
  })
  afterAll(async () => {
    await livePort?.close()
    await device?.close()
    await browser?.close()
  })

  const over = (page: Page, transport: 'websocket' | 'sse', timeout?: number): Promise<void> =>
    page
      .locator(`#link[data-state="live"][data-over="${transport}"]`)
      .waitFor(timeout === undefined ? undefined : { timeout })
  async function visit(path: string): Promise<OpenPage> {
    const each = await openPage(browser)
    opened.push(each)
    await each.page.addInitScript(recordReadings)
    await leadThrough(each.page, weir, livePort)
    await each.page.goto(`${weir.http}${path}`)
    return each
  }
  interface Heard {
    readonly values: number[]
    readonly gaps: number
    readonly kinds: string[]
    readonly isCaughtUp: boolean
  }
  const heard = (page: Page): Promise<Heard> => page.evaluate('globalThis.heard') as Promise<Heard>
  const tableValues = async (page: Page): Promise<number[]> => {
    const texts = await page.locator('.chart tbody tr td:nth-child(3)').allTextContents()
    return texts.map(Number).reverse()
  }
  /** One reading after another, each a number higher, until it is told to end; resolves with the last number. */
  function count(name: string, everyMs: number): { end(): Promise<number> } {
    let last = 0
    let goesOn = true
    const running = (async () => {
      while (goesOn) {
        await device.publish(name, { ts: Date.now(), counter: ++last })
        await new Promise((go) => setTimeout(go, everyMs))
      }
    })()
    return {
      async end() {
        goesOn = false
        await running
        return last
      },
    }
  }
  const upTo = (last: number): number[] => Array.from({ length: last }, (_, i) => i + 1)

  it('lives on the WebSocket, and asks for nothing else', async () => {
    await device.publish('plain', { counter: 0 })
    const { page, troubles } = await visit('/devices/plain?range=15m')
    const streams: string[] = []
    page.on('request', (request) => {
      if (new URL(request.url()).pathname === '/v1/live') streams.push(request.resourceType())
    })
    await over(page, 'websocket')
    await device.publish('plain', { counter: 41 })
    await page.locator('.chart [data-part="value"]', { hasText: '41' }).waitFor()
    expect(streams.filter((type) => type === 'eventsource')).toEqual([])
    expect(troubles).toEqual([])
    await page.goto(weir.http)
    await over(page, 'websocket')
    await device.publish('plain', { counter: 42 })
    await page.locator('tr[data-device="plain"]').getByText('42').waitFor()
  })

  it('goes from one to the other while readings come in: each is there, once', async () => {
    await device.publish('both', { ts: Date.now() - 60_000, counter: 0 })
    const { page } = await visit('/devices/both?range=15m')
    await over(page, 'websocket')
    await waitFor(async () => (await heard(page)).isCaughtUp)
    await page.evaluate('globalThis.sameDocument = true')
    const counting = count('both', 40)
    await waitFor(async () => (await heard(page)).values.length > 20)
    await livePort.block()
    await over(page, 'sse')
    const before = (await heard(page)).values.length
    await waitFor(async () => (await heard(page)).values.length > before + 20)
    livePort.cut()
    await livePort.open()
    // It is tried again now and then.
    await over(page, 'websocket', 90_000)
    const again = (await heard(page)).values.length
    await waitFor(async () => (await heard(page)).values.length > again + 20)
    livePort.cut()
    await waitFor(async () => (await heard(page)).values.length > again + 60)
    const last = await counting.end()
    await waitFor(async () => (await heard(page)).values.includes(last))
    const { values, gaps, kinds } = await heard(page)
    expect(gaps).toBe(0)
    expect(kinds.slice(0, 3)).toEqual(['websocket', 'sse', 'websocket'])
    expect(values).toEqual(upTo(last))
    expect(await page.evaluate('globalThis.sameDocument')).toBe(true)
    // And so it is drawn: what is over two hundred rows long is a table of the newest.
    await page.locator('.chart').getByText('As a table').click()
    await waitFor(async () => expect(await tableValues(page)).toEqual(upTo(last).slice(-200)) ?? true)
    expect(await page.locator('#gaps').isHidden()).toBe(true)
  })

  it('the serving process is killed while readings come in: each is there, once', async () => {
    await device.publish('killed', { ts: Date.now() - 60_000, counter: 0 })
    const { page } = await visit('/devices/killed?range=15m')
    await over(page, 'websocket')
    await waitFor(async () => (await heard(page)).isCaughtUp)
    const counting = count('killed', 100)
    await waitFor(async () => (await heard(page)).values.length > 5)
    await weir.kill('serve')
    await page.locator('#link[data-state="lost"]').waitFor()
    await page.locator('#link[data-state="live"]').waitFor({ timeout: 60_000 })
    const before = (await heard(page)).values.length
    await waitFor(async () => (await heard(page)).values.length > before + 10)
    const last = await counting.end()
    await waitFor(async () => (await heard(page)).values.includes(last))
    const { values, gaps } = await heard(page)
    expect(gaps).toBe(0)
    expect(values).toEqual(upTo(last))
    await page.locator('.chart').getByText('As a table').click()
    await waitFor(async () => (await tableValues(page)).at(-1) === last)
    expect((await tableValues(page)).slice(-last)).toEqual(upTo(last).slice(-200))
  })

  it('a port that can’t be reached from the start costs nothing', async () => {
    await livePort.block()
    try {
      await device.publish('away', { counter: 1 })
      const { page } = await visit('/devices/away?range=15m')
      await over(page, 'sse')
      await device.publish('away', { counter: 2 })
      await page.locator('.chart [data-part="value"]', { hasText: '2' }).waitFor()
    } finally {
      await livePort.open()
    }
  })

  it('a declared gap is a break with its cause, in the drawing, in words and in the table, until the table has filled it', async () => {
    const now = Date.now()
    const ts = [now - 120_000, now - 110_000, now - 100_000]
    await device.publish('gappy', { ts, values: { level: [1, 2, 3] } })
    const each = await openPage(browser)
    opened.push(each)
    const { page, troubles } = each
    // The stream is the real one, with one frame more: what the server sends when its log has let go of something.
    let declare = (_frame: object): void => {}
    await page.routeWebSocket(/\/v1\/live/, (socket) => {
      socket.connectToServer()
      declare = (frame) => socket.send(JSON.stringify(frame))
    })
    await page.goto(`${weir.http}/devices/gappy?range=15m`)
    await over(page, 'websocket')
    const plot = page.locator('.chart .plot')
    await waitFor(async () => (await plot.getAttribute('data-points')) === '3')
    await page.locator('.chart').getByText('As a table').click()
    // History that does not answer leaves the gap as it is.
    let holdBack = true
    await page.route('**/v1/series?*', (route) => (holdBack ? route.abort() : route.continue()))
    declare({ type: 'gap', cause: 'log-retention', from: now - 108_000, to: now - 102_000 })
    await page
      .locator('#gaps li', { hasText: 'the log had let go of what came between. The table is asked.' })
      .waitFor()
    await page.locator('.scroll tr.gap', { hasText: 'not sent live: the log had let go' }).waitFor()
    // Three readings, and a break between the last two.
    await waitFor(async () => (await plot.getAttribute('data-points')) === '4')
    expect(await plot.getAttribute('data-gaps')).toBe('1')
    // Where the crosshair stands in it, the cause is read out.
    const area = (await page.locator('.u-over').first().boundingBox())!
    const at = (instant: number): number => area.x + area.width * (1 - (Date.now() - instant) / 900_000)
    await waitFor(async () => {
      await page.mouse.move(at(now - 105_000), area.y + 40)
      return (await page.locator('.readout').textContent())?.includes('the log had let go')
    })
    holdBack = false
    await page.locator('#gaps li', { hasText: 'Drawn from the table.' }).waitFor()
    await waitFor(async () => (await plot.getAttribute('data-points')) === '3')
    await page.locator('.scroll tr.gap', { hasText: 'drawn from the table' }).waitFor()
    expect(troubles).toEqual([])
  })
})
