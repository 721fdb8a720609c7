// docker-compose.yml as a program reads it, with the variables of a .env filled in. There is no Docker in the tests: they check what it says, and run
// what it runs.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
// The parser that @fastify/swagger brings along.
import { parse } from 'yaml'
import { projectDirectory } from './spawn-weir.ts'

export interface ComposeService {
  readonly image: string
  readonly build?: string
  readonly command?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  readonly ports?: readonly string[]
  readonly volumes?: readonly string[]
  readonly tmpfs?: readonly string[]
  readonly networks?: readonly string[]
  readonly profiles?: readonly string[]
  readonly healthcheck?: { readonly test?: readonly string[]; readonly disable?: boolean }
  readonly stop_grace_period?: string
  readonly [other: string]: unknown
}

export interface Compose {
  readonly services: Readonly<Record<string, ComposeService>>
  readonly networks: Readonly<Record<string, { readonly internal?: boolean }>>
  readonly volumes: Readonly<Record<string, unknown>>
}

export const composeText = readFileSync(join(projectDirectory, 'docker-compose.yml'), 'utf8')
export const weirImage = /^weir:/

/** Throws, as `docker compose` does, where a variable must be set and is not. */
export function readCompose(variables: Readonly<Record<string, string>>): Compose {
  return fillInAll(parse(composeText, { merge: true }), variables) as Compose
}

/** Names of all variables that the file takes. */
export function composeVariables(): string[] {
  return [...new Set([...withoutComments(composeText).matchAll(/\$\{(\w+)/g)].map(([, name]) => name!))]
}

/** In values only, after they are parsed. */
function fillInAll(node: unknown, variables: Readonly<Record<string, string>>): unknown {
  if (typeof node === 'string') return fillIn(node, variables)
  if (Array.isArray(node)) return node.map((each) => fillInAll(each, variables))
  if (typeof node !== 'object' || node === null) return node
  return Object.fromEntries(Object.entries(node).map(([name, value]) => [name, fillInAll(value, variables)]))
}

/** `${NAME}`, `${NAME:-default}`, `${NAME:?message}`. */
function fillIn(text: string, variables: Readonly<Record<string, string>>): string {
  return text.replace(/\$\{(\w+)(?::([-?])([^}]*))?\}/g, (_whole, name: string, kind, rest = '') => {
    const given = variables[name] ?? ''
    if (given !== '') return given
    if (kind === '?') throw new Error(`required variable ${name} is missing a value: ${rest}`)
    return rest
  })
}

function withoutComments(text: string): string {
  return text.replace(/^\s*#.*$/gm, '')
}
