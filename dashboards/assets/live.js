// One live subscription a page, resumable: over the WebSocket of the live port, or, where that can't be reached, over server-sent events. Both hand
// out the same cursors, so whichever comes next goes on where the last one ended. A page that nobody looks at lets its connection go.
import { ask, showLink } from './page.js'

/** @typedef {{ device: string, metric: string, observedAt: number, value?: number, text?: string }} LiveReading */
/** @typedef {LiveReading & { resolution?: string, from?: number, to?: number }} LiveRevision */
/** @typedef {{ cause: string, from: number, to: number }} LiveGap */
/**
 * @typedef {object} LiveHandlers
 * @property {(items: LiveReading[]) => void} readings in the order they came
 * @property {(revision: LiveRevision) => void} [revision] changes what was sent; default: taken as a reading
 * @property {() => void} [opened] each time the connection stands (again): what is not in the stream has to be asked for
 * @property {() => void} [caughtUp] from here on the stream leaves nothing out
 * @property {(anomaly: import('../../api/wire.ts').AnomalyAnswer) => void} [anomaly] one was found
 * @property {(gap: LiveGap) => void} [gap] readings between these instants were not sent
 */
/** What a transport tells. @typedef {{ opened(): void, frame(type: string, cursor: string, data: any): void, lost(): void }} Hearer */
/** @typedef {{ name: 'websocket' | 'sse', close(): void }} Connection */

const hiddenMsMax = 30_000
/** A page that slept for longer asks for history instead of having it replayed. */
const replayMsMax = 300_000
/** Server-sent events are tried too when the WebSocket takes so long; the first to stand is taken. */
const socketAloneMs = 1_500
const openMsMax = 10_000
/** On server-sent events, of which a browser allows few at once, the WebSocket is tried again so often. */
const probeEveryMs = 30_000
/** A connection that says nothing for so long may be dead without anybody having been told. */
const quietMsMax = 45_000
/** So many fruitless connections with one cursor: the server can't make use of it any more. */
const fruitlessMax = 4

/** A page that came over TLS may open no socket without (it would throw): it lives on server-sent events. */
const liveAddress = location.protocol === 'https:' ? '' : (document.documentElement.dataset.live ?? '')

/** @param {string} address @param {URLSearchParams} parameters @param {Hearer} hearer @returns {Connection} */
function openSocket(address, parameters, hearer) {
  const socket = new WebSocket(`${address}/v1/live?${parameters}`)
  const tooLate = setTimeout(() => socket.close(), openMsMax)
  let isDone = false
  const lost = () => {
    if (isDone) return
    isDone = true
    clearTimeout(tooLate)
    hearer.lost()
  }
  socket.onopen = () => {
    clearTimeout(tooLate)
    if (!isDone) hearer.opened()
  }
  socket.onerror = lost
  socket.onclose = lost
  socket.onmessage = ({ data }) => {
    if (isDone || typeof data !== 'string') return
    const { type, cursor, ...rest } = JSON.parse(data)
    hearer.frame(type, cursor ?? '', rest)
  }
  return {
    name: 'websocket',
    close() {
      isDone = true
      clearTimeout(tooLate)
      socket.close()
    },
  }
}

const eventNames = ['readings', 'revision', 'anomaly', 'gap', 'caught-up', 'bye']

/** @param {URLSearchParams} parameters @param {Hearer} hearer @returns {Connection} */
function openEvents(parameters, hearer) {
  const source = new EventSource(`/v1/live?${parameters}`)
  let isDone = false
  const close = () => {
    isDone = true
    source.close()
  }
  source.onopen = () => {
    if (!isDone) hearer.opened()
  }
  source.onerror = () => {
    if (isDone) return
    // It would try again by itself; which way to try is decided elsewhere.
    close()
    hearer.lost()
  }
  for (const name of eventNames) {
    source.addEventListener(name, (event) => {
      if (isDone) return
      const { cursor, ...rest } = JSON.parse(event.data)
      // An event without an id keeps the last one's: what has no cursor moves nobody on.
      hearer.frame(name, cursor ?? (name === 'anomaly' ? '' : event.lastEventId), rest)
    })
  }
  return { name: 'sse', close }
}

