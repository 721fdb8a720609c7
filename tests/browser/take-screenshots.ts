// Makes the pictures in docs/screenshots/ (all, or those named): `npm run build && node dist/tests/browser/take-screenshots.js`. A product of its own,
// with the demo fleet and a machine of many metrics beside it, on free ports.
import { mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Browser, BrowserContextOptions } from 'playwright-core'
import { projectDirectory, spawnWeir, type WeirProcess } from '../helpers/spawn-weir.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { launchBrowser, openPage } from './browser.ts'
import { connectPublisher, type Publisher } from './publish.ts'

interface Picture {
  readonly name: string
  readonly path: string
  readonly options?: BrowserContextOptions
  /** Where the crosshair stands, as a share of the first chart's width. */
  readonly crosshairAt?: number
  /** What is clicked first, to come where the picture is taken. */
  readonly click?: string
  /** Long enough that what moves has moved. */
  readonly afterMs?: number
}

const phone = { viewport: { width: 360, height: 760 } }
const fleetPictures: readonly Picture[] = [
  { name: 'overview', path: '/', afterMs: 8_000 },
  { name: 'overview-dark', path: '/', options: { colorScheme: 'dark' } },
  { name: 'overview-360', path: '/', options: phone },
  { name: 'device', path: '/devices/press-4?range=15m', crosshairAt: 0.7 },
  {
    name: 'device-90-days-dark',
    path: '/devices/nyc-taxi?range=90d',
    // A dense line is a large picture: a smaller one.
    options: { colorScheme: 'dark', viewport: { width: 1040, height: 640 } },
    crosshairAt: 0.4,
  },
  { name: 'device-360', path: '/devices/office-hvac?range=30d', options: { ...phone, colorScheme: 'dark' } },
  { name: 'device-without-scripts', path: '/devices/office-hvac?range=30d', options: { javaScriptEnabled: false } },
  { name: 'anomaly', path: '/devices/office-hvac', click: '#found a' },
  { name: 'pipeline', path: '/pipeline', afterMs: 5_000 },
  { name: 'pipeline-dark-360', path: '/pipeline', options: { ...phone, colorScheme: 'dark' } },
  { name: 'dead-letters', path: '/dead-letters' },
  { name: 'dead-letters-360', path: '/dead-letters', options: phone },
  { name: 'dead-letter', path: '/dead-letters', click: '.letters tbody a' },
  {
    name: 'dead-letter-dark',
    path: '/dead-letters?reason=malformed-payload',
    click: '.letters tbody a',
    options: { colorScheme: 'dark' },
  },
  { name: 'unknown-device', path: '/devices/boiler-9' },
]
const emptyPicture: Picture = { name: 'first-steps', path: '/' }
export const pictures: readonly Picture[] = [emptyPicture, ...fleetPictures]
export const bytesMax = 200 * 1024
export const directory = join(projectDirectory, 'docs/screenshots')

if (process.argv[1] === fileURLToPath(import.meta.url)) await takeAll()

async function takeAll(): Promise<void> {
  const named = process.argv.slice(2)
  const isWanted = ({ name }: Picture): boolean => named.length === 0 || named.includes(name)
  mkdirSync(directory, { recursive: true })
  const browser = await launchBrowser()
  try {
    if (isWanted(emptyPicture)) {
      const empty = await spawnWeir()
      await take(browser, empty, emptyPicture).finally(() => empty.dispose())
    }
    const wanted = fleetPictures.filter(isWanted)
    if (wanted.length === 0) return
    const weir = await spawnWeir({ demo: true })
    await takeFleet(browser, weir, wanted).finally(() => weir.dispose())
  } finally {
    await browser.close()
  }
}

