// The overview, moving: numbers and path strip once a second, the fleet's values live, sparklines growing on what the server drew, search as you type.
import {
  formatCount,
  formatDuration,
  formatNumber,
  orDash,
  slowestLag,
  sparkFrame,
  sparkFrom,
  sparkPoints,
  trendText,
} from './format.js'
import { createFound } from './found.js'
import { openLive } from './live.js'
import { ask, listGap, say, serverNow, setAge, setServerClock, timeZone } from './page.js'
import { readSpark, setNumber, showStages } from './stages.js'

const searchDelayMs = 120
const fleetEveryMs = 20_000
const fleetMsMax = 15_000
/** A WebSocket's address has to fit into a request's first 4 KiB. */
const liveUrlMax = 3_000
const dayMs = 86_400_000
/** As fleet.ts has it. */
const badgeMs = 7 * dayMs
const recountAfterMs = 3_000
const recountEveryMs = 60_000

const search = /** @type {HTMLInputElement | null} */ (document.getElementById('search'))

/* Numbers and the path strip */

/** @param {import('../../api/wire.ts').PipelineAnswer} pipeline */
function showPipeline(pipeline) {
  const { stages, devices } = pipeline
  setServerClock(pipeline.at)
  showStages(pipeline)
  setNumber('online', formatCount(devices.online))
  setNumber('devices', formatCount(devices.total))
  setNumber('series', formatCount(pipeline.series))
  setNumber('connections', orDash(pipeline.connections, formatCount))
  setNumber('viewers', formatCount(pipeline.viewers))
  setNumber('deadLettered', orDash(pipeline.deadLettered, formatCount))
  setNumber('deadLetteredWord', pipeline.deadLettered === 1 ? 'dead letter' : 'dead letters')
  const { received, durable, stored, seen } = stages
  setNumber('behind', orDash(slowestLag([received, durable, stored, seen]), formatDuration))
  const share = document.querySelector('[data-number="share"]')
  if (share instanceof HTMLMeterElement) {
    share.max = Math.max(devices.total, 1)
    share.value = devices.online
  }
}

/* Anomalies: today's number as the API counts it, and each one as it is found */

const found = createFound('')
/** Told live since the last count. @type {Set<string>} */
let told = new Set()
let counted = Number.NaN

function dayStart() {
  return new Date(serverNow()).setHours(0, 0, 0, 0)
}

async function countToday() {
  const from = dayStart()
  const query = new URLSearchParams({ from: String(from), to: String(from + 2 * dayMs), limit: '1' })
  const before = told
  told = new Set()
  try {
    /** @type {import('../../api/wire.ts').AnomalyCountsAnswer} */
    const { total } = await (await ask(`/v1/anomalies/counts?${query}`, AbortSignal.timeout(10_000))).json()
    counted = total
  } catch {
    // The number that stands was right, and is counted again.
    for (const id of before) told.add(id)
  }
  showToday()
}

