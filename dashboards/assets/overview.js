// The overview, moving: numbers and path strip once a second, the fleet's values live, sparklines growing on what the server drew, search as you type.
import { formatCount, formatDuration, formatNumber, formatRate, sparkFrame, sparkPoints, sparkRead } from './format.js'
import { openLive } from './live.js'
import { ask, say, serverNow, setAge, setServerClock } from './page.js'

const lateMs = 5_000
const rateWindowMs = 120_000
const searchDelayMs = 120
const fleetEveryMs = 20_000
const liveUrlMax = 6_000

const search = /** @type {HTMLInputElement | null} */ (document.getElementById('search'))

/* Numbers and the path strip */

/** @param {string} name @param {string} text */
function setNumber(name, text) {
  say(document.querySelector(`[data-number="${name}"]`), text)
}

/** As path-strip.tsx has it.
 * @param {{ perSecond: number, lagMs: number }} stage */
function stageState(stage) {
  if (stage.lagMs > lateMs) return stage.perSecond > 0 ? 'late' : 'stands'
  return stage.perSecond > 0 ? 'flows' : 'rests'
}
/** @param {{ perSecond: number, lagMs: number }} stage */
function lagText(stage) {
  const span = formatDuration(stage.lagMs)
  if (stageState(stage) === 'stands') return `stands still for ${span}`
  return stage.lagMs > 0 ? `${span} behind` : 'nothing waits'
}

/** @param {import('../../api/wire.ts').PipelineAnswer} pipeline */
function showPipeline(pipeline) {
  const { stages, devices } = pipeline
  setServerClock(pipeline.at)
  for (const [name, stage] of Object.entries(stages)) {
    const item = document.querySelector(`#path [data-stage="${name}"]`)
    if (!(item instanceof HTMLElement)) continue
    item.dataset.state = stageState(stage)
    say(item.querySelector('[data-part="rate"]'), formatRate(stage.perSecond))
    say(item.querySelector('[data-part="lag"]'), lagText(stage))
    say(item.querySelector('[data-part="total"]'), formatCount(stage.total))
  }
  setNumber('rate', formatRate(stages.received.perSecond))
  setNumber('online', formatCount(devices.online))
  setNumber('devices', formatCount(devices.total))
  setNumber('series', formatCount(pipeline.series))
  setNumber('connections', formatCount(pipeline.connections))
  setNumber('viewers', formatCount(pipeline.viewers))
  setNumber('deadLettered', formatCount(pipeline.deadLettered))
  setNumber('behind', formatDuration(Math.max(...Object.values(stages).map(({ lagMs }) => lagMs))))
  const share = document.querySelector('[data-number="share"]')
  if (share instanceof HTMLMeterElement) {
    share.max = Math.max(devices.total, 1)
    share.value = devices.online
  }
  growRate(pipeline.at, stages.received.perSecond)
}

/** @type {{ times: number[], values: number[] } | undefined} */
let rate
/** @param {number} at @param {number} value */
function growRate(at, value) {
  const svg = document.getElementById('rate-spark')
  if (!svg) return
  rate ??= readSpark(svg)
  rate.times.push(at)
  rate.values.push(value)
  while (rate.times.length > 0 && /** @type {number} */ (rate.times[0]) < at - rateWindowMs) {
    rate.times.shift()
    rate.values.shift()
  }
  const frame = { from: at - rateWindowMs, to: at, min: 0, max: Math.max(...rate.values, 1e-9) }
  svg.querySelector('polyline')?.setAttribute('points', sparkPoints(rate.times, rate.values, frame))
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
      windowMs: Number(svg?.getAttribute('data-to')) - Number(svg?.getAttribute('data-from')) || 3_600_000,
      counts: 0,
      pending: new Map(),
      values,
    })
  }
}

/** @param {Element} svg */
function readSpark(svg) {
  const number = (/** @type {string} */ name) => Number(svg.getAttribute(`data-${name}`))
  const frame = { from: number('from'), to: number('to'), min: number('min'), max: number('max') }
  return sparkRead(svg.querySelector('polyline')?.getAttribute('points') ?? '', frame)
}

let strangers = false
/** @param {import('./live.js').LiveReading[]} items */
function onReadings(items) {
  for (const item of items) {
    const row = rows.get(item.device)
    if (!row) {
      strangers = true
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
  line.setAttribute('points', sparkPoints(times, values, sparkFrame(values, now - row.windowMs, Math.max(now, at))))
}

/** @type {AbortController | undefined} */
let loading
/** @param {boolean} bySearch */
async function loadFleet(bySearch) {
  const fleet = document.getElementById('fleet')
  // A row that someone stands on with the keyboard stays where it is.
  if (!bySearch && fleet?.contains(document.activeElement)) return
  loading?.abort()
  const mine = new AbortController()
  loading = mine
  const query = new URLSearchParams()
  if (search?.value) query.set('search', search.value)
  if (!bySearch && fleet?.dataset.after) query.set('after', fleet.dataset.after)
  try {
    const html = await (await ask(`/fragments/fleet?${query}`, mine.signal)).text()
    // Our own server's rendering, escaped there; scripts that arrive in this way never run.
    const next = new DOMParser().parseFromString(html, 'text/html').getElementById('fleet')
    if (!next) return
    document.getElementById('fleet')?.replaceWith(document.adoptNode(next))
    if (bySearch) history.replaceState(null, '', query.size > 0 ? `/?${query}` : '/')
    readRows()
    if (liveQuery() !== subscribed) live.reconnect()
  } catch {
    // A newer search took its place, or the server is away: the mark in the header says the latter.
  }
}

/** What the connection that stands was opened with. */
let subscribed = ''

function liveQuery() {
  const query = new URLSearchParams({ mode: 'latest' })
  const fleet = document.getElementById('fleet')
  if (fleet?.dataset.more !== 'true' && !fleet?.dataset.after && !search?.value) return query.toString()
  for (const device of rows.keys()) {
    if (query.toString().length > liveUrlMax) break
    query.append('device', device)
  }
  return query.toString()
}

readRows()
const live = openLive(() => (subscribed = liveQuery()), { readings: onReadings })
setInterval(drawRows, 200)
setInterval(() => {
  if (document.hidden || search?.value) return
  if (strangers) {
    strangers = false
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
