// What the documents tell people to type, taken out of them as it stands, and run in a directory of its own: only the ports are those of the test.
import { spawn } from 'node:child_process'
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { projectDirectory, type WeirProcess } from './spawn-weir.ts'

/** The blocks of this language in a document of the project, in their order. */
export function snippetsOf(document: string, language: string): string[] {
  const text = readFileSync(join(projectDirectory, document), 'utf8')
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm'))].map(([, block]) => block!)
}

/** The one block of this language that has this in it. */
export function snippetWith(document: string, language: string, part: string): string {
  const found = snippetsOf(document, language).filter((block) => block.includes(part))
  if (found.length !== 1) throw new Error(`${document} has ${found.length} blocks of ${language} with ${part}`)
  return found[0]!
}

/** With the addresses and the data directory of this Weir in the place of the usual ones. */
export function addressedTo(weir: WeirProcess, snippet: string): string {
  const ports = {
    1883: weir.mqtt.port,
    8080: weir.http,
    8081: weir.urls.gateway,
    8082: weir.urls.live,
    8883: weir.urls.mqtts,
  }
  let addressed = snippet.replaceAll('./data/', `${weir.data}/`)
  for (const [usual, here] of Object.entries(ports)) {
    if (here === undefined) continue
    const port = typeof here === 'number' ? here : new URL(here).port
    addressed = addressed
      .replaceAll(`127.0.0.1:${usual}`, `127.0.0.1:${port}`)
      .replaceAll(`-p ${usual} `, `-p ${port} `)
  }
  return addressed.replaceAll(/^mosquitto_pub (?!.*-p )/gm, `mosquitto_pub -p ${weir.mqtt.port} `)
}

export interface Said {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** In bash, where a line that fails ends it, `curl` fails on a status of an error, and `npx weir` is the build. */
export function runShell(lines: string, options: RunOptions): Promise<Said> {
  const main = join(projectDirectory, 'dist/main.js')
  const preamble = `curl() { command curl -sS --fail-with-body "$@" && echo; }\nnpx() { shift; "${process.execPath}" "${main}" "$@"; }`
  return run('bash', ['-e', '-o', 'pipefail', '-c', `${preamble}\n${lines}`], options)
}

/** As a module for Node, beside the packages of the project. Ended as soon as it has said what is waited for. */
export function runModule(text: string, options: RunOptions): Promise<Said> {
  const file = join(options.directory, `snippet-${options.name ?? 'x'}.mjs`)
  try {
    symlinkSync(join(projectDirectory, 'node_modules'), join(options.directory, 'node_modules'))
  } catch {
    // It is there from another snippet.
  }
  writeFileSync(file, text)
  // What Node 22 has by itself.
  return run(process.execPath, ['--experimental-websocket', file], options)
}

interface RunOptions {
  readonly directory: string
  readonly name?: string
  readonly env?: Readonly<Record<string, string>>
  readonly until?: RegExp
}

/** Five commands of ours one after the other, on a machine that others keep busy. */
const runMsMax = 150_000

function run(program: string, words: readonly string[], { directory, env = {}, until }: RunOptions): Promise<Said> {
  return new Promise((done, fail) => {
    const child = spawn(program, words, {
      cwd: directory,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let stdout = ''
    let stderr = ''
    const timer = setTimeout(() => child.kill('SIGKILL'), runMsMax)
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
      if (until?.test(stdout)) child.kill('SIGKILL')
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    child.once('error', fail)
    child.once('close', (code) => {
      clearTimeout(timer)
      done({ code, stdout, stderr })
    })
  })
}
