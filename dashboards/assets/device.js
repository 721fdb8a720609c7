// The device page: which stretch of time is shown (kept in the URL), how one moves in it, and the live subscription.
import { formatAge, ranges } from './format.js'
import { createFound } from './found.js'
import { openLive } from './live.js'
import { byId, localTime, say, serverNow, setAge, setServerClock, timeZone } from './page.js'
import { createView } from './view.js'

const spanMsMin = 1_000
const spanMsMax = 20 * 365 * 86_400_000
/** What was acknowledged just before the subscription stood is in the table by now; or, when the table is behind, by then. */
const joinAfterMs = [2_500, 10_000]

const root = byId('device')
const device = root.dataset.device ?? ''
// A page may take a while to get here; a clock that is wrong is so by more.
if (Math.abs(Number(root.dataset.now) - Date.now()) > 30_000) setServerClock(Number(root.dataset.now))
/** What the page shows when its URL says nothing. */
const home = stateOf(root.dataset.range ?? '', root.dataset.from ?? '', root.dataset.to ?? '') ?? live('1h')
/** Steps taken since the page was opened, so that "back" never leaves it. */
let steps = Number(history.state?.steps ?? 0)

/** @typedef {{ kind: 'live', name: string, ms: number } | { kind: 'fixed', from: number, to: number }} State */

/** @param {string} name @returns {State} */
function live(name) {
  const range = ranges.find((each) => each.name === name) ?? ranges[1]
  return { kind: 'live', name: range?.name ?? '1h', ms: range?.ms ?? 3_600_000 }
}

/** @param {string} name @param {string} from @param {string} to @returns {State | undefined} */
function stateOf(name, from, to) {
  if (ranges.some((range) => range.name === name)) return live(name)
  return from && to && Number(from) < Number(to) ? { kind: 'fixed', from: Number(from), to: Number(to) } : undefined
}

/** @returns {State} */
function stateFromUrl() {
  const query = new URLSearchParams(location.search)
  return stateOf(query.get('range') ?? '', query.get('from') ?? '', query.get('to') ?? '') ?? home
}

/** @param {State} state */
function urlOf(state) {
  const query = new URLSearchParams(location.search)
  for (const name of ['range', 'from', 'to']) query.delete(name)
  if (state.kind === 'live') query.set('range', state.name)
  else {
    query.set('from', String(state.from))
    query.set('to', String(state.to))
  }
  return `?${query}`
}

/** @type {State} */
let state = home

const view = createView({
  device,
  host: byId('charts'),
  texts: document.getElementById('texts'),
  shown: state,
  moves: {
    zoom: (from, to) => go(clamp(from, to)),
    pan(from, to, done) {
      if (done) go(clamp(from, to))
      else view.peek({ from, to })
    },
    back,
  },
  loaded: showNothingHere,
  failed: (detail, isUnreached) =>
    isUnreached
      ? notice(
          'Weir does not answer just now',
          'What is drawn stays, and what arrives is kept: it goes on here by itself.',
          'warn',
        )
      : notice(
          'The store is away: history can’t be drawn just now',
          `What arrives is kept and appears here live; history comes back by itself. (${detail})`,
          'warn',
        ),
})

/** @param {number} from @param {number} to @returns {State} */
function clamp(from, to) {
  const span = Math.min(Math.max(to - from, spanMsMin), spanMsMax)
  const middle = (from + to) / 2
  const start = Math.max(0, Math.round(middle - span / 2))
  return { kind: 'fixed', from: start, to: Math.round(start + span) }
}

/** @param {State} next */
function go(next) {
  steps++
  history.pushState({ steps }, '', urlOf(next))
  enter(next)
}

/** @param {State} next */
function enter(next) {
  state = next
  view.show(next)
  showState()
}

function back() {
  if (steps > 0) history.back()
  else if (state !== home) go(home)
}

addEventListener('popstate', (event) => {
  steps = Number(event.state?.steps ?? 0)
  enter(stateFromUrl())
})

