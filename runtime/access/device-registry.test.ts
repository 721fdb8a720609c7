import fs, {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { waitFor } from '../../tests/helpers/wait-for.ts'
import { LimitError, StartError } from '../errors.ts'
import { silentLogger } from '../logger.ts'
import { addToken, DeviceRegistry, ensureDevice, removeTokens } from './device-registry.ts'
import { bearerOf, createDeviceToken, tokenIdOf } from './device-token.ts'
import { changeRegistry, encodeRegistry, parseRegistry, readRegistry, registryLimits } from './registry-file.ts'

let directory: string
let file: string
const opened: DeviceRegistry[] = []
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'weir-registry-'))
  file = join(directory, 'devices.ndjson')
})
afterEach(() => {
  for (const registry of opened.splice(0)) registry.close()
  rmSync(directory, { recursive: true, force: true })
})

const open = (): DeviceRegistry => {
  const registry = new DeviceRegistry({ file, logger: silentLogger, lookEveryMs: 10 })
  opened.push(registry)
  return registry
}
const add = (device: string): Promise<{ id: string; token: string }> =>
  changeRegistry(file, (devices) => addToken(devices, ensureDevice(devices, device, 'default', 1), 2))
const revoke = (device: string): Promise<number> =>
  changeRegistry(file, (devices) => removeTokens(devices, devices.get(device)!, () => true))

describe('a token', () => {
  it('has an id that may be shown, and is never the same', () => {
    const [one, other] = [createDeviceToken(), createDeviceToken()]
    expect(one.token).toMatch(/^weir_[0-9a-f]{16}_[A-Za-z0-9_-]{43}$/)
    expect(tokenIdOf(one.token)).toBe(one.id)
    expect(one.token).not.toContain(one.hash)
    expect(one.token).not.toBe(other.token)
  })

  it.each([
    '',
    'weir_',
    `weir_${'0'.repeat(16)}_${'x'.repeat(42)}`,
    `weir_${'g'.repeat(16)}_${'x'.repeat(43)}`,
    'x'.repeat(65),
  ])('%j has no id', (text) => expect(tokenIdOf(text)).toBeUndefined())

  it.each([
    ['Bearer abc', 'abc'],
    ['bearer  abc ', 'abc'],
    ['Bearer', undefined],
    ['Bearer a b', undefined],
    ['Basic abc', undefined],
    ['Bearer ä', undefined],
    [`Bearer ${'x'.repeat(1_000)}`, undefined],
    [undefined, undefined],
  ])('of the header %j is %j', (header, token) => expect(bearerOf(header)).toBe(token))
})