function showToday() {
  if (Number.isNaN(counted)) return
  setNumber('anomalies', formatCount(counted + told.size))
  const since = document.getElementById('anomalies-since')
  say(since, 'since midnight')
  if (since) since.title = timeZone
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let recounting
/** @param {import('../../api/wire.ts').AnomalyAnswer} anomaly */
function onAnomaly(anomaly) {
  if (!found.add(anomaly)) return
  growBadge(anomaly)
  if (anomaly.observedAt >= dayStart()) {
    told.add(anomaly.id)
    showToday()
  }
  // By then it is in the table. What was told may have been in it before: a detector that was killed finds its last ones again.
  if (recounting) return
  recounting = setTimeout(() => {
    recounting = undefined
    void countToday()
    void loadFleet(false)
  }, recountAfterMs)
}

/** @param {import('../../api/wire.ts').AnomalyAnswer} anomaly */
function growBadge({ device, observedAt }) {
  const name = rows.get(device)?.row.querySelector('.device')
  if (!name || observedAt < serverNow() - badgeMs) return
  let badge = name.querySelector('.badge')
  if (!badge) {
    badge = document.createElement('span')
    badge.className = 'badge'
    badge.append('0', document.createElement('span'))
    const said = badge.lastElementChild
    if (said) {
      said.className = 'unseen'
    }
    name.append(badge)
  }
  const count = badge.firstChild
  if (!count) return
  const now = Number(count.textContent) + 1
  count.textContent = String(now)
  say(badge.querySelector('.unseen'), ` ${now === 1 ? 'anomaly' : 'anomalies'} in the last 7 days`)
}

let pipelineFails = 0
async function pollPipeline() {
  if (!document.hidden) {
    try {
      showPipeline(await (await ask('/v1/pipeline', AbortSignal.timeout(5_000))).json())
      if (!document.getElementById('path')) location.reload()
      pipelineFails = 0
    } catch {
      // The mark in the header says so already; the strip turns pale after a few.
      pipelineFails++
    }
    document.body.classList.toggle('stale', pipelineFails > 3)
  }
  setTimeout(pollPipeline, 1_000)
}

/* The fleet */

/** What a row has on screen and still to draw.
 * @typedef {{ row: HTMLElement, heard: Element | null, metric: string, svg: SVGElement | null, spark: { times: number[], values: number[] } | undefined,
 *   windowMs: number, counts: number, pending: Map<string, import('./live.js').LiveReading>, values: Map<string, Element> }} Row */

/** @type {Map<string, Row>} */
const rows = new Map()
/** @type {Set<Row>} */
const changed = new Set()

function readRows() {
  rows.clear()
  changed.clear()
  for (const row of document.querySelectorAll('#fleet tr[data-device]')) {
    if (!(row instanceof HTMLElement)) continue
    const svg = row.querySelector('svg.spark')
    /** @type {Map<string, Element>} */
    const values = new Map()
    for (const value of row.querySelectorAll('.value')) values.set(value.getAttribute('data-metric') ?? '', value)
    rows.set(row.dataset.device ?? '', {
      row,
      heard: row.querySelector('.heard time'),
      metric: row.dataset.metric ?? '',
      svg: svg instanceof SVGElement ? svg : null,
      spark: undefined,
      windowMs: Number(svg?.getAttribute('data-window')) || 3_600_000,
      counts: 0,
      pending: new Map(),
      values,
    })
  }
}

let looksOld = false
/** @param {import('./live.js').LiveReading[]} items */
function onReadings(items) {
  for (const item of items) {
    const row = rows.get(item.device)
    if (!row) {
      looksOld = true
      continue
    }
    row.pending.set(item.metric, item)
    changed.add(row)
  }
}

/** At most five times a second: the eye reads no faster, and a thousand rows cost little. */
function drawRows() {
  if (document.hidden) return
  const now = serverNow()
  for (const row of changed) {
    for (const [metric, reading] of row.pending) {
      const shown = row.values.get(metric)
      if (shown && Number(shown.getAttribute('data-observed-at')) <= reading.observedAt) {
        shown.setAttribute('data-observed-at', String(reading.observedAt))
        say(shown.querySelector('b'), reading.value === undefined ? (reading.text ?? '') : formatNumber(reading.value))
      }
      if (metric === row.metric && reading.value !== undefined) growRow(row, reading.observedAt, reading.value, now)
    }
    row.pending.clear()
    row.row.dataset.online = 'true'
    row.row.querySelector('.dot')?.setAttribute('aria-label', 'online')
    setAge(row.heard, now)
  }
  changed.clear()
}

/** The newest point of a sparkline is the mean of a sixtieth of its window, as the server's points are.
 * @param {Row} row @param {number} at @param {number} value @param {number} now */
function growRow(row, at, value, now) {
  if (!row.svg || at < now - row.windowMs || at > now + 60_000) return
  row.spark ??= row.svg.querySelector('polyline') ? readSpark(row.svg) : { times: [], values: [] }
  const { times, values } = row.spark
  const last = times.length - 1
  const lastAt = times[last]
  if (lastAt !== undefined && at < lastAt) return
  if (lastAt !== undefined && at - lastAt < row.windowMs / 60) {
    row.counts++
    values[last] =
      /** @type {number} */ (values[last]) +
      (value - /** @type {number} */ (values[last])) / Math.min(row.counts + 1, 20)
  } else {
    row.counts = 0
    times.push(at)
    values.push(value)
  }
  while (times.length > 0 && /** @type {number} */ (times[0]) < now - row.windowMs) {
    times.shift()
    values.shift()
  }
  let line = row.svg.querySelector('polyline')
  if (!line) {
    line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline')
    line.setAttribute('vector-effect', 'non-scaling-stroke')
    row.svg.append(line)
  }
  const to = Math.max(now, at)
  const from = sparkFrom(times, now - row.windowMs, to)
  line.setAttribute('points', sparkPoints(times, values, sparkFrame(values, from, to)))
  say(row.row.querySelector('[data-part="span"]'), trendText(times.length, from, to))
}

/** The device in whose row the focus is, '' for another place in the fleet: it is put back there when the table is replaced under it. */
function focusInFleet() {
  const focused = document.activeElement
  if (!document.getElementById('fleet')?.contains(focused)) return undefined
  return focused?.closest('tr')?.dataset.device ?? ''
}

/** @type {AbortController | undefined} */
let loading
/** Gaps of which the fleet is yet to be shown from the table. @type {(HTMLElement | undefined)[]} */
let unfilled = []
/** @param {boolean} bySearch */
async function loadFleet(bySearch) {
  const fleet = document.getElementById('fleet')
  // A row that someone stands on with the keyboard stays where it is.
  if (!bySearch && fleet?.contains(document.activeElement)) return
  if (!bySearch && loading) {
    // What is under way is let finish: where it takes long, ending it for a new one would mean that none ever comes.
    looksOld = true
    return
  }
  loading?.abort()
  const mine = new AbortController()
  loading = mine
  const tooLong = setTimeout(() => mine.abort(), fleetMsMax)
  const declared = unfilled
  const query = new URLSearchParams()
  if (search?.value) query.set('search', search.value)
  if (!bySearch && fleet?.dataset.after) query.set('after', fleet.dataset.after)
  try {
    const html = await (await ask(`/fragments/fleet?${query}`, mine.signal)).text()
    // Our own server's rendering, escaped there; scripts that arrive in this way never run.
    const next = new DOMParser().parseFromString(html, 'text/html').getElementById('fleet')
    if (!next) return
    const standing = focusInFleet()
    // The fleet is listed without the table too.
    if (next.dataset.away !== 'true') {
      for (const done of declared) say(done, 'Shown from the table.')
      unfilled = unfilled.filter((each) => !declared.includes(each))
    }
    document.getElementById('fleet')?.replaceWith(document.adoptNode(next))
    if (bySearch) history.replaceState(null, '', query.size > 0 ? `/?${query}` : '/')
    readRows()
    if (standing !== undefined) (rows.get(standing)?.row.querySelector('a') ?? search)?.focus({ preventScroll: true })
    if (liveQuery() !== subscribed) live.reconnect()
  } catch {
    // A newer search took its place, or the server is away: the mark in the header says the latter.
  } finally {
    clearTimeout(tooLong)
    if (loading === mine) loading = undefined
  }
}

/** What the connection that stands was opened with. */
let subscribed = ''

function liveQuery() {
  const query = new URLSearchParams({ mode: 'latest', anomalies: 'true' })
  const fleet = document.getElementById('fleet')
  if (fleet?.dataset.more !== 'true' && !fleet?.dataset.after && !search?.value) return query.toString()
  for (const device of rows.keys()) {
    if (query.toString().length > liveUrlMax) break
    query.append('device', device)
  }
  return query.toString()
}

readRows()
const live = openLive(() => (subscribed = liveQuery()), {
  readings: onReadings,
  opened() {
    // Whatever was found meanwhile is not sent again.
    void countToday()
    void found.load()
  },
  anomaly: onAnomaly,
  gap(gap) {
    // Said to be shown once it is: the table may be away, and a row that someone stands on is not replaced.
    unfilled.push(listGap(gap, 'The table is asked.'))
    void loadFleet(false)
  },
})
setInterval(() => {
  if (!document.hidden) void countToday()
}, recountEveryMs)
setInterval(drawRows, 200)
setInterval(() => {
  if (document.hidden || search?.value) return
  if (looksOld || unfilled.length > 0) {
    looksOld = false
    void loadFleet(false)
  }
}, 1_500)
setInterval(() => {
  if (!document.hidden) void loadFleet(false)
}, fleetEveryMs)
void pollPipeline()

/** @type {ReturnType<typeof setTimeout> | undefined} */
let typing
search?.addEventListener('input', () => {
  clearTimeout(typing)
  typing = setTimeout(() => void loadFleet(true), searchDelayMs)
})
search?.form?.addEventListener('submit', (event) => {
  event.preventDefault()
  void loadFleet(true)
})
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return
  const typingNow = event.target instanceof HTMLInputElement
  if (event.key === '/' && !typingNow) {
    event.preventDefault()
    search?.focus()
    search?.select()
  } else if (event.key === 'Escape' && event.target === search && search?.value) {
    search.value = ''
    void loadFleet(true)
  }
})
