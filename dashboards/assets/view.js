// The charts of one device: history from /v1/series, live readings put into it, both drawn as one line. The page around it decides what stretch of
// time is shown (device.js, first-steps.js).
import { createChart } from './chart.js'
import { formatNumber, gapCauseText, pointsText, resolutionText } from './format.js'
import { ask, listGap, localTime, part, say, serverNow, setAge, timeZone, utcTime } from './page.js'
import { rawMax, SeriesStore } from './series.js'

const chartsMax = 12
const drawEveryMs = 100
/** A live window moves by a pixel, and no more often than this. */
const slideEveryMs = 250
/** Buckets that live readings went into are asked for again, so that they are what the table says. */
const refreshEveryMs = 60_000
const mendAfterMs = 2_500
/** What revised something is in the table by then, as a rule; and, when the table is behind, by then. */
const revisedAfterMs = 1_200
const lastRevisedAfterMs = 6_000
/** What came live is put on top of history again for so long: the table may be a little behind the stream. */
const recentMs = 60_000
const gapsMax = 20
const tableRowsMax = 200
const textRowsMax = 10
const anomaliesMax = 200
/** As chart-card.tsx has it. */
const anomaliesListed = 5

/** @typedef {{ kind: 'live', ms: number } | { kind: 'fixed', from: number, to: number }} Shown */
/** @typedef {import('./live.js').LiveReading} LiveReading */
/** @typedef {import('../../api/wire.ts').AnomalyAnswer} AnomalyAnswer */
/** @typedef {{ metric: string, element: HTMLElement, store: SeriesStore, chart: ReturnType<typeof createChart>, dirty: boolean, blank: boolean, visible: boolean, latestAt: number, anomalies: AnomalyAnswer[] }} Card */

/** @param {{ device: string, host: HTMLElement, texts: HTMLElement | null, shown: Shown, moves: import('./chart.js').Moves,
 *   loaded: (empty: boolean, newestAt: number) => void, failed: (detail: string, isUnreached: boolean) => void }} options */
