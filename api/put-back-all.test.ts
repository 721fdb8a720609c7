// Putting all back, page by page: each payload once, wherever a page ends.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { crc32 } from 'node:zlib'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { deadLetterId } from '../domain/dead-letter.ts'
import { openWorld, type World } from './test-world.ts'
import type { PutBackAllAnswer } from './wire.ts'

let world: World
beforeAll(async () => {
  world = await openWorld()
  await world.startApi()
})
afterAll(() => world?.close())

it('puts each payload back once, though a page ends amid the dead letters of one', async () => {
  const received: string[] = []
  const gateway = createServer((request, response) => {
    let body = ''
    request.setEncoding('utf8').on('data', (text: string) => {
      body += text
    })
    request.on('end', () => {
      received.push(`${request.url} ${body}`)
      response.writeHead(200, { 'content-type': 'application/json' }).end('{"accepted":1,"deadLettered":0}')
    })
  })
  await new Promise<void>((done) => gateway.listen(0, '127.0.0.1', done))
  const gatewayUrl = `http://127.0.0.1:${(gateway.address() as AddressInfo).port}`
  const { url } = await world.startApi(undefined, { gatewayUrl: () => gatewayUrl })
  // Three of each, and a thousand a page: the first page ends with the first of a payload.
  const payloads = 400
  const each = 3
  for (let i = 0; i < payloads; i++) {
    const payload = Buffer.from(`{"n":${i}}`)
    world.clock.micros += 10_000
    for (let n = 0; n < each; n++) {
      const receivedAt = ++world.clock.micros
      const id = deadLetterId(receivedAt, crc32(payload))
      const known = { tenant: 'default', device: `bad-${i % 7}`, metric: '', codec: 'json', origin: 'here' }
      await world.sendDeadLetter({ ...known, id, reason: 'malformed-payload', detail: 'x', receivedAt, payload })
    }
  }
  await world.settle()
  let after: string | null = ''
  let replayed = 0
  while (after !== null) {
    const answer = await fetch(
      `${url}/v1/dead-letters/replay?reason=malformed-payload${after === '' ? '' : `&after=${after}`}`,
      { method: 'POST' },
    )
    expect(answer.status).toBe(200)
    const page = (await answer.json()) as PutBackAllAnswer
    replayed += page.replayed
    after = page.next
  }
  expect(new Set(received).size).toBe(payloads)
  expect(received).toHaveLength(payloads)
  expect(replayed).toBe(payloads)
  gateway.closeAllConnections()
  await new Promise((done) => gateway.close(done))
})
