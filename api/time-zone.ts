// Calendar days of an IANA zone. The table says on which local date a reading lies; here is when that date begins: not always at midnight,
// since some zones skip theirs (Beirut, Havana, São Paulo), and one day in Samoa never was.

const formats = new Map<string, Intl.DateTimeFormat>()
const formatsMax = 1_000

/** The zone's own spelling; undefined when there is no such zone. */
export function canonicalTimeZone(name: string): string | undefined {
  if (!/^[A-Za-z][A-Za-z0-9_+/-]{0,63}$/.test(name)) return undefined
  try {
    return formatOf(name).resolvedOptions().timeZone
  } catch {
    return undefined
  }
}

/** What the zone's clock is ahead of UTC at an instant, in milliseconds. */
export function offsetMs(timeZone: string, atMs: number): number {
  const parts = formatOf(timeZone).formatToParts(atMs)
  const field = (type: string): number => Number(parts.find((part) => part.type === type)!.value)
  const local = Date.UTC(
    field('year'),
    field('month') - 1,
    field('day'),
    field('hour'),
    field('minute'),
    field('second'),
  )
  return local - Math.floor(atMs / 1000) * 1000
}

const dayMs = 86_400_000

/** The first instant, in epoch milliseconds, whose local date is the given one (or a later one, where that date never was). */
export function startOfLocalDate(timeZone: string, date: string): number {
  const midnightMs = Date.parse(`${date}T00:00:00Z`)
  if (timeZone === 'UTC') return midnightMs
  // Offsets lie within ±14 hours or so. Where the local date is reached by one instant and not the one before, the day begins; seen from
  // far enough before, local dates only rise over the day's beginning, so halving finds it.
  let before = midnightMs - dayMs
  let reached = midnightMs + dayMs
  const isReached = (atMs: number): boolean => atMs + offsetMs(timeZone, atMs) >= midnightMs
  // Nearly always the zone's offset around midnight says it at once.
  for (const guessMs of [midnightMs - offsetMs(timeZone, midnightMs), midnightMs - offsetMs(timeZone, before)]) {
    if (isReached(guessMs) && !isReached(guessMs - 1000) && !isReached(guessMs - 3_600_000)) return guessMs
  }
  while (reached - before > 1000) {
    const middle = Math.floor((before + reached) / 2000) * 1000
    if (isReached(middle)) reached = middle
    else before = middle
  }
  return reached
}

function formatOf(timeZone: string): Intl.DateTimeFormat {
  let format = formats.get(timeZone)
  if (format) return format
  format = new Intl.DateTimeFormat('en-US', {
    timeZone,
    calendar: 'gregory',
    numberingSystem: 'latn',
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
    second: 'numeric',
  })
  // Names differ in case only a little; still, what strangers send must not grow without bound.
  if (formats.size >= formatsMax) formats.clear()
  formats.set(timeZone, format)
  return format
}
