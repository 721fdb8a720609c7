// The list of dead letters: says when newer ones are there, and leaves it to the reader when to see them.
import { formatCount } from './format.js'
import { ask, byId } from './page.js'

const everyMs = 3_000
const countedMax = 50

const letters = document.getElementById('letters')
const filter = new URLSearchParams(location.search)

async function look() {
  if (!document.hidden && letters?.dataset.first === 'true') {
    const query = new URLSearchParams({ limit: String(countedMax) })
    for (const name of ['reason', 'device']) if (filter.get(name)) query.set(name, filter.get(name) ?? '')
    try {
      /** @type {import('../../api/wire.ts').DeadLettersAnswer} */
      const { items } = await (await ask(`/v1/dead-letters?${query}`, AbortSignal.timeout(5_000))).json()
      const known = items.findIndex(({ id }) => id === letters.dataset.newest)
      const newer = known < 0 ? items.length : known
      if (newer > 0) sayNewer(newer, known < 0)
    } catch {
      // Asked again in a moment.
    }
  }
  setTimeout(look, everyMs)
}

/** @param {number} newer @param {boolean} orMore */
function sayNewer(newer, orMore) {
  const count = `${formatCount(newer)}${orMore && newer === countedMax ? ' or more' : ''} newer`
  const host = byId('newer')
  const link = host.querySelector('a')
  if (link?.textContent === count) return
  const fresh = document.createElement('a')
  fresh.href = location.href
  fresh.textContent = count
  host.replaceChildren(fresh)
}

setTimeout(look, everyMs)
