// The pipeline page and the dead letters in a real browser: moving numbers, limits by cause, what is not known, and a dead letter put back by a form.

import { request } from 'node:http'
import mqtt from 'mqtt'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { DeadLettersAnswer, LatestAnswer } from '../../api/wire.ts'
import { ask } from '../helpers/ask.ts'
import { noBrowser, openPage, testMsMax, waitFor } from './browser.ts'
import { type OneDevice, startOneDevice } from './one-device.ts'

vi.setConfig({ testTimeout: testMsMax, hookTimeout: testMsMax })

describe.skipIf(noBrowser !== undefined)('the pipeline', () => {
  let world: OneDevice
  beforeAll(async () => {
    world = await startOneDevice()
  })
  afterAll(() => world?.close())

  /** A body that is no JSON, as a device sends it. */
  async function sendBroken(name: string, body: string | Uint8Array<ArrayBuffer>): Promise<void> {
    const answer = await fetch(`${world.weir.urls.gateway}/v1/telemetry/${name}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    })
    expect(answer.status).toBe(422)
  }

  it('moves: stages, connections, limits by cause, dead letters by reason, parts', async () => {
    const { page, troubles, close } = await openPage(world.browser)
    await page.goto(`${world.weir.http}/pipeline`)
    await page.locator('#link[data-state="live"]').waitFor()
    await page.evaluate('globalThis.sameDocument = true')
    const total = async (stage: string) =>
      Number((await page.locator(`[data-stage="${stage}"] [data-part="total"]`).textContent())?.replaceAll(',', ''))
    const before = await total('received')
    for (let i = 0; i < 5; i++) await world.device.publish('boiler-1', { temperature: i })
    for (const stage of ['received', 'durable', 'stored', 'detected', 'seen'])
      await waitFor(async () => (await total(stage)) >= before + 5, { what: `${stage} to move` })
    expect(Number(await page.locator('[data-number="mqtt"]').textContent())).toBeGreaterThan(0)

    // A request that the gateway refuses is a limit hit.
    const tooLarge = await fetch(`${world.weir.urls.gateway}/v1/telemetry/boiler-1`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: new Uint8Array(1024 * 1024 + 1),
    })
    expect(tooLarge.status).toBe(413)
    await page.locator('#limits td', { hasText: 'gateway request refused' }).waitFor()
    await sendBroken('boiler-1', '{"temperature": 71.5')
    await page.locator('#reasons a', { hasText: 'malformed-payload' }).waitFor()
    for (const part of ['log', 'mqtt', 'gateway', 'clickhouse', 'writer', 'detector', 'api'])
      await page
        .locator('#parts td', { hasText: new RegExp(`^${part}$`) })
        .first()
        .waitFor()
    expect(await page.evaluate('globalThis.sameDocument')).toBe(true)
    expect(troubles).toEqual([])
    await close()
  })

  it('what it can’t know is a dash with why: a frozen intake says nothing', async () => {
    const { page, close } = await openPage(world.browser)
    await page.goto(`${world.weir.http}/pipeline`)
    await page.locator('#link[data-state="live"]').waitFor()
    const thaw = world.weir.freeze('ingest')
    try {
      await page.locator('[data-stage="received"][data-state="unknown"]').waitFor({ timeout: 60_000 })
      expect(await page.locator('[data-number="mqtt"]').textContent()).toBe('–')
      expect(await page.locator('[data-stage="received"] [data-part="total"]').textContent()).toBe('–')
      expect(await page.locator('#unknown').textContent()).toContain('The process ingest has said nothing for')
      expect(await page.locator('[data-stage="stored"]').getAttribute('data-state')).not.toBe('unknown')
    } finally {
      thaw()
    }
    await page.locator('[data-stage="received"]:not([data-state="unknown"])').waitFor()
    await waitFor(() => page.locator('#unknown').isHidden())
    await close()
  })

  it.each([true, false])('a dead letter is mended in a form and put back (scripts: %s)', async (javaScriptEnabled) => {
    const name = `mend-${javaScriptEnabled}`
    await sendBroken(name, '{"temperature": 71.5')
    await waitFor(
      async () =>
        (await ask<DeadLettersAnswer>(`${world.weir.http}/v1/dead-letters?device=${name}`)).items.length === 1,
    )
    const { page, troubles, close } = await openPage(world.browser, { javaScriptEnabled })
    await page.goto(`${world.weir.http}/dead-letters?device=${name}&reason=malformed-payload`)
    expect(await page.locator('.letters tbody tr').count()).toBe(1)
    await page.locator('.letters tbody a').click()
    await page.locator('#as-text', { hasText: '{"temperature": 71.5' }).waitFor()
    await page.locator('summary', { hasText: 'Byte by byte' }).click()
    expect(await page.locator('#as-hex').textContent()).toContain('7b 22 74 65')
    // As it is, it is still of no use, and the page says so.
    await page.getByRole('button', { name: 'Put back as it arrived' }).click()
    await page.getByText('Nothing of it was put back').waitFor()
    const again = page.getByRole('link', { name: 'The new dead letter' })
    expect(await again.getAttribute('href')).toMatch(/^\/dead-letters\/[0-9a-f]{16}-[0-9a-f]{8}$/)
    await page.locator('#payload').fill('{"temperature": 71.5,\n "door": true}')
    await page.getByRole('button', { name: 'Put back as written here' }).click()
    await page.getByText('Put back: 2 accepted, 0 dead-lettered again.').waitFor()
    await waitFor(async () => {
      const { items } = await ask<LatestAnswer>(`${world.weir.http}/v1/latest?device=${name}`)
      return items.length === 2 && items.find(({ metric }) => metric === 'temperature')?.value === 71.5
    })
    // Loaded again, nothing is put back again.
    await page.reload()
    const { items } = await ask<DeadLettersAnswer>(`${world.weir.http}/v1/dead-letters?device=${name}`)
    expect(items.length).toBe(2)
    // The one that was put back says so from then on; the new one, of the first try, was not.
    expect(items.map(({ putBack }) => putBack && [putBack.accepted, putBack.deadLettered])).toEqual([null, [2, 0]])
    await page.locator('#put-back-at', { hasText: '2 accepted, 0 dead-lettered again' }).waitFor()
    await page.goto(`${world.weir.http}/dead-letters?device=${name}`)
    expect(await page.locator('#letters .put-back').allTextContents()).toHaveLength(1)
    expect(troubles).toEqual([])
    await close()
  })

  it('a dead letter whose bytes are no text is shown byte by byte, and mended as base64', async () => {
    await sendBroken('bytes', Buffer.from([0xff, 0, 0xfe, 0x0a]))
    const listed = await waitFor(
      async () => (await ask<DeadLettersAnswer>(`${world.weir.http}/v1/dead-letters?device=bytes`)).items[0],
    )
    const { page, troubles, close } = await openPage(world.browser)
    await page.goto(`${world.weir.http}/dead-letters/${listed.id}`)
    await page.getByText('These bytes are no text.').waitFor()
    expect(await page.locator('#as-text').count()).toBe(0)
    expect(await page.locator('#as-hex').textContent()).toContain('000000  ff 00 fe 0a')
    expect(await page.locator('#payload').inputValue()).toBe('/wD+Cg==')
    await page.locator('#payload').fill('no <base64>')
    await page.getByRole('button', { name: 'Put back as written here' }).click()
    await page.getByText('What stands in the form is not base64.').waitFor()
    expect(await page.locator('#payload').inputValue()).toBe('no <base64>')
    await page.locator('#payload').fill(Buffer.from('{"temperature": 3}').toString('base64'))
    await page.getByRole('button', { name: 'Put back as written here' }).click()
    await page.getByText('Put back: 1 accepted, 0 dead-lettered again.').waitFor()
    expect(troubles.filter((each) => !each.includes('422'))).toEqual([])
    await close()
  })

  it('a payload in a codec that there is none for is put back as JSON, mended or as it arrived', async () => {
    const client = await mqtt.connectAsync(`mqtt://${world.weir.mqtt.host}:${world.weir.mqtt.port}`)
    await client.publishAsync('devices/packed/telemetry/cbor', Buffer.from([0xa1, 0x61, 0x74, 0xf9, 0x44, 0x40]), {
      qos: 1,
    })
    await client.publishAsync('devices/packed/telemetry/line', '{"temperature": 5}', { qos: 1 })
    await client.endAsync()
    const items = await waitFor(async () => {
      const letters = await ask<DeadLettersAnswer>(`${world.weir.http}/v1/dead-letters?device=packed`)
      return letters.items.length === 2 && letters.items
    })
    const { page, troubles, close } = await openPage(world.browser)
    await page.goto(`${world.weir.http}/dead-letters/${items.find(({ codec }) => codec === 'cbor')!.id}`)
    expect(await page.locator('#payload').inputValue()).toBe('')
    await page.locator('#payload').fill('{"temperature": 4}\n{"temperature": 4, "pressure": 1}')
    await page.locator('.mend').getByLabel('Read it as').selectOption('JSON, one a line')
    await page.getByRole('button', { name: 'Put back as written here' }).click()
    await page.getByText('Put back: 3 accepted, 0 dead-lettered again.').waitFor()
    await page.goto(`${world.weir.http}/dead-letters/${items.find(({ codec }) => codec === 'line')!.id}`)
    await page.getByRole('button', { name: 'Put back as it arrived' }).click()
    await page.getByText('Put back: 1 accepted, 0 dead-lettered again.').waitFor()
    expect(troubles).toEqual([])
    await close()
  })

  it('by keyboard alone a dead letter is found, mended and put back', async () => {
    await sendBroken('keys', '{"pressure": 3')
    await waitFor(
      async () => (await ask<DeadLettersAnswer>(`${world.weir.http}/v1/dead-letters?device=keys`)).items.length === 1,
    )
    const { page, close } = await openPage(world.browser)
    await page.goto(`${world.weir.http}/dead-letters`)
    await page.locator('input[name="device"]').focus()
    await page.keyboard.type('keys')
    await page.keyboard.press('Enter')
    await page.waitForURL('**device=keys*')
    await page.locator('button[type="submit"]').focus()
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await page.locator('#payload').waitFor()
    await page.locator('#payload').focus()
    await page.keyboard.press('Control+End')
    await page.keyboard.type('}')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await page.getByText('Put back: 1 accepted').waitFor()
    await close()
  })

  it('a list that is open says that newer ones came', async () => {
    const { page, close } = await openPage(world.browser)
    await page.goto(`${world.weir.http}/dead-letters`)
    await page.locator('#letters tbody tr').first().waitFor()
    await sendBroken('newer', 'x')
    await page.locator('#newer a').click()
    await page.locator('#letters th', { hasText: 'newer' }).waitFor()
    await close()
  })

  it('a form of another site puts nothing back', async () => {
    const { items } = await ask<DeadLettersAnswer>(`${world.weir.http}/v1/dead-letters?limit=1`)
    const status = await new Promise<number | undefined>((done, fail) => {
      const sent = request(`${world.weir.http}/dead-letters/${items[0]!.id}/put-back`, {
        method: 'POST',
        headers: { 'content-type': 'application/x-www-form-urlencoded', origin: 'http://evil.example' },
      })
      sent.on('response', (answer) => done(answer.resume().statusCode))
      sent.on('error', fail)
      sent.end('as=kept')
    })
    expect(status).toBe(403)
  })
})
