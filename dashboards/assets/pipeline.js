// The pipeline page, moving: stages, connections and limits once a second; dead letters by reason and the parts' states now and then. The live mark is
// this page's own asking: it has no subscription.
import { formatBytes, formatCount, limitText, orDash } from './format.js'
import { ageElement, ask, say, setServerClock, showLink } from './page.js'
import { setNumber, showStages } from './stages.js'

const everyMs = 1_000
const seldomMs = 4_000
/** Failures in a row after which what is shown is said to be old. */
const staleAfter = 3

/** @typedef {(string | Node)[]} Cells */

/** Replaces the rows only where they differ, so that nothing is read aloud or loses its focus for no reason.
 * @param {string} id @param {Cells[]} rows @param {string} none said when there are none */
function fill(id, rows, none) {
  const table = document.getElementById(id)
  const body = table?.querySelector('tbody')
  if (!table || !body) return
  const signature = JSON.stringify(
    rows.map((row) => row.map((cell) => (typeof cell === 'string' ? cell : cell.textContent))),
  )
  if (table.dataset.shown === signature) return
  table.dataset.shown = signature
  const figures = [...table.querySelectorAll('thead th')].map((cell) => cell.classList.contains('figure'))
  body.replaceChildren(
    ...rows.map((cells) => {
      const row = document.createElement('tr')
      for (const [index, cell] of cells.entries()) {
        const cellElement = row.insertCell()
        if (figures[index]) cellElement.className = 'figure'
        cellElement.append(cell)
      }
      return row
    }),
  )
  const empty = document.querySelector(`[data-part="${id}-none"]`)
  if (!(empty instanceof HTMLElement)) return
  empty.hidden = rows.length > 0
  table.hidden = rows.length === 0
  say(empty, none)
}

/** @param {import('../../api/wire.ts').PipelineAnswer} pipeline */
function showPipeline(pipeline) {
  setServerClock(pipeline.at)
  showStages(pipeline)
  const { doors, log, limits, unknown, consumers } = pipeline
  setNumber('mqtt', orDash(doors?.mqtt, formatCount))
  setNumber('gateway', orDash(doors?.gateway, formatCount))
  setNumber('viewers', formatCount(pipeline.viewers))
  setNumber('refused', orDash(pipeline.refused, formatCount))
  setNumber('deadLettered', orDash(pipeline.deadLettered, formatCount))
  setNumber('log', orDash(log?.bytes, formatBytes))
  setNumber('quota', orDash(log?.quotaBytes, formatBytes))
  fill(
    'limits',
    limits.map(({ kind, cause, count }) => [limitText(kind), cause || '–', formatCount(count)]),
    unknown.ingest === null ? 'None since start.' : `Not known here. ${unknown.ingest}`,
  )
  fill(
    'consumers',
    consumers.map(({ group, topic, waitingChunks }) => [group, topic, orDash(waitingChunks, formatCount)]),
    '',
  )
}

let fails = 0
async function pollPipeline() {
  if (!document.hidden) {
    try {
      showPipeline(await (await ask('/v1/pipeline', AbortSignal.timeout(5_000))).json())
      if (!document.getElementById('path')) location.reload()
      fails = 0
      showLink('live')
    } catch {
      fails++
      if (fails > 1) showLink('lost')
    }
    document.body.classList.toggle('stale', fails > staleAfter)
  }
  setTimeout(pollPipeline, everyMs)
}

async function pollSeldom() {
  if (!document.hidden) await Promise.allSettled([showReasons(), showParts()])
  setTimeout(pollSeldom, seldomMs)
}

async function showReasons() {
  /** @type {import('../../api/wire.ts').DeadLetterReasonsAnswer} */
  const { items } = await (await ask('/v1/dead-letters/reasons', AbortSignal.timeout(8_000))).json()
  const rows = items.map(({ reason, count, newestAt }) => {
    const link = document.createElement('a')
    link.href = `/dead-letters?reason=${encodeURIComponent(reason)}`
    link.textContent = reason
    const age = ageElement(newestAt)
    age.dataset.ago = ''
    return [link, formatCount(count), age]
  })
  fill('reasons', rows, 'None: everything that arrived could be used.')
}

async function showParts() {
  // Not ready is an answer too.
  const response = await fetch('/readyz', { signal: AbortSignal.timeout(8_000) })
  /** @type {import('../../api/wire.ts').ReadyAnswer} */
  const { parts } = await response.json()
  const rows = Object.entries(parts).map(([name, { state, detail, process }]) => {
    const said = document.createElement('span')
    said.className = 'state'
    said.dataset.state = state
    const dot = document.createElement('span')
    dot.className = 'dot'
    dot.setAttribute('aria-hidden', 'true')
    said.append(dot, ` ${detail === undefined ? state : `${state}: ${detail}`}`)
    return [name, said, process]
  })
  fill('parts', rows, '')
}

void pollPipeline()
setTimeout(pollSeldom, seldomMs)
