// The first five minutes: copies lines, listens to everything, and turns into the first device's chart when something is heard.
import { deviceHref, formatNumber } from './format.js'
import { openLive } from './live.js'
import { ask, byId, say } from './page.js'
import { createView } from './view.js'

for (const button of document.querySelectorAll('button[data-copy]')) {
  if (!(button instanceof HTMLButtonElement) || !navigator.clipboard) continue
  button.hidden = false
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(byId(button.dataset.copy ?? '').textContent?.trim() ?? '')
    say(button, 'Copied')
    setTimeout(() => say(button, 'Copy'), 2_000)
  })
}

say(byId('heard-detail'), 'What arrives is shown here at once, and becomes a chart.')

/** @type {ReturnType<typeof createView> | undefined} */
let view
let device = ''

openLive(() => new URLSearchParams(device ? { mode: 'every', device } : { mode: 'every' }).toString(), {
  readings(items) {
    const first = items[0]
    if (!first) return
    if (!view) turnInto(first)
    view?.readings(items)
  },
  revision: (item) => view?.revision(item),
  opened: () => void view?.load(),
  gap: (gap) => view?.gap(gap),
})

/** @param {import('./live.js').LiveReading} first */
function turnInto(first) {
  device = first.device
  const value = first.value === undefined ? (first.text ?? '') : formatNumber(first.value)
  say(byId('heard'), `Heard ${device}: ${first.metric} ${value}`)
  const link = document.createElement('a')
  link.href = deviceHref(device)
  link.textContent = `Open ${device}`
  const overview = document.createElement('a')
  overview.href = '/'
  overview.textContent = 'go to the overview'
  byId('heard-detail').replaceChildren('Kept, stored and shown. ', link, ' or ', overview, '.')
  view = createView({
    device,
    host: byId('charts'),
    texts: null,
    shown: { kind: 'live', ms: 900_000 },
    moves: { zoom() {}, pan() {}, back() {} },
    loaded() {},
    failed() {},
  })
  document.title = `Weir · ${device}`
}

/* Says when something came that could not be used, and why: silence would leave its sender guessing. */

let deadLettered = -1
async function pollPipeline() {
  if (!view && !document.hidden) {
    try {
      /** @type {import('../../api/wire.ts').PipelineAnswer} */
      const pipeline = await (await ask('/v1/pipeline')).json()
      const now = pipeline.deadLettered ?? -1
      if (deadLettered >= 0 && now > deadLettered) await sayWhy()
      deadLettered = now
    } catch {
      // The mark in the header says that the server is away.
    }
  }
  setTimeout(pollPipeline, 1_500)
}

async function sayWhy() {
  say(byId('heard-detail'), 'A payload arrived that could not be used; its bytes are kept as a dead letter.')
  /** @type {import('../../api/wire.ts').DeadLettersAnswer} */
  const { items } = await (await ask('/v1/dead-letters?limit=1')).json()
  const letter = items[0]
  if (letter && !view) say(byId('heard-detail'), `Heard ${letter.device}, but could not use it: ${letter.detail}`)
}
void pollPipeline()
