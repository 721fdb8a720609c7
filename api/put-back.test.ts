// What the other end of putting back may be: a gateway that says no to us, or no gateway at all. Neither is the payload's fault.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, it } from 'vitest'
import { putBack } from './put-back.ts'

const letter = { device: 'boiler-1', codec: 'json', payload: Buffer.from('{}') }

async function answered(status: number, type: string, body: string): Promise<unknown> {
  const server = createServer((request, response) => {
    request
      .resume()
      .on('end', () => response.writeHead(status, { 'content-type': type, connection: 'close' }).end(body))
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  try {
    return await putBack({ url, token: undefined }, letter, new AbortController().signal).catch((error) => error)
  } finally {
    await new Promise((done) => server.close(done))
  }
}

it('what is no gateway is away, and says so', async () => {
  for (const status of [200, 404, 502]) {
    const error = await answered(status, 'text/html', '<html></html>')
    expect(error).toMatchObject({ status: 503, slug: 'gateway-away' })
    expect((error as Error).message).toContain('no gateway of Weir')
  }
})

it('a gateway that does not know our name or token is away; one that can use nothing says what of it', async () => {
  const problem = (slug: string) =>
    JSON.stringify({ type: `/problems/${slug}`, title: 'No', detail: `because ${slug}` })
  for (const status of [401, 403, 421, 429, 503]) {
    const error = await answered(status, 'application/problem+json; charset=utf-8', problem('x'))
    expect(error).toMatchObject({ status: 503, slug: 'gateway-away' })
  }
  const unusable = await answered(422, 'application/problem+json', problem('nothing-usable'))
  expect(unusable).toMatchObject({ status: 422, slug: 'nothing-usable' })
})