export function createView({ device, host, texts, shown, moves, loaded, failed }) {
  /** @type {Map<string, Card>} */
  const cards = new Map()
  /** Came live lately, oldest first. @type {{ cameAt: number, item: LiveReading }[]} */
  let recent = []
  let hasHistory = false
  /** The table has answered for what is shown now. */
  let isWhole = false
  /** Declared by the stream, oldest first. @type {(import('./chart.js').Gap & { declaredAt: number, done: HTMLElement | undefined })[]} */
  let gaps = []
  let newestAt = 0
  let slidAt = 0
  /** @type {AbortController | undefined} */
  let loading
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let reload
  let reloadAt = Number.POSITIVE_INFINITY
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let lastRevised
  let failures = 0

  /** @returns {{ from: number, to: number }} */
  function window() {
    if (shown.kind === 'fixed') return { from: shown.from, to: shown.to }
    const now = serverNow()
    return { from: now - shown.ms, to: now }
  }

  const sight = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const card = [...cards.values()].find(({ element }) => element === entry.target)
      if (card) card.visible = entry.isIntersecting
    }
  })

  /** @param {HTMLElement} element @param {string} metric */
  function adopt(element, metric) {
    const store = new SeriesStore()
    const chart = createChart(part(element, 'plot'), {
      moves,
      label: metric,
      readout: (text) => say(part(element, 'readout'), text),
      resolution: () => store.resolution,
    })
    /** @type {Card} */
    const card = { metric, element, store, chart, dirty: true, blank: true, visible: true, latestAt: 0, anomalies: [] }
    card.latestAt = Number(element.querySelector('[data-part="age"] time')?.getAttribute('data-at') ?? 0)
    newestAt = Math.max(newestAt, card.latestAt)
    // Who moves in time before there is anything drawn moves from here.
    chart.slide(window())
    const table = part(element, 'table')
    table.hidden = false
    table.addEventListener('toggle', () => fillTable(card, gaps))
    cards.set(metric, card)
    sight.observe(element)
    return card
  }

  /** @param {string} metric */
  function create(metric) {
    const template = document.getElementById('card')
    const made = template instanceof HTMLTemplateElement ? template.content.cloneNode(true) : undefined
    const element = made instanceof DocumentFragment ? made.firstElementChild : undefined
    if (!(element instanceof HTMLElement)) throw new Error('the page has no template for charts')
    element.dataset.metric = metric
    element.setAttribute('aria-label', metric)
    element.classList.replace('c0', `c${cards.size % 6}`)
    say(part(element, 'name'), metric)
    part(element, 'plot').setAttribute(
      'aria-label',
      `Chart of ${metric}. Arrow keys move, plus and minus zoom, Escape goes back.`,
    )
    host.append(element)
    return adopt(element, metric)
  }

  async function load() {
    clearTimeout(reload)
    reloadAt = Number.POSITIVE_INFINITY
    loading?.abort()
    if (cards.size === 0) return
    const mine = new AbortController()
    loading = mine
    const askedAt = performance.now()
    const { from, to } = window()
    const width = host.clientWidth || 800
    const query = new URLSearchParams({
      device,
      from: String(Math.max(0, Math.floor(from))),
      // A device's clock may run a little ahead of ours.
      to: String(Math.ceil(shown.kind === 'live' ? to + 5_000 : to)),
      points: String(Math.min(2_000, Math.max(200, Math.round(width * 1.1)))),
      timeZone,
    })
    for (const metric of cards.keys()) query.append('metric', metric)
    try {
      /** @type {import('../../api/wire.ts').SeriesAnswer} */
      const answer = await (await ask(`/v1/series?${query}`, mine.signal)).json()
      failures = 0
      hasHistory = true
      isWhole = true
      for (const card of cards.values()) {
        card.store.load(
          answer.series.find((series) => series.metric === card.metric),
          answer,
          shown.kind === 'live',
        )
        card.dirty = true
      }
      fillGaps(askedAt, from, to)
      if (answer.resolution === 'raw') for (const { item } of recent) put(item, true)
      // Those out of sight too: they are read aloud, searched, printed and scrolled to.
      for (const card of cards.values()) drawCard(card, window())
      draw()
      for (const card of cards.values()) fillTable(card, gaps)
      loaded(isEmpty(), newestAt)
      if (shown.kind === 'live') loadWithin(refreshEveryMs)
      await loadAnomalies(from, to, mine.signal)
    } catch (error) {
      if (mine.signal.aborted) return
      failures++
      // A fetch that reaches nobody throws a TypeError.
      failed(error instanceof Error ? error.message : String(error), error instanceof TypeError)
      loadWithin(Math.min(1_000 * 2 ** failures, 10_000))
    } finally {
      if (loading === mine) loading = undefined
    }
  }

  /** What was found is drawn on what is there; without it the charts are as good. @param {number} from @param {number} to @param {AbortSignal} signal */
  async function loadAnomalies(from, to, signal) {
    const query = new URLSearchParams({
      device,
      from: String(Math.max(0, Math.floor(from))),
      to: String(Math.ceil(shown.kind === 'live' ? to + 5_000 : to)),
      order: 'desc',
      limit: String(anomaliesMax),
    })
    try {
      /** @type {import('../../api/wire.ts').AnomaliesAnswer} */
      const { items } = await (await ask(`/v1/anomalies?${query}`, signal)).json()
      for (const card of cards.values()) {
        card.anomalies = items.filter((each) => each.metric === card.metric)
        showAnomalies(card)
      }
    } catch {
      // Asked again with the next history.
    }
  }

  /** @param {Card} card */
  function showAnomalies(card) {
    card.chart.mark(card.anomalies)
    listAnomalies(card)
  }

  /** One that was just found. @param {AnomalyAnswer} anomaly */
  function anomaly(anomaly) {
    const card = anomaly.device === device ? cards.get(anomaly.metric) : undefined
    const { from, to } = window()
    if (!card || anomaly.observedAt < from || (shown.kind === 'fixed' && anomaly.observedAt >= to)) return
    const others = card.anomalies.filter(({ id }) => id !== anomaly.id)
    card.anomalies = [anomaly, ...others].sort((a, b) => b.observedAt - a.observedAt).slice(0, anomaliesMax)
    showAnomalies(card)
  }

  /** Asks again within this time; an earlier plan stays. @param {number} ms */
  function loadWithin(ms) {
    const at = Date.now() + ms
    if (at >= reloadAt) return
    clearTimeout(reload)
    reloadAt = at
    reload = setTimeout(() => {
      reloadAt = Number.POSITIVE_INFINITY
      if (document.hidden) loadWithin(refreshEveryMs)
      else void load()
    }, ms)
  }

  function isEmpty() {
    const { from, to } = window()
    for (const { store } of cards.values()) {
      if (store.times.some((at) => at + store.step >= from && at <= to)) return false
    }
    return cards.size > 0
  }

  /** @param {LiveReading[]} items */
  function readings(items) {
    for (const item of items) {
      if (item.device !== device) continue
      if (item.value === undefined) {
        if (item.text !== undefined && texts) putText(texts, item)
        continue
      }
      recent.push({ cameAt: performance.now(), item })
      put(item, false)
    }
    const since = performance.now() - recentMs
    if (recent.length > rawMax || (recent[0]?.cameAt ?? since) < since - 5_000)
      recent = recent.slice(-rawMax).filter(({ cameAt }) => cameAt >= since)
  }

  /** What was sent has changed, or came late; of several it is the last, so the table is asked for the others. Into which bucket they went, only
   * the table knows too. @param {import('./live.js').LiveRevision} item */
  function revision({ device: of, metric, observedAt, value, text }) {
    const item = { device: of, metric, observedAt }
    const card = cards.get(metric)
    const isBucketed = of === device && card !== undefined && card.store.step > 0 && value !== undefined
    if (isBucketed) flash(card.element)
    else readings([value === undefined ? { ...item, text: text ?? '' } : { ...item, value }])
    // However many come: a device that sends a day late is no flood of questions.
    loadWithin(revisedAfterMs)
    clearTimeout(lastRevised)
    lastRevised = setTimeout(() => loadWithin(0), lastRevisedAfterMs)
  }

  /** Readings between these instants were not sent: a break, until history has them. @param {import('./live.js').LiveGap} declared */
  function gap({ cause, from, to }) {
    const done = listGap({ cause, from, to }, 'The table is asked.')
    gaps = [...gaps, { cause, from, to, filled: false, declaredAt: performance.now(), done }].slice(-gapsMax)
    showGaps()
    loadWithin(500)
  }

  /** @param {number} askedAt @param {number} from @param {number} to */
  function fillGaps(askedAt, from, to) {
    for (const each of gaps) {
      if (each.filled || each.declaredAt > askedAt || each.to < from || each.from > to) continue
      each.filled = true
      say(each.done, 'Drawn from the table.')
    }
    if (gaps.length > 0) showGaps()
  }

  function showGaps() {
    for (const card of cards.values()) {
      card.chart.showGaps(gaps)
      card.dirty = true
      fillTable(card, gaps)
    }
  }

  /** @param {LiveReading} item @param {boolean} again it was put before history came anew */
  function put(item, again) {
    const { metric, observedAt: at, value } = item
    if (value === undefined) return
    let card = cards.get(metric)
    if (!card) {
      if (cards.size >= chartsMax) return
      card = create(metric)
      loadWithin(1_000)
    }
    if (at >= card.latestAt) {
      card.latestAt = at
      newestAt = Math.max(newestAt, at)
      say(part(card.element, 'value'), formatNumber(value))
      showAge(card)
    }
    const { from, to } = window()
    if (at < from || (shown.kind === 'fixed' && at >= to)) return
    const came = card.store.add(at, value)
    if (came === 'repeat') return
    card.dirty = true
    if (came === 'late') {
      if (!again) flash(card.element)
      loadWithin(again ? 2 * mendAfterMs : mendAfterMs)
    }
    if (shown.kind === 'live') card.store.dropBefore(from)
    if (card.store.step === 0 && card.store.length > rawMax) loadWithin(0)
  }

  /** @param {Card} card */
  function showAge(card) {
    const slot = part(card.element, 'age')
    let time = slot.querySelector('time')
    if (!time) {
      time = document.createElement('time')
      time.className = 'age'
      time.dataset.ago = ''
      slot.append(time)
    }
    setAge(time, card.latestAt)
    time.title = `${localTime(card.latestAt)} · ${utcTime(card.latestAt)}`
  }

  function draw() {
    if (document.hidden) return
    const shownNow = window()
    const now = Date.now()
    const pixelMs = shown.kind === 'live' ? shown.ms / Math.max(host.clientWidth, 1) : Number.POSITIVE_INFINITY
    const slide = now - slidAt >= Math.max(pixelMs, slideEveryMs)
    if (slide) slidAt = now
    for (const card of cards.values()) {
      if (!card.visible) continue
      // Until the table has answered, what the server drew says more than nothing.
      if (card.dirty && (!card.blank || hasHistory || card.store.length > 0)) drawCard(card, shownNow)
      else if (slide) card.chart.slide(shownNow)
    }
  }

  /** @param {Card} card @param {{ from: number, to: number }} shownNow */
  function drawCard(card, shownNow) {
    card.dirty = false
    card.blank = false
    card.chart.show(card.store.columns(gaps.filter(({ filled }) => !filled)), shownNow, isWhole, card.store.isSwitch())
    say(part(card.element, 'caption'), captionOf(card.store, hasHistory))
  }
  const drawing = setInterval(draw, drawEveryMs)

  const scheme = matchMedia('(prefers-color-scheme: dark)')
  const redraw = () => {
    for (const { chart } of cards.values()) chart.redraw()
  }
  scheme.addEventListener('change', redraw)

  for (const element of host.querySelectorAll('[data-metric]')) {
    if (element instanceof HTMLElement) adopt(element, element.dataset.metric ?? '')
  }

  return {
    load,
    loadWithin,
    readings,
    revision,
    gap,
    anomaly,
    /** Another stretch of time; what is already there is shown at once, the rest comes. @param {Shown} next */
    show(next) {
      shown = next
      isWhole = false
      for (const card of cards.values()) {
        card.dirty = true
        card.chart.slide(window())
      }
      draw()
      void load()
    },
    /** Only moves what is there, while someone drags. @param {{ from: number, to: number }} to */
    peek(to) {
      for (const { chart } of cards.values()) chart.slide(to)
    },
    window,
    newestAt: () => newestAt,
    close() {
      clearInterval(drawing)
      clearTimeout(reload)
      clearTimeout(lastRevised)
      scheme.removeEventListener('change', redraw)
      for (const { chart } of cards.values()) chart.remove()
    },
  }
}