/** @param {() => string} query parameters of the subscription, asked for at each new connection @param {LiveHandlers} handlers */
export function openLive(query, handlers) {
  /** @type {Connection | undefined} */
  let current
  /** Under way; the first to stand is taken. @type {Set<Connection>} */
  const racing = new Set()
  let cursor = ''
  let retryMs = 500
  let heardAt = Date.now()
  let fruitless = 0
  let hiddenAt = 0
  /** Sockets that stood and were lost before they had said anything: something on the way takes them and does not pass them on. */
  let emptySockets = 0
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let second
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let probing

  function parameters() {
    const asked = new URLSearchParams(query())
    if (cursor) asked.set('since', cursor)
    return asked
  }

  function connect() {
    close()
    const asked = parameters()
    const trySocket = liveAddress !== '' && emptySockets < 2
    const begin = (/** @type {'websocket' | 'sse'} */ name) => {
      /** @type {Connection | undefined} */
      let mine
      let hasSpoken = false
      /** @type {Hearer} */
      const hearer = {
        opened() {
          if (mine) take(mine)
        },
        frame(type, at, data) {
          if (mine !== current) return
          hasSpoken = true
          if (name === 'websocket') emptySockets = 0
          hear(type, at, data)
        },
        lost() {
          if (mine && racing.delete(mine)) {
            if (name === 'websocket') beginEvents()
            if (racing.size === 0) later()
            return
          }
          if (mine !== current) return
          if (name === 'websocket' && !hasSpoken) emptySockets++
          current = undefined
          later()
        },
      }
      try {
        mine = name === 'websocket' ? openSocket(liveAddress, asked, hearer) : openEvents(asked, hearer)
        racing.add(mine)
      } catch {
        // A page that came over TLS may not open a plain socket.
        if (name === 'websocket') emptySockets = 2
      }
    }
    let eventsBegun = false
    const beginEvents = () => {
      clearTimeout(second)
      if (eventsBegun || current) return
      eventsBegun = true
      begin('sse')
    }
    if (trySocket) {
      begin('websocket')
      second = setTimeout(beginEvents, socketAloneMs)
      if (racing.size === 0) beginEvents()
    } else beginEvents()
  }

  /** @param {Connection} connection */
  function take(connection) {
    if (!racing.delete(connection)) return
    clearTimeout(second)
    for (const other of racing) other.close()
    racing.clear()
    current = connection
    heardAt = Date.now()
    showLink('live', connection.name)
    clearInterval(probing)
    if (connection.name === 'sse' && liveAddress !== '') probing = setInterval(probe, probeEveryMs)
    handlers.opened?.()
  }

  /** Whether the WebSocket can be had again; only then the connection changes over, at the cursor where it stands. */
  function probe() {
    if (document.hidden || current?.name !== 'sse') return
    /** @type {Connection | undefined} */
    let mine
    const end = () => {
      clearTimeout(tooLate)
      mine?.close()
    }
    const tooLate = setTimeout(end, openMsMax)
    const asked = new URLSearchParams(query())
    asked.delete('since')
    try {
      mine = openSocket(liveAddress, asked, {
        opened() {},
        frame() {
          end()
          emptySockets = 0
          if (current?.name === 'sse') connect()
        },
        lost: end,
      })
    } catch {
      clearInterval(probing)
    }
  }

  /** @param {string} type @param {string} at @param {any} data */
  function hear(type, at, data) {
    const before = heardAt
    heardAt = Date.now()
    retryMs = 500
    fruitless = 0
    if (at) cursor = at
    if (type === 'readings') handlers.readings(data.items)
    else if (type === 'revision') (handlers.revision ?? ((revision) => handlers.readings([revision])))(data)
    else if (type === 'caught-up') handlers.caughtUp?.()
    else if (type === 'anomaly') handlers.anomaly?.(data.anomaly ?? data)
    else if (type === 'gap' && data.cause !== 'anomalies-away') {
      // Anomalies are asked for with each connection.
      handlers.gap?.({ cause: String(data.cause), from: data.from ?? before, to: data.to ?? heardAt })
    } else if (type === 'bye') {
      close()
      later()
    }
  }

  function later() {
    clearTimeout(timer)
    showLink('lost')
    fruitless++
    // No transport says why it ended: where the session is over, this leads to the way in.
    if (fruitless % fruitlessMax === 1) ask('/v1/devices?limit=1').catch(() => {})
    if (cursor && fruitless > fruitlessMax && fruitless % fruitlessMax === 1) void doubtCursor()
    timer = setTimeout(connect, retryMs * (0.75 + Math.random() / 2))
    retryMs = Math.min(retryMs * 2, 4_000)
  }

  /** A server that is well and takes no connection with our cursor does not know it: what is missing is declared. */
  async function doubtCursor() {
    const isWell = await fetch('/healthz').then(
      ({ ok }) => ok,
      () => false,
    )
    if (!isWell || current || !cursor) return
    cursor = ''
    handlers.gap?.({ cause: 'unknown-cursor', from: heardAt, to: Date.now() })
  }

  function close() {
    clearTimeout(timer)
    clearTimeout(second)
    clearInterval(probing)
    for (const each of racing) each.close()
    racing.clear()
    current?.close()
    current = undefined
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let hiding
  document.addEventListener('visibilitychange', () => {
    clearTimeout(hiding)
    if (document.hidden) {
      hiding = setTimeout(() => {
        hiddenAt = Date.now()
        close()
        showLink('paused')
      }, hiddenMsMax)
    } else if (hiddenAt > 0) {
      // A tab may have slept for days: history is asked for then, with what the table has.
      if (Date.now() - hiddenAt > replayMsMax) cursor = ''
      hiddenAt = 0
      connect()
    }
  })
  window.addEventListener('offline', () => {
    if (hiddenAt > 0) return
    close()
    showLink('lost')
  })
  window.addEventListener('online', () => {
    if (hiddenAt === 0 && !current) connect()
  })
  // Leaving into the back-forward cache needs the connection closed.
  window.addEventListener('pagehide', close)
  window.addEventListener('pageshow', (event) => {
    if (event.persisted) connect()
  })
  setInterval(() => {
    if (document.hidden || !current || Date.now() - heardAt < quietMsMax) return
    heardAt = Date.now()
    connect()
  }, 5_000)

  showLink('waiting')
  connect()
  return { reconnect: connect, close }
}
