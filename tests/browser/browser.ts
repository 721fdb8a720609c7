// A real Chromium for the tests of pages: from WEIR_TEST_CHROMIUM, or where Debian puts it. Without one the tests are skipped with the reason,
// unless WEIR_TEST_REQUIRE says that all must run.
import { existsSync } from 'node:fs'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { type WaitOptions, waitFor as wait } from '../helpers/wait-for.ts'

const candidates = [
  process.env.WEIR_TEST_CHROMIUM,
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
]
const executablePath = candidates.find((path) => path !== undefined && existsSync(path))

export const noBrowser =
  executablePath === undefined ? 'there is no Chromium here: install it, or set WEIR_TEST_CHROMIUM' : undefined
if (noBrowser !== undefined) {
  if (process.env.WEIR_TEST_REQUIRE) throw new Error(noBrowser)
  process.stdout.write(`browser tests are skipped: ${noBrowser}\n`)
}

/** Nothing here asserts a speed, and three processes and a browser may share a busy core: what comes at all comes within this. */
export const patienceMs = 25_000
/** For a test that waits a few times. */
export const testMsMax = 120_000

/** As the helper, with the patience that a browser on a busy machine needs. */
export const waitFor: typeof wait = (condition, options: WaitOptions = {}) =>
  wait(condition, { withinMs: patienceMs, ...options })

/** On their own, offline but for us, and modest on a small machine. */
const chromiumArguments = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

export function launchBrowser(more: readonly string[] = []): Promise<Browser> {
  if (executablePath === undefined) throw new Error(noBrowser)
  return chromium.launch({ executablePath, args: [...chromiumArguments, ...more] })
}

export interface OpenPage {
  readonly page: Page
  /** What went wrong on the page: errors, refusals of the Content-Security-Policy, dialogs. Connections that failed are not among them. */
  readonly troubles: string[]
  close(): Promise<void>
}

/** A page in a context of its own, in a zone that is not UTC, so that times show whose they are. */
export async function openPage(browser: Browser, options: BrowserContextOptions = {}): Promise<OpenPage> {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 860 },
    timezoneId: 'Europe/Berlin',
    ...options,
  })
  const page = await context.newPage()
  page.setDefaultTimeout(patienceMs)
  const troubles: string[] = []
  page.on('pageerror', (error) => troubles.push(`error: ${error.message}`))
  page.on('dialog', (dialog) => {
    troubles.push(`dialog: ${dialog.message()}`)
    void dialog.dismiss()
  })
  page.on('console', (message) => {
    const text = message.text()
    if (
      message.type() === 'error' &&
      !/Failed to load resource|ERR_|^WebSocket connection to '[^']*' failed/.test(text)
    )
      troubles.push(`console: ${text}`)
  })
  return { page, troubles, close: () => context.close() }
}

/** True when something is wider than the page. */
export function scrollsSideways(page: Page): Promise<boolean> {
  return page.evaluate('document.documentElement.scrollWidth > innerWidth') as Promise<boolean>
}