function showState() {
  for (const link of document.querySelectorAll('.segments a')) {
    if (!(link instanceof HTMLElement)) continue
    if (state.kind === 'live' && link.dataset.range === state.name) link.setAttribute('aria-current', 'true')
    else link.removeAttribute('aria-current')
  }
  const all = root.querySelector('a[data-part="all"]')
  if (all instanceof HTMLAnchorElement) all.search = `${urlOf(state)}&metrics=all`
  liveButton.setAttribute('aria-pressed', String(state.kind === 'live'))
  backButton.hidden = steps === 0
  const { from, to } = view.window()
  say(byId('shown-text'), `${localTime(from)} – ${state.kind === 'live' ? 'now' : localTime(to)} (${timeZone})`)
}

const liveButton = byId('live')
const backButton = byId('back')
liveButton.hidden = false
liveButton.addEventListener('click', () => {
  if (state.kind === 'live') {
    const { from, to } = view.window()
    go(clamp(from, to))
  } else go(home.kind === 'live' ? home : live('1h'))
})
backButton.addEventListener('click', back)
document.addEventListener('click', (event) => {
  const link = event.target instanceof Element ? event.target.closest('.segments a, a[data-go]') : undefined
  if (!(link instanceof HTMLAnchorElement) || event.ctrlKey || event.metaKey || event.shiftKey) return
  event.preventDefault()
  const query = new URLSearchParams(link.search)
  const next = stateOf(query.get('range') ?? '', query.get('from') ?? '', query.get('to') ?? '')
  if (next) go(next)
})

/* Notices */

/** @param {string} title @param {string | Node} detail @param {'warn' | 'note'} kind */
function notice(title, detail, kind) {
  const box = document.createElement('div')
  box.className = `notice ${kind}`
  const strong = document.createElement('strong')
  strong.textContent = title
  const text = document.createElement('p')
  text.append(detail)
  box.append(strong, text)
  const notices = byId('notices')
  if (notices.textContent !== box.textContent) notices.replaceChildren(box)
}

/** Not a dead end: offers the range that has the newest reading in it. @param {boolean} empty @param {number} newestAt */
function showNothingHere(empty, newestAt) {
  if (!empty || newestAt === 0) {
    byId('notices').replaceChildren()
    return
  }
  const age = serverNow() - newestAt
  const range = ranges.find(({ ms }) => ms > age)
  const link = document.createElement('a')
  link.href = range
    ? `?range=${range.name}`
    : `?from=${Math.floor(newestAt - 3_600_000)}&to=${Math.ceil(newestAt + 60_000)}`
  link.dataset.go = ''
  link.textContent = range ? `Show ${range.label}` : 'Go there'
  const detail = document.createDocumentFragment()
  detail.append(`The newest is ${formatAge(age)} old. `, link)
  notice('No readings in this range.', detail, 'note')
}

/* Live */

const heard = byId('heard').querySelector('time')
const found = createFound(device)

function showHeard() {
  setAge(heard, serverNow())
  byId('online').dataset.online = 'true'
  byId('online').setAttribute('aria-label', 'online')
  say(byId('online-text'), 'online')
  document.getElementById('nothing-yet')?.remove()
}

openLive(() => new URLSearchParams({ mode: 'every', device, anomalies: 'true' }).toString(), {
  readings(items) {
    view.readings(items)
    if (items.length > 0) showHeard()
  },
  revision(item) {
    view.revision(item)
    showHeard()
  },
  opened() {
    void view.load()
    void found.load()
  },
  caughtUp() {
    for (const ms of joinAfterMs) setTimeout(() => view.loadWithin(0), ms)
  },
  anomaly(anomaly) {
    view.anomaly(anomaly)
    found.add(anomaly)
  },
  gap: (gap) => view.gap(gap),
})

state = stateFromUrl()
if (state !== home) view.show(state)
else void view.load()
showState()
setInterval(() => {
  if (state.kind === 'live' && !document.hidden) showState()
}, 10_000)