/** @param {SeriesStore} store @param {boolean} hasHistory */
function captionOf({ length, resolution, source, step }, hasHistory) {
  if (length === 0) return ''
  if (!hasHistory) return `${pointsText(length)}, live; what was before is asked for`
  const band = step > 0 ? ': mean as a line, least to most as a band' : ''
  return `${pointsText(length)}, ${resolutionText(resolution)}${band} · from ${source === 'raw' ? 'raw readings' : `the ${source} rollup`}`
}

/** What late data changed is seen for a second. @param {HTMLElement} element */
function flash(element) {
  if (element.classList.contains('mended')) return
  element.classList.add('mended')
  setTimeout(() => element.classList.remove('mended'), 1_000)
}

/** @param {Card} card */
function listAnomalies({ element, anomalies }) {
  const list = part(element, 'anomalies')
  list.hidden = anomalies.length === 0
  const items = anomalies.slice(0, anomaliesListed).map(({ id, observedAt, explanation }) => {
    const item = document.createElement('li')
    item.dataset.id = id
    const time = document.createElement('span')
    time.className = 'when'
    time.textContent = localTime(observedAt)
    time.title = utcTime(observedAt)
    const text = document.createElement('span')
    text.textContent = explanation
    item.append(time, ' ', text)
    return item
  })
  list.replaceChildren(...items)
}

