// What a new user does, as the README has it: a fresh clone, `npm start`, a first publish, the answer; and `npm test`. Nothing is installed or built there
// before, and nothing of this checkout but what is tracked (or would be) comes along.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative, sep } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { ask, type ReadingItem } from '../helpers/ask.ts'
import { RawMqtt } from '../helpers/mqtt-raw.ts'
import { isAlive, projectDirectory } from '../helpers/spawn-weir.ts'
import { waitFor } from '../helpers/wait-for.ts'

/** Installing fetches what npm has not kept from before. */
const installMsMax = 600_000
/** API.md: SIGTERM ends `npm start` too, in order, within this time, with code 0. */
const endMsMax = 10_000
const neverCopied = new Set(['.git', 'node_modules', 'dist', 'data'])

/** What a commit of everything here would hold; where git can't say it, everything that is neither installed, built nor collected. */
function filesOfClone(): string[] {
  const words = ['ls-files', '-z', '--cached', '--others', '--exclude-standard']
  const { status, stdout } = spawnSync('git', words, { cwd: projectDirectory, encoding: 'utf8' })
  if (status === 0) return stdout.split('\0').filter((file) => file !== '' && existsSync(join(projectDirectory, file)))
  return readdirSync(projectDirectory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(projectDirectory, join(entry.parentPath, entry.name)))
    .filter((file) => !file.split(sep).some((name) => neverCopied.has(name)))
}

describe('a fresh clone', () => {
  const clone = mkdtempSync(join(tmpdir(), 'weir-test-clone-'))
  let npm: ChildProcess | undefined
  afterAll(() => {
    if (npm?.pid !== undefined && npm.exitCode === null) process.kill(-npm.pid, 'SIGKILL')
    rmSync(clone, { recursive: true, force: true })
  })
  const env = {
    ...Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !/^(WEIR_|NODE_OPTIONS|npm_|VITEST|NODE_ENV)/.test(name)),
    ),
    npm_config_prefer_offline: 'true',
  }

  it(
    'starts with npm start, takes a first publish, and ends in order',
    async () => {
      for (const file of filesOfClone()) {
        mkdirSync(dirname(join(clone, file)), { recursive: true })
        copyFileSync(join(projectDirectory, file), join(clone, file))
      }
      const ports = ['MQTT', 'GATEWAY', 'HTTP', 'LIVE', 'CLICKHOUSE'].map((name) => [`WEIR_${name}_PORT`, '0'])
      npm = spawn('npm', ['start'], {
        cwd: clone,
        env: { ...env, ...Object.fromEntries(ports) },
        stdio: ['ignore', 'pipe', 'pipe'],
        // A group of its own, so that nothing of it is left behind.
        detached: true,
      })
      let stdout = ''
      let stderr = ''
      npm.stdout!.setEncoding('utf8').on('data', (text: string) => {
        stdout += text
      })
      npm.stderr!.setEncoding('utf8').on('data', (text: string) => {
        stderr = (stderr + text).slice(-20_000)
      })
      const exited = new Promise<number | null>((done) => npm!.once('exit', (code) => done(code)))
      await waitFor(() => /^open http/m.test(stdout) || npm!.exitCode !== null, {
        withinMs: installMsMax,
        everyMs: 100,
        what: () => `the address of a page; it said ${stdout}${stderr}`,
      })
      expect(npm.exitCode, stdout + stderr).toBeNull()
      const urlOf = (name: string): string => new RegExp(`^${name} (?:listening on )?(\\S+)$`, 'm').exec(stdout)![1]!
      const mqtt = new URL(urlOf('mqtt'))
      const device = await RawMqtt.connected({ host: mqtt.hostname, port: Number(mqtt.port) }, 'boiler-1')
      await device.publish('devices/boiler-1/telemetry', '{"temperature": 71.3}')
      device.destroy()
      const http = urlOf('http')
      await waitFor(
        async () => {
          const { items } = await ask<{ items: ReadingItem[] }>(`${http}/v1/latest?device=boiler-1`)
          return items[0]?.value === 71.3
        },
        { what: 'the first reading' },
      )
      // The demo's devices are there with their history, and the page is.
      await waitFor(async () => (await ask<{ items: { device: string }[] }>(`${http}/v1/devices`)).items.length === 4, {
        withinMs: 90_000,
        what: 'the demo fleet',
      })
      const page = await fetch(urlOf('open'))
      expect([page.status, await page.text()]).toEqual([200, expect.stringContaining('boiler-1')])
      expect(existsSync(join(clone, 'data/log'))).toBe(true)

      const toldAt = performance.now()
      process.kill(npm.pid!, 'SIGTERM')
      expect(await exited, stderr).toBe(0)
      expect(performance.now() - toldAt).toBeLessThan(endMsMax)
      await waitFor(() => !isAlive(npm!.pid!))
    },
    installMsMax + 300_000,
  )

  it('has the command weir', () => {
    const { status, stdout, stderr } = spawnSync('npx', ['weir', '--version'], { cwd: clone, env, encoding: 'utf8' })
    const { version } = JSON.parse(readFileSync(join(projectDirectory, 'package.json'), 'utf8')) as { version: string }
    expect([status, stdout], stderr).toEqual([0, `${version}\n`])
  })

  it(
    'runs its tests with npm test',
    () => {
      const words = ['test', '--', 'domain/instant.test.ts']
      const { status, stdout, stderr } = spawnSync('npm', words, {
        cwd: clone,
        env,
        encoding: 'utf8',
        timeout: installMsMax,
      })
      expect(status, stdout + stderr).toBe(0)
      expect(stdout.trimEnd().split('\n').at(-1)).toMatch(/^\d+ passed, 0 failed$/)
    },
    installMsMax + 60_000,
  )
})
