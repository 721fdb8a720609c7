// The file that says where the store is: as it was written, or as good as not there.
import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { RetryableError } from '../../runtime/errors.ts'
import { previousEndpoint, readEndpoint, writeEndpoint } from './endpoint.ts'

let data: string
beforeEach(async () => {
  data = await mkdtemp(join(tmpdir(), 'weir-endpoint-'))
  await mkdir(join(data, 'clickhouse'))
})
afterEach(() => rm(data, { recursive: true }))

const endpoint = { url: 'http://127.0.0.1:1', username: 'weir', password: 'secret', localFilesDirectory: '/inbox' }

describe('the endpoint file', () => {
  it('is read as it was written, by its owner only', async () => {
    await writeEndpoint(join(data, 'clickhouse'), endpoint)
    expect(await readEndpoint(data)).toEqual(endpoint)
    expect(await previousEndpoint(join(data, 'clickhouse'))).toEqual(endpoint)
    expect((await stat(join(data, 'clickhouse', 'endpoint.json'))).mode & 0o777).toBe(0o600)
  })

  it.each([
    ['nothing', ''],
    ['a part of it', '{"url":"http://127.0.0.1:1","us'],
    ['another kind of JSON', 'null'],
    ['a number for the address', JSON.stringify({ ...endpoint, url: 42 })],
    ['no address', JSON.stringify({ ...endpoint, url: 'nowhere' })],
    ['an empty secret', JSON.stringify({ ...endpoint, password: '' })],
    ['a field too few', JSON.stringify({ ...endpoint, localFilesDirectory: undefined })],
  ])('that holds %s is as good as none: the server starts anew with a secret of its own', async (_what, text) => {
    await writeFile(join(data, 'clickhouse', 'endpoint.json'), text)
    expect(await previousEndpoint(join(data, 'clickhouse'))).toBeUndefined()
    await expect(readEndpoint(data)).rejects.toBeInstanceOf(RetryableError)
  })
})