/** The newest points in words and figures, for those who do not see the chart. @param {Card} card @param {readonly import('./chart.js').Gap[]} gaps */
function fillTable({ element, store }, gaps) {
  const details = part(element, 'table')
  if (!(details instanceof HTMLDetailsElement) || !details.open) return
  const table = document.createElement('table')
  const banded = store.step > 0
  const names = banded ? ['Time', 'UTC', 'Mean', 'Least', 'Most', 'Readings'] : ['Time', 'UTC', 'Value']
  const head = table.createTHead().insertRow()
  for (const name of names) {
    const cell = document.createElement('th')
    cell.scope = 'col'
    cell.textContent = name
    head.append(cell)
  }
  const body = table.createTBody()
  const untold = [...gaps]
  for (let i = store.length - 1; i >= Math.max(0, store.length - tableRowsMax); i--) {
    const at = /** @type {number} */ (store.times[i])
    while ((untold.at(-1)?.to ?? at) > at) tellGap(body.insertRow(), untold.pop(), names.length)
    const figures = banded ? [store.values[i], store.lows[i], store.highs[i], store.counts[i]] : [store.values[i]]
    const row = body.insertRow()
    for (const text of [localTime(at), utcTime(at), ...figures.map((figure) => formatNumber(figure ?? Number.NaN))]) {
      row.insertCell().textContent = text
    }
  }
  part(element, 'rows').replaceChildren(table)
}