describe('the registry', () => {
  it('knows nobody where there is no file, and who was added from the next question on', async () => {
    const registry = open()
    const unknown = createDeviceToken().token
    expect(registry.holderOf(unknown)).toBeUndefined()
    const { token } = await add('d1')
    expect(registry.holderOf(token)).toMatchObject({ device: 'd1', tenant: 'default', speaksFor: [] })
    expect(registry.holderOf(`${token.slice(0, -3)}AAA`)).toBeUndefined()
    expect(registry.holderOf(unknown)).toBeUndefined()
  })

  it('finds a device that was registered just now by its name, as it does by a token', async () => {
    // Not watched: nothing but the question makes it look.
    const registry = open()
    expect(registry.deviceNow('boiler-1')).toBeUndefined()
    await changeRegistry(file, (devices) => ensureDevice(devices, 'boiler-1', 'default', 1))
    expect(registry.device('boiler-1')).toBeUndefined()
    expect(registry.deviceNow('boiler-1')).toMatchObject({ tenant: 'default' })
  })

  it('hears by itself of what another process changed, and says so', async () => {
    const registry = open()
    const { token } = await add('d1')
    const holder = registry.holderOf(token)!
    let changes = 0
    registry.onChange(() => changes++)
    registry.watch()
    expect(registry.stands(holder)).toBe(true)
    await revoke('d1')
    await waitFor(() => !registry.stands(holder), { withinMs: 15_000 })
    expect(changes).toBeGreaterThan(0)
    expect(registry.holderOf(token)).toBeUndefined()
    expect(registry.device('d1')?.tokens).toEqual([])
  })

  it('takes back what a token may do when that was changed', async () => {
    const registry = open()
    const { token } = await add('d1')
    const holder = registry.holderOf(token)!
    await registry.change((devices) => devices.set('d1', { ...devices.get('d1')!, speaksFor: ['a*'] }))
    expect(registry.stands(holder)).toBe(false)
    expect(registry.stands(registry.holderOf(token)!)).toBe(true)
  })

  it('goes on with what it knew when the file is damaged or gone, and says so until it is mended', async () => {
    const registry = open()
    const { token } = await add('d1')
    expect(registry.holderOf(token)).toBeDefined()
    const whole = readFileSync(file)
    registry.watch()
    writeFileSync(file, whole.subarray(0, -5))
    await waitFor(() => registry.health().state === 'degraded', { withinMs: 15_000 })
    expect(registry.health().detail).toMatch(/line 2 is not whole/)
    expect(registry.holderOf(token)).toBeDefined()
    rmSync(file)
    await waitFor(() => /is gone/.test(registry.health().detail ?? ''), { withinMs: 15_000 })
    expect(registry.holderOf(token)).toBeDefined()
    writeFileSync(file, whole)
    await waitFor(() => registry.health().state === 'ok', { withinMs: 15_000 })
    expect(registry.holderOf(token)).toBeDefined()
  })

  it('tries again by itself what could not be read, though it does not change any more', async () => {
    const registry = open()
    const { token } = await add('d1')
    expect(registry.holderOf(token)).toBeDefined()
    const { devices } = readRegistry(file)
    removeTokens(devices, devices.get('d1')!, () => true)
    writeFileSync(`${file}.revoked`, encodeRegistry(devices))
    const real = fs.openSync
    let refused = 0
    const openSync = (...words: Parameters<typeof real>): number => {
      if (words[0] !== file) return real(...words)
      refused++
      throw Object.assign(new Error('EMFILE: too many open files, open'), { code: 'EMFILE' })
    }
    Object.assign(fs, { openSync })
    syncBuiltinESMExports()
    try {
      renameSync(`${file}.revoked`, file)
      registry.watch()
      await waitFor(() => refused > 1)
      expect(registry.health().detail).toMatch(/can't be read: EMFILE.*before stay so/)
      expect(registry.holderOf(token)).toBeDefined()
    } finally {
      Object.assign(fs, { openSync: real })
      syncBuiltinESMExports()
    }
    await waitFor(() => registry.holderOf(token) === undefined)
    expect(registry.health().state).toBe('ok')
  })

  it('is not opened on a file that can’t be used, or not be read', async () => {
    writeFileSync(file, 'x')
    expect(() => open()).toThrow(StartError)
    await expect(add('d1')).rejects.toThrow(StartError)
    expect(readFileSync(file, 'utf8')).toBe('x')
    writeFileSync(file, encodeRegistry(new Map()))
    chmodSync(file, 0)
    if (process.getuid?.() !== 0) expect(() => open()).toThrow(/can't be read/)
  })

  it('loses no change of many at once, and leaves nothing behind', async () => {
    const registry = open()
    const own = Array.from({ length: 20 }, (_, i) =>
      registry.change((devices) => ensureDevice(devices, `own-${i}`, 'default', 1)),
    )
    await Promise.all([...own, add('third')])
    const names = [...readRegistry(file).devices.keys()]
    expect(names.filter((name) => name.startsWith('own-'))).toHaveLength(20)
    expect(names).toContain('third')
    // Nothing is left lying about beside the file and the (empty) lock.
    expect(readdirSync(directory).sort()).toEqual(['devices.ndjson', 'devices.ndjson.lock'])
    expect(readdirSync(join(directory, 'devices.ndjson.lock'))).toEqual([])
    expect(statSync(file).mode & 0o777).toBe(0o600)
  })

  it('changes nothing when the change throws, or is beyond a limit', async () => {
    await add('d1')
    const before = readFileSync(file, 'utf8')
    const refuse = (edit: Parameters<typeof changeRegistry>[1]) => expect(changeRegistry(file, edit)).rejects
    await refuse(() => {
      throw new Error('no')
    }).toThrow('no')
    const labels = Object.fromEntries(
      Array.from({ length: registryLimits.labelsPerDeviceMax + 1 }, (_, i) => [`l${i}`, '']),
    )
    await refuse((devices) => devices.set('d1', { ...devices.get('d1')!, labels })).toThrow(LimitError)
    await refuse((devices) => devices.set('d1', { ...devices.get('d1')!, labels: { 'a b': '' } })).toThrow(LimitError)
    await refuse((devices) => {
      for (let i = 0; i < registryLimits.tokensPerDeviceMax; i++) addToken(devices, devices.get('d1')!, 1)
    }).toThrow(/has more than 8 tokens: revoke one first/)
    expect(readFileSync(file, 'utf8')).toBe(before)
  })

  it('is never made larger than it could be read again', async () => {
    await add('d1')
    const before = readFileSync(file, 'utf8')
    const labels = Object.fromEntries(
      Array.from({ length: registryLimits.labelsPerDeviceMax }, (_, i) => [`label-${i}`, 'x'.repeat(256)]),
    )
    const many = changeRegistry(file, (devices) => {
      for (let i = 0; i < 8_000; i++) devices.set(`d${i}`, { ...devices.get('d1')!, device: `d${i}`, labels })
    })
    await expect(many).rejects.toThrow(/larger than 67108864 bytes/)
    expect(readFileSync(file, 'utf8')).toBe(before)
  }, 60_000)

  it('keeps no token, only its hash', async () => {
    const { token } = await add('d1')
    expect(readFileSync(file, 'utf8')).not.toContain(token.slice(22))
  })
})

describe('the file', () => {
  const head = '{"format":"weir-devices","version":1}\n'
  const device = { tenant: 'default', device: 'd', labels: {}, speaksFor: [], addedAt: 1, tokens: [] }
  const line = (more: object): string => `${head}${JSON.stringify({ ...device, ...more })}\n`

  it('is read as it was written', () => {
    const devices = new Map([
      ['d', { ...device, labels: { hall: '7' }, speaksFor: ['a*'] }],
      ['e', { ...device, device: 'e' }],
    ])
    expect(parseRegistry(encodeRegistry(devices), 'f')).toEqual(devices)
  })

  it.each([
    ['', /line 1 is not \{/],
    ['{"format":"weir-devices","version":2}\n', /line 1/],
    [`${head}{}`, /line 2 is not whole/],
    [`${head}{\n`, /line 2 is not JSON/],
    [`${head}null\n`, /line 2 is not an object/],
    [line({ device: '' }), /has no usable name/],
    [line({ device: 'a b' }), /has no usable name/],
    [line({ labels: null }), /has no labels/],
    [line({ labels: { a: 1 } }), /label a that is not a text/],
    [line({ speaksFor: 'all' }), /speaks for/],
    [line({ tokens: [{ id: 'x', hash: 'y', createdAt: 1 }] }), /has no usable tokens/],
    [line({}) + line({}).slice(head.length), /line 3 names d a second time/],
  ])('%j is refused with the line', (text, sentence) => {
    expect(() => parseRegistry(text, 'f')).toThrow(sentence)
  })
})
