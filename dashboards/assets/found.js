// The list of what was found last: as it was when the page was made, and what is found while someone looks on top. Each anomaly once.
import { aroundQuery, deviceHref, newestOfEach, nothingFoundText } from './format.js'
import { ask, localTime, say, utcTime } from './page.js'

/** @typedef {import('../../api/wire.ts').AnomalyAnswer} AnomalyAnswer */

/** Of which a fleet's newest, each of another device, are chosen. As pages.tsx has it. */
const askedMax = 50

/** Told anomalies that are remembered: a detector that was killed finds its last ones again. */
const rememberedMax = 2_000

/** While the table can't be asked. */
const againAfterMs = 5_000

/** @param {string} device of which; '' for the whole fleet */
export function createFound(device) {
  const section = document.getElementById('found')
  const list = section?.querySelector('ul')
  const max = Number(list?.dataset.max ?? 5)
  const ofFleet = list?.dataset.fleet === 'true'
  /** Found while the page was open, newest finding first: on top, whenever their readings were. @type {AnomalyAnswer[]} */
  let fresh = []
  /** @type {AnomalyAnswer[]} */
  let known = []
  /** Those that were told or shown, by id. @type {Set<string>} */
  const seen = new Set()

  for (const when of list?.querySelectorAll('a[data-at]') ?? []) showWhen(when, Number(when.getAttribute('data-at')))

  for (const item of list?.children ?? []) remember(item.getAttribute('data-id') ?? '')

  /** @param {string} id */
  function remember(id) {
    seen.add(id)
    if (seen.size > rememberedMax) for (const oldest of seen) if (seen.delete(oldest)) break
  }

  /** @param {Element} link @param {number} at */
  function showWhen(link, at) {
    link.textContent = localTime(at)
    if (link instanceof HTMLElement) link.title = utcTime(at)
  }

  /** @param {AnomalyAnswer} anomaly @param {boolean} isFresh */
  function itemOf({ id, device, metric, observedAt, explanation }, isFresh) {
    const item = document.createElement('li')
    item.dataset.id = id
    item.dataset.observedAt = String(observedAt)
    if (isFresh) item.className = 'fresh'
    const link = document.createElement('a')
    link.href = `${deviceHref(device)}?${aroundQuery(observedAt)}`
    if (!ofFleet) link.dataset.go = ''
    showWhen(link, observedAt)
    const name = document.createElement('b')
    name.textContent = ofFleet ? `${device} ${metric}` : metric
    const text = document.createElement('span')
    text.textContent = explanation
    item.append(link, ' ', name, ' ', text)
    return item
  }

  function show() {
    if (!section || !list) return
    const shown = [...fresh, ...known.filter(({ id }) => !fresh.some((each) => each.id === id))].slice(0, max)
    const none = section.querySelector('[data-part="none"]')
    if (shown.length === 0) say(none, nothingFoundText)
    if (shown.length === 0) return
    section.hidden = false
    if (none instanceof HTMLElement) none.hidden = true
    // What stands stays the same element: nothing is read aloud twice, and who has one in focus keeps it.
    const before = new Map([...list.children].map((item) => [item instanceof HTMLElement ? item.dataset.id : '', item]))
    const items = shown.map((anomaly) => before.get(anomaly.id) ?? itemOf(anomaly, fresh.includes(anomaly)))
    if (items.some((item, index) => item !== list.children[index]) || items.length !== list.children.length)
      list.replaceChildren(...items)
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let again
  /** Those that were found while nobody was connected. */
  async function load() {
    clearTimeout(again)
    const query = new URLSearchParams({ order: 'desc', limit: String(ofFleet ? askedMax : max) })
    if (device !== '') query.set('device', device)
    try {
      /** @type {import('../../api/wire.ts').AnomaliesAnswer} */
      const { items } = await (await ask(`/v1/anomalies?${query}`, AbortSignal.timeout(10_000))).json()
      for (const { id } of items) remember(id)
      known = newestOfEach(items, max)
      show()
    } catch {
      // What is shown stays.
      again = setTimeout(load, againAfterMs)
    }
  }

  return {
    load,
    /** @param {AnomalyAnswer} anomaly @returns {boolean} whether it is a new one */
    add(anomaly) {
      if (device !== '' && anomaly.device !== device) return false
      if (seen.has(anomaly.id)) return false
      remember(anomaly.id)
      fresh = [anomaly, ...fresh].slice(0, max)
      show()
      return true
    },
  }
}