async function takeFleet(browser: Browser, weir: WeirProcess, wanted: readonly Picture[]): Promise<void> {
  const device = await connectPublisher(weir)
  const publishing = setInterval(() => void device.publish('press-4', machine(Date.now())), 1_000)
  try {
    await publishHistory(device)
    await sendWhatIsOfNoUse(weir)
    await waitFor(
      async () => {
        const answer = await fetch(`${weir.http}/v1/series?device=nyc-taxi&metric=passengers&from=now-90d`)
        const { series } = (await answer.json()) as { series: { observedAt: number[] }[] }
        return (series[0]?.observedAt.length ?? 0) > 100
      },
      { withinMs: 120_000, what: 'the demo fleet to have its history' },
    )
    // Two minutes of readings a second, without the moment at which the history came in.
    await pause(150_000)
    for (const picture of wanted) await take(browser, weir, picture)
  } finally {
    clearInterval(publishing)
    await device.close()
  }
}

async function take(
  browser: Browser,
  weir: WeirProcess,
  { name, path, options = {}, crosshairAt, click, afterMs = 2_500 }: Picture,
): Promise<void> {
  const { page, close } = await openPage(browser, { reducedMotion: 'reduce', ...options })
  await page.goto(`${weir.http}${path}`)
  if (click !== undefined) {
    await page.locator('#link').waitFor()
    await pause(1_000)
    await page.locator(click).first().click()
  }
  await pause(afterMs)
  if (crosshairAt !== undefined) {
    const box = await page.locator('.u-over').first().boundingBox()
    if (box) await page.mouse.move(box.x + box.width * crosshairAt, box.y + 80)
  }
  const file = join(directory, `${name}.png`)
  await page.screenshot({ path: file })
  await close()
  const bytes = statSync(file).size
  if (bytes > bytesMax) throw new Error(`${file} has ${bytes} bytes, more than ${bytesMax}`)
  process.stdout.write(`${file} ${Math.round(bytes / 1024)} KB\n`)
}

/** A few of the ways in which payloads go wrong, and a limit that is hit. */
async function sendWhatIsOfNoUse(weir: WeirProcess): Promise<void> {
  const send = (device: string, contentType: string, body: string | Uint8Array<ArrayBuffer>) =>
    fetch(`${weir.urls.gateway}/v1/telemetry/${device}`, {
      method: 'POST',
      headers: { 'content-type': contentType },
      body,
    })
  const json = 'application/json'
  await send('press-4', json, '{"pressure": 181.2, "oilTemperature": 54.')
  await send('press-4', json, '{"pressure": NaN}')
  await send('conveyor-2', json, '{"speed": [1.2, 1.3], "load": 40}')
  await send('conveyor-2', json, '{"ts": "yesterday", "speed": 1.2}')
  await send('pump-7', json, new Uint8Array([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0x56, 0x2a, 0x48]))
  await send('pump-7', 'application/xml', '<flow>3.1</flow>')
  await send('conveyor-2', json, '{"speed": 1.2}')
}

/** Twenty minutes of a press that works in cycles, and was away for three of them. */
async function publishHistory(device: Publisher): Promise<void> {
  const now = Date.now()
  const ts: number[] = []
  for (let at = now - 20 * 60_000; at < now; at += 1_000)
    if (at < now - 9 * 60_000 || at > now - 6 * 60_000) ts.push(at)
  const rows = ts.map(machine)
  const column = (name: 'pressure' | 'oilTemperature'): number[] => rows.map((row) => row[name])
  for (let first = 0; first < ts.length; first += 300) {
    const part = (list: number[]): number[] => list.slice(first, first + 300)
    await device.publish('press-4', {
      ts: part(ts),
      values: { pressure: part(column('pressure')), oilTemperature: part(column('oilTemperature')) },
    })
  }
}

function machine(at: number): { pressure: number; oilTemperature: number; state: string } {
  const cycle = (at / 1_000 / 95) % 1
  const wobble = Math.sin(at / 700) * Math.sin(at / 1_900)
  const pressure =
    cycle < 0.55 ? 182 * (1 - Math.exp(-cycle * 14)) + 2 * wobble : 182 * Math.exp(-(cycle - 0.55) * 9) + wobble
  const oilTemperature = 54 + 6 * Math.sin(at / 260_000) + 0.4 * wobble
  const tenth = (value: number): number => Math.round(value * 10) / 10
  return {
    pressure: tenth(pressure),
    oilTemperature: tenth(oilTemperature),
    state: cycle < 0.55 ? 'pressing' : 'opening',
  }
}
