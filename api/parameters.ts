// The parameters that routes share: each checked, bounded and described once. Every route takes a strict object of them, so that a
// misspelt name is an error and not a filter that silently did nothing.
import { z } from 'zod'
import { isDeviceName, isDeviceNamePrefix, isMetricName } from '../domain/reading.ts'
import { type AskedInstant, parseInstant } from './instant.ts'
import { canonicalTimeZone } from './time-zone.ts'

export const filterNamesMax = 100
export const readingsLimitMax = 50_000
export const thingsLimitMax = 1_000
const limitDefault = 100
export const pointsDefault = 500
export const pointsMax = 10_000

/** Names to look for; no names: everything. */
export interface NameFilter {
  readonly names: readonly string[]
  readonly prefixes: readonly string[]
}
export const everyName: NameFilter = { names: [], prefixes: [] }

export function matchesName(filter: NameFilter, name: string): boolean {
  if (filter.names.length === 0 && filter.prefixes.length === 0) return true
  return filter.names.includes(name) || filter.prefixes.some((prefix) => name.startsWith(prefix))
}

/** A parameter that may be given several times arrives as text or as a list of it. */
const several = z.union([z.string(), z.array(z.string()).max(filterNamesMax, `at most ${filterNamesMax} times`)])
const asList = (given: string | string[]): string[] => (typeof given === 'string' ? [given] : given)

export const deviceParameter = several
  .transform((given, context): NameFilter => {
    const names: string[] = []
    const prefixes: string[] = []
    for (const each of asList(given)) {
      const prefix = each.endsWith('*') ? each.slice(0, -1) : undefined
      const usable = prefix === undefined ? isDeviceName(each) : prefix === '' || isDeviceNamePrefix(prefix)
      if (!usable)
        context.addIssue(`${quoted(each)} is not the name of a device: 1–128 of A-Z a-z 0-9 . _ : - @, not . or ..`)
      if (prefix === undefined) names.push(each)
      else prefixes.push(prefix)
    }
    return prefixes.includes('') ? everyName : { names, prefixes }
  })
  .meta({ description: 'Name of a device, or its beginning and `*`; may be given several times' })

export const metricParameter = several
  .transform((given, context): NameFilter => {
    for (const each of asList(given)) {
      if (!isMetricName(each)) context.addIssue(`${quoted(each)} is not the name of a metric: 1–128 characters`)
    }
    return { names: asList(given), prefixes: [] }
  })
  .meta({ description: 'Name of a metric; may be given several times' })

const instantParameter = z.string().transform((text, context): AskedInstant => {
  const parsed = parseInstant(text)
  if (!('problem' in parsed)) return parsed
  context.addIssue(`${quoted(text)} ${parsed.problem}`)
  return z.NEVER
})
export const fromParameter = instantParameter.meta({
  description: 'First instant (in): RFC 3339, an epoch number, `now`, `now-15m`',
})
export const toParameter = instantParameter.meta({ description: 'Last instant (out); default: now' })

export function wholeParameter(min: number, max: number) {
  return z.string().transform((text, context) => {
    const number = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    if (number >= min && number <= max) return number
    context.addIssue(`${quoted(text)} is not a whole number from ${min} to ${max}`)
    return z.NEVER
  })
}

export function limitParameter(max: number) {
  return wholeParameter(1, max)
    .default(limitDefault)
    .meta({ description: `Most items in the answer: 1 to ${max}, default ${limitDefault}` })
}

export const scoreParameter = z
  .string()
  .transform((text, context) => {
    const number = /^\d{1,3}(\.\d{1,20})?$/.test(text) ? Number(text) : Number.NaN
    if (number >= 0 && number <= 1) return number
    context.addIssue(`${quoted(text)} is not a number from 0 to 1`)
    return z.NEVER
  })
  .meta({ description: 'Least score; default: every anomaly that was told' })

export const afterParameter = z.string().max(2_000).meta({ description: 'The `next` of the page before' })

export const orderParameter = z
  .enum(['asc', 'desc'], 'must be asc or desc')
  .default('asc')
  .meta({ description: 'By observedAt: asc (oldest first) or desc' })

export const timeZoneParameter = z
  .string()
  .transform((text, context) => {
    const zone = canonicalTimeZone(text)
    if (zone !== undefined) return zone
    context.addIssue(`${quoted(text)} is not an IANA time zone such as Europe/Berlin`)
    return z.NEVER
  })
  .meta({ description: 'IANA time zone of calendar days and longer; default: UTC' })

/** What a person sent, shortened, so that a message stays a sentence. */
function quoted(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text)
}
