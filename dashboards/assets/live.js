// One live subscription a page, over server-sent events. It resumes where it was: the browser sends Last-Event-ID by itself, and after a
// connection that it gave up we ask with `since`. A page that nobody looks at lets its connection go (browsers allow six to one server).
import { ask, showLink } from './page.js'

/** @typedef {{ device: string, metric: string, observedAt: number, value?: number, text?: string }} LiveReading */
/**
 * @typedef {object} LiveHandlers
 * @property {(items: LiveReading[]) => void} readings in the order they came; revisions too
 * @property {() => void} [opened] each time the connection stands (again): what is older has to be asked for
 * @property {(anomaly: import('../../api/wire.ts').AnomalyAnswer) => void} [anomaly] one was found
 * @property {() => void} [gap] readings are missing between what was sent
 */

const hiddenMsMax = 30_000

/** @param {() => string} query parameters of the subscription, asked for at each new connection @param {LiveHandlers} handlers */
export function openLive(query, handlers) {
  /** @type {EventSource | undefined} */
  let source
  let cursor = ''
  let retryMs = 500
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer

  function connect() {
    clearTimeout(timer)
    source?.close()
    const parameters = new URLSearchParams(query())
    if (cursor) parameters.set('since', cursor)
    const opened = new EventSource(`/v1/live?${parameters}`)
    source = opened
    opened.onopen = () => {
      retryMs = 500
      showLink('live')
      handlers.opened?.()
    }
    opened.onerror = () => {
      if (source !== opened) return
      showLink('lost')
      // EventSource tries again by itself unless the server answered with an error.
      if (opened.readyState !== EventSource.CLOSED) return
      later()
      // An EventSource does not say why: where the session is over, this leads to the way in.
      ask('/v1/devices?limit=1').catch(() => {})
    }
    opened.addEventListener('readings', (event) => {
      cursor = event.lastEventId || cursor
      handlers.readings(JSON.parse(event.data).items)
    })
    opened.addEventListener('revision', (event) => {
      cursor = event.lastEventId || cursor
      handlers.readings([JSON.parse(event.data)])
    })
    opened.addEventListener('anomaly', (event) => handlers.anomaly?.(JSON.parse(event.data)))
    opened.addEventListener('gap', (event) => {
      cursor = event.lastEventId || cursor
      handlers.gap?.()
    })
    opened.addEventListener('caught-up', (event) => {
      cursor = event.lastEventId || JSON.parse(event.data).cursor || cursor
    })
    opened.addEventListener('bye', (event) => {
      cursor = JSON.parse(event.data).cursor || cursor
      opened.close()
      showLink('lost')
      later()
    })
  }

  function later() {
    clearTimeout(timer)
    timer = setTimeout(connect, retryMs * (0.75 + Math.random() / 2))
    retryMs = Math.min(retryMs * 2, 8_000)
  }

  function close() {
    clearTimeout(timer)
    source?.close()
    source = undefined
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let hiding
  document.addEventListener('visibilitychange', () => {
    clearTimeout(hiding)
    if (document.hidden) {
      hiding = setTimeout(() => {
        close()
        showLink('paused')
      }, hiddenMsMax)
    } else if (!source) {
      // What was missed is asked for as history, not replayed: a tab may have slept for days.
      cursor = ''
      connect()
    }
  })
  window.addEventListener('offline', () => {
    if (!source) return
    close()
    showLink('lost')
  })
  window.addEventListener('online', () => {
    if (!source) connect()
  })
  // Leaving into the back-forward cache needs the connection closed.
  window.addEventListener('pagehide', close)
  window.addEventListener('pageshow', (event) => {
    if (event.persisted) connect()
  })

  showLink('waiting')
  connect()
  return { reconnect: connect, close }
}
