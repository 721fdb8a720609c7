// What every page does: counts ages on, names the viewer's zone, and says how the live connection is.
import { formatAge, formatAgo, gapCauseText } from './format.js'

/** The element with this id; pages are ours, so a missing one is a bug.
 * @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const element = document.getElementById(id)
  if (!element) throw new Error(`the page has no #${id}`)
  return element
}

/** A part of a card or row, by its data-part.
 * @param {ParentNode} within @param {string} name @returns {HTMLElement} */
export function part(within, name) {
  const element = within.querySelector(`[data-part="${name}"]`)
  if (!(element instanceof HTMLElement)) throw new Error(`no part ${name}`)
  return element
}

/** Sets text only where it differs, so that nothing is laid out or read aloud for no reason.
 * @param {Element | null | undefined} element @param {string} text */
export function say(element, text) {
  if (element && element.textContent !== text) element.textContent = text
}

/** The server's clock less ours: pages show ages on the server's. Taken from what the server says while the page is open. */
let skewMs = 0
/** @param {number} serverAt */
export function setServerClock(serverAt) {
  const skew = serverAt - Date.now()
  // A small difference is the way here, not a clock.
  skewMs = Math.abs(skew) > 2_000 ? skew : 0
}
export function serverNow() {
  return Date.now() + skewMs
}

function tickAges() {
  const now = serverNow()
  for (const element of document.querySelectorAll('time[data-at]')) {
    const format = element.hasAttribute('data-ago') ? formatAgo : formatAge
    say(element, format(now - Number(element.getAttribute('data-at'))))
  }
}

const gapsListedMax = 5
/** Says in words what the live stream could not send. @param {{ cause: string, from: number, to: number }} gap @param {string} what is done about it */
export function listGap({ cause, from, to }, what) {
  const list = document.getElementById('gaps')
  if (!list) return undefined
  const item = document.createElement('li')
  item.dataset.cause = cause
  const span = document.createElement('span')
  span.className = 'when'
  span.textContent = `${localTime(from)} – ${localTime(to)}`
  span.title = `${utcTime(from)} – ${utcTime(to)}`
  const text = document.createElement('span')
  text.textContent = `Not sent live: ${gapCauseText(cause)}. `
  const done = document.createElement('span')
  done.dataset.part = 'done'
  done.textContent = what
  item.append(span, ' ', text, done)
  list.prepend(item)
  while (list.children.length > gapsListedMax) list.lastElementChild?.remove()
  list.hidden = false
  return done
}

/** @param {Element | null | undefined} element @param {number} at */
export function setAge(element, at) {
  if (!(element instanceof HTMLElement)) return
  element.dataset.at = String(at)
  element.setAttribute('datetime', new Date(at).toISOString())
  say(element, (element.dataset.ago === undefined ? formatAge : formatAgo)(serverNow() - at))
}

/** @param {number} at @returns {HTMLTimeElement} */
export function ageElement(at) {
  const element = document.createElement('time')
  element.className = 'age'
  setAge(element, at)
  return element
}

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC'
export const timeZone = zone
const local = new Intl.DateTimeFormat('en-GB', {
  day: 'numeric',
  month: 'short',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hourCycle: 'h23',
})

/** An instant in the viewer's zone. @param {number} at */
export function localTime(at) {
  return local.format(at)
}
/** The same in UTC, for tooltips. @param {number} at */
export function utcTime(at) {
  return `${new Date(at).toISOString().slice(0, 19).replace('T', ' ')} UTC`
}

const linkTexts = {
  still: '',
  live: 'live',
  waiting: 'connecting',
  lost: 'connection lost, trying again',
  paused: 'paused',
}
/** @param {keyof typeof linkTexts} state @param {'websocket' | 'sse'} [over] */
export function showLink(state, over) {
  const link = document.getElementById('link')
  if (!link) return
  if (over) {
    link.dataset.over = over
    link.title = over === 'websocket' ? 'over WebSocket' : 'over server-sent events'
  }
  if (link.dataset.state === state) return
  link.dataset.state = state
  say(document.getElementById('link-text'), linkTexts[state])
}

/** Asks the public API, or for a fragment of a page; throws what the problem says.
 * @param {string} path @param {AbortSignal} [signal] @returns {Promise<Response>} */
export async function ask(path, signal) {
  const response = await fetch(path, signal ? { signal } : {})
  if (response.ok) return response
  // The session is over: the way in leads back here.
  if (response.status === 401)
    location.assign(`/login?${new URLSearchParams({ next: location.pathname + location.search })}`)
  /** @type {{ detail?: string } | undefined} */
  const problem = await response.json().catch(() => undefined)
  throw new Error(problem?.detail ?? `the server answered ${response.status}`)
}

say(document.getElementById('zone'), zone)
tickAges()
setInterval(() => {
  if (!document.hidden) tickAges()
}, 1_000)
for (const time of document.querySelectorAll('time[data-at]')) {
  if (time instanceof HTMLElement)
    time.title = `${localTime(Number(time.dataset.at))} · ${utcTime(Number(time.dataset.at))}`
}
for (const time of document.querySelectorAll('[data-local]')) {
  if (!(time instanceof HTMLElement)) continue
  const at = Number(time.dataset.local)
  say(time, localTime(at))
  time.title = utcTime(at)
}
