// What `weir verify` asks of its surroundings: a data directory, and no key to doors that it does not open.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runCommand } from 'citty'
import { afterAll, expect, it } from 'vitest'
import type { CommandWorld } from './command.ts'
import { ownAddress } from './command.ts'
import { verify } from './verify.ts'

const data = mkdtempSync(join(tmpdir(), 'weir-verify-'))
afterAll(() => rmSync(data, { recursive: true, force: true }))

it('needs no admin token where a start would', async () => {
  const world: CommandWorld = {
    environment: { WEIR_HOST: '0.0.0.0', WEIR_AUTH: 'required' },
    mainFile: '',
    stop: new AbortController().signal,
    print: () => {},
    terminal: false,
  }
  await expect(runCommand(verify, { rawArgs: ['--data', data], data: world })).rejects.toThrow(/There is no log in/)
})

it('a Weir that is bound to every address is asked on loopback', () => {
  expect(ownAddress('0.0.0.0', 8080)).toBe('http://127.0.0.1:8080')
  expect(ownAddress('::', 8080)).toBe('http://[::1]:8080')
  expect(ownAddress('weir.example', 8080)).toBe('http://weir.example:8080')
})
