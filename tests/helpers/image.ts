// The container image as far as a machine without containers can make it: the files that .dockerignore lets in, built by the Dockerfile's own commands,
// in a temporary directory that stands for the image's /app, and run as nobody where this process may become somebody else.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { chmodSync, chownSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { projectDirectory } from './spawn-weir.ts'

export interface TestImage {
  /** The command line of a container, as ENTRYPOINT and `command` make it; its output is kept. */
  run(command: readonly string[], environment: Readonly<Record<string, string>>): Container
  /** A directory that a volume of the container would be. */
  volume(name: string): string
  dispose(): void
}

export interface Container {
  readonly pid: number
  readonly exited: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>
  output(): string
  kill(signal: NodeJS.Signals): void
}

const nobody = 65_534
const isRoot = process.getuid?.() === 0
const buildMsMax = 180_000

export function buildImage(): TestImage {
  const directory = mkdtempSync(join(tmpdir(), 'weir-image-'))
  chmodSync(directory, 0o755)
  const [context, image] = [join(directory, 'context'), join(directory, 'app')]
  try {
    copyContext(context)
    symlinkSync(join(projectDirectory, 'node_modules'), join(context, 'node_modules'))
    for (const words of buildCommands()) {
      const made = spawnSync(
        process.execPath,
        words.map((word) => (word === '/image' ? image : word)),
        {
          cwd: context,
          encoding: 'utf8',
          timeout: buildMsMax,
        },
      )
      if (made.status !== 0) throw new Error(`node ${words.join(' ')} failed: ${made.stdout}${made.stderr}`)
    }
  } catch (error) {
    rmSync(directory, { recursive: true, force: true })
    throw error
  }
  const running = new Set<ChildProcess>()
  return {
    run(command, environment) {
      const child = spawn(process.execPath, [join(image, 'dist/main.js'), ...command], {
        cwd: directory,
        env: { PATH: process.env.PATH, NODE_ENV: 'production', ...environment },
        stdio: ['ignore', 'pipe', 'pipe'],
        ...(isRoot && { uid: nobody, gid: nobody }),
      })
      running.add(child)
      let output = ''
      const hear = (text: string): void => {
        output = (output + text).slice(-200_000)
      }
      child.stdout.setEncoding('utf8').on('data', hear)
      child.stderr.setEncoding('utf8').on('data', hear)
      const exited = new Promise<Awaited<Container['exited']>>((done, fail) => {
        child.once('error', fail)
        child.once('close', (code, signal) => {
          running.delete(child)
          done({ code, signal })
        })
      })
      return { pid: child.pid!, exited, output: () => output, kill: (signal) => void child.kill(signal) }
    },
    volume(name) {
      const path = join(directory, 'volumes', name)
      mkdirSync(path, { recursive: true, mode: 0o700 })
      chmodSync(dirname(path), 0o755)
      if (isRoot) chownSync(path, nobody, nobody)
      return path
    },
    dispose() {
      for (const child of running) child.kill('SIGKILL')
      rmSync(directory, { recursive: true, force: true, maxRetries: 5 })
    },
  }
}

/** What `COPY . .` finds. */
function copyContext(target: string): void {
  const rules = readFileSync(join(projectDirectory, '.dockerignore'), 'utf8').split('\n')
  const allowed = rules.filter((rule) => rule.startsWith('!')).map((rule) => rule.slice(1))
  const left = rules.filter((rule) => rule.startsWith('**/')).map((rule) => patternOf(rule.slice(3)))
  const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
    cwd: projectDirectory,
    encoding: 'utf8',
  }).split('\n')
  for (const file of files) {
    if (!allowed.includes(file.split('/', 1)[0]!) || left.some((pattern) => pattern.test(file))) continue
    mkdirSync(dirname(join(target, file)), { recursive: true })
    cpSync(join(projectDirectory, file), join(target, file))
  }
}

function patternOf(glob: string): RegExp {
  return new RegExp(`(^|/)${glob.replaceAll('.', '\\.').replaceAll('*', '[^/]*')}$`)
}

/** The words after `node` in what the Dockerfile's stage `build` runs. */
function buildCommands(): string[][] {
  const dockerfile = readFileSync(join(projectDirectory, 'Dockerfile'), 'utf8')
  const line = /^FROM packages AS build$[\s\S]*?^RUN (node .+)$/m.exec(dockerfile)?.[1]
  if (line === undefined) throw new Error('the Dockerfile has no stage that builds')
  return line.split(' && ').map((command) => command.trim().split(/\s+/).slice(1))
}
