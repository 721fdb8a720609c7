// What most tests of pages begin with: the product, a browser, and a device that has said something.
import type { Browser } from 'playwright-core'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'
import { launchBrowser } from './browser.ts'
import { connectPublisher, type Publisher } from './publish.ts'

export interface OneDevice {
  readonly weir: WeirProcess
  readonly browser: Browser
  readonly device: Publisher
  /** Of browser and device; the product ends with its test file. */
  close(): Promise<void>
}

export async function startOneDevice(): Promise<OneDevice> {
  const weir = await startWeir()
  const browser = await launchBrowser()
  const device = await connectPublisher(weir)
  await device.publish('boiler-1', { temperature: 1 })
  return {
    ...{ weir, browser, device },
    async close() {
      await device.close()
      await browser.close()
    },
  }
}
