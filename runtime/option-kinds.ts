// How the value of an option is written: ports, sizes, durations, lists, addresses. As text in the environment and on the command line, where JSON has
// them also as numbers, booleans and arrays in the file.
import { resolve } from 'node:path'
import { z } from 'zod'

export const roles = ['ingest', 'writer', 'detector', 'api'] as const
export type Role = (typeof roles)[number]

export const port = z.coerce.number('must be a port number').int().min(0).max(65_535)
export const flag = z.union(
  [z.boolean(), z.enum(['true', 'false']).transform((text) => text === 'true')],
  'must be true or false',
)
export const whole = (min: number, max: number) => z.coerce.number('must be a whole number').int().min(min).max(max)

const sizeUnits: Record<string, number> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4 }
export const size = z.union([z.number().int().positive(), z.string()]).transform((given, context) => {
  const match = /^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)?$/.exec(String(given))
  if (match) return Math.floor(Number(match[1]) * sizeUnits[match[2] ?? 'B']!)
  context.addIssue('must be a size such as 512MiB or 10GiB')
  return z.NEVER
})
const durationUnits: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 }
export const duration = z.union([z.number().int().positive(), z.string()]).transform((given, context) => {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d|w)$/.exec(String(given))
  if (match) return Math.round(Number(match[1]) * durationUnits[match[2]!]!)
  context.addIssue('must be a duration such as 500ms, 30s, 12h or 90d')
  return z.NEVER
})
export const roleList = z
  .union([z.array(z.string()), z.string().transform((text) => text.split(','))])
  .transform((names, context) => {
    const found: Role[] = []
    for (const name of names.map((each) => each.trim()).filter(Boolean)) {
      if (roles.includes(name as Role)) found.push(name as Role)
      else context.addIssue(`has no role "${name}"; the roles are ${roles.join(', ')}`)
    }
    if (found.length === 0 && context.issues.length === 0) context.addIssue(`needs at least one of ${roles.join(', ')}`)
    return found
  })

export const brokerList = z
  .union([z.array(z.string()), z.string().transform((text) => text.split(','))])
  .transform((given, context) => {
    const brokers = given.map((each) => each.trim()).filter(Boolean)
    for (const broker of brokers)
      if (!/^[^\s:/]+:\d{1,5}$|^\[[\da-fA-F:]+\]:\d{1,5}$/.test(broker))
        context.addIssue(`has "${broker}", which is not host:port`)
    if (brokers.length === 0) context.addIssue('needs at least one host:port')
    return brokers
  })
export const nameList = z
  .union([z.array(z.string()), z.string().transform((text) => text.split(','))])
  .transform((given, context) => {
    const names = given.map((each) => each.trim().toLowerCase()).filter(Boolean)
    for (const name of names)
      if (!/^[\w.-]{1,253}$|^[\da-f:]{2,45}$/.test(name))
        context.addIssue(`has "${name}", which is not the name of a host (without a port)`)
    return names
  })
/** Where the table lives: `embedded`, or the address of a server, as written. Who we are there has options of its own, which are never shown. */
export const clickhouseAddress = z.string().transform((given, context) => {
  if (given === 'embedded' || (clickhousePattern.test(given) && URL.canParse(given))) return given.replace(/\/$/, '')
  const issue = given.includes('@')
    ? 'must not hold a user or a password: set WEIR_CLICKHOUSE_USER and WEIR_CLICKHOUSE_PASSWORD'
    : 'must be embedded, or http://host:port or https://host:port, with /database behind it if you like'
  context.addIssue(issue)
  return z.NEVER
})
const clickhousePattern = /^https?:\/\/(?:\[[\da-fA-F:]+\]|[^\s/:@?#[\]]+):\d{1,5}(?:\/[A-Za-z_]\w{0,62})?\/?$/
export const urlList = z
  .union([z.array(z.string()), z.string().transform((text) => text.split(','))])
  .transform((given, context) => {
    const urls = given.map((each) => each.trim().replace(/\/+$/, '')).filter(Boolean)
    for (const url of urls)
      if (!/^https?:\/\/[^/@]+$/.test(url) || !URL.canParse(url))
        context.addIssue(`has "${url}", which is not http://host:port`)
    return urls
  })
/** Absolute, because children run elsewhere. */
export const file = z
  .string()
  .min(1)
  .transform((path) => resolve(path))
