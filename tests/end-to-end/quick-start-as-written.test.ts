// The README's first lines, run as they stand there, so that the page can't rot: only the ports are those of this test.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { projectDirectory } from '../helpers/spawn-weir.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const readme = readFileSync(join(projectDirectory, 'README.md'), 'utf8')
const lines = [...readme.matchAll(/^```(?:sh|bash|console|shell)\n([\s\S]*?)^```/gm)]
  .flatMap(([, block]) => block!.replaceAll('\\\n', ' ').split('\n'))
  .map((line) => line.replace(/^\$ /, '').trim())
const publishLines = lines.filter((line) => line.startsWith('mosquitto_pub '))
const askLines = lines.filter((line) => /^curl (?!.*(-N|\/v1\/live))/.test(line) && line.includes('/v1/'))
const hasMosquitto = spawnSync('mosquitto_pub', ['--help']).error === undefined

describe('the quick start as written', () => {
  let weir: WeirProcess
  beforeAll(async () => {
    weir = await startWeir()
  })

  const run = (line: string): { status: number | null; stdout: string; stderr: string } => {
    const here = line
      .replaceAll(/(localhost|127\.0\.0\.1):8080/g, new URL(weir.http).host)
      .replaceAll(/(localhost|127\.0\.0\.1):8081/g, new URL(weir.urls.gateway!).host)
      .replace(/^mosquitto_pub /, `mosquitto_pub -h ${weir.mqtt.host} -p ${weir.mqtt.port} `)
    return spawnSync('sh', ['-c', here], { encoding: 'utf8', timeout: 60_000 })
  }

  it('has a first publish and a first question', () => {
    expect(publishLines.length).toBeGreaterThan(0)
    expect(askLines.length).toBeGreaterThan(0)
  })

  it.skipIf(!hasMosquitto)('the publishes are taken, and the questions answered', async () => {
    for (const line of publishLines) expect(run(line), line).toMatchObject({ status: 0 })
    const devices = publishLines.map((line) => /devices\/([^/\s]+)\/telemetry/.exec(line)![1]!)
    for (const device of new Set(devices)) {
      await waitFor(
        async () => {
          const response = await fetch(`${weir.http}/v1/latest?device=${device}`)
          return ((await response.json()) as { items: unknown[] }).items.length > 0
        },
        { what: `the reading of ${device}` },
      )
    }
    for (const line of askLines) {
      const { status, stdout, stderr } = run(line)
      expect(status, `${line}: ${stderr}`).toBe(0)
      expect(stdout, line).not.toContain('/problems/')
    }
  })

  it('the page that it promises is there', async () => {
    const page = await fetch(`${weir.http}/`)
    expect(page.status).toBe(200)
    expect(page.headers.get('content-type')).toContain('text/html')
  })
})