/** @param {HTMLTableRowElement} row @param {import('./chart.js').Gap | undefined} gap @param {number} columns */
function tellGap(row, gap, columns) {
  if (!gap) return
  const { from, to, cause, filled } = gap
  row.className = 'gap'
  row.insertCell().textContent = `${localTime(from)} – ${localTime(to)}`
  row.insertCell().textContent = `${utcTime(from)} – ${utcTime(to)}`
  const why = row.insertCell()
  why.colSpan = columns - 2
  why.textContent = `not sent live: ${gapCauseText(cause)}${filled ? '; drawn from the table' : ''}`
}

/** Text readings: the newest few, newest first, each once. @param {HTMLElement} host @param {LiveReading} item */
function putText(host, { metric, observedAt, text = '' }) {
  let section = [...host.children].find((each) => each instanceof HTMLElement && each.dataset.metric === metric)
  if (!section) {
    if (host.children.length >= chartsMax) return
    const template = document.getElementById('text')
    const made = template instanceof HTMLTemplateElement ? template.content.cloneNode(true) : undefined
    if (!(made instanceof DocumentFragment) || !(made.firstElementChild instanceof HTMLElement)) return
    section = made.firstElementChild
    if (section instanceof HTMLElement) section.dataset.metric = metric
    section.setAttribute('aria-label', metric)
    say(part(section, 'name'), metric)
    host.append(section)
  }
  const body = part(section, 'rows')
  const rows = /** @type {HTMLElement[]} */ ([...body.children])
  const same = rows.find((row) => Number(row.dataset.observedAt) === observedAt)
  if (same) {
    say(same.lastElementChild, text)
    return
  }
  const row = document.createElement('tr')
  row.dataset.observedAt = String(observedAt)
  const when = row.insertCell()
  when.className = 'heard'
  const time = document.createElement('time')
  time.className = 'age'
  time.dataset.ago = ''
  setAge(time, observedAt)
  when.append(time)
  row.insertCell().textContent = text
  const older = rows.find((each) => Number(each.dataset.observedAt) < observedAt)
  body.insertBefore(row, older ?? null)
  while (body.children.length > textRowsMax) body.lastElementChild?.remove()
}
