// One metric's uPlot: mean (or value) as a line, least to most as a band, one crosshair with all other charts of the page. Drag zooms, shift-drag
// pans, double click goes back; the same by keyboard.
import { axisWidth, roomFor, valueLabels } from './axis.js'
import { formatNumber, gapCauseText } from './format.js'
import { localTime, utcTime } from './page.js'

/** What the page does when someone moves in time. All instants in ms.
 * @typedef {{ zoom(from: number, to: number): void, pan(from: number, to: number, done: boolean): void, back(): void }} Moves */

/** An anomaly, as the chart marks it. @typedef {{ observedAt: number, value: number, explanation: string }} Marker */

/** A stretch that the live stream could not send; `filled`: drawn from the table since. @typedef {{ from: number, to: number, cause: string, filled: boolean }} Gap */

const crosshair = 'device'
/** The crosshair this near to a marker reads it out. */
const markerReachPx = 8
const axisFont = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif'
const hour = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' })
const second = new Intl.DateTimeFormat('en-GB', {
  minute: '2-digit',
  second: '2-digit',
  hour: '2-digit',
  hourCycle: 'h23',
})
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' })
const year = new Intl.DateTimeFormat('en-GB', { month: 'short', year: 'numeric' })

/** @param {HTMLElement} host @param {{ moves: Moves, label: string, readout: (text: string) => void, resolution: () => string }} options */
export function createChart(host, { moves, label, readout, resolution }) {
  const style = getComputedStyle(host)
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim()
  const series = () => colour('--series')
  // Six hex digits and an alpha: the canvas takes nothing newer everywhere.
  const band = () => `${series()}40`
  /** The window that the page shows, whatever points there are. */
  let shown = { from: 0, to: 1 }
  /** Drawn in steps. */
  let isHeld = false
  const sloped = uPlot.paths.linear?.()
  const stepped = uPlot.paths.stepped?.({ align: 1 })
  /** @type {import('uplot').Series.PathBuilder} */
  const paths = (plot, index, first, last) => (isHeld ? stepped : sloped)?.(plot, index, first, last) ?? null

  const axis = {
    stroke: () => colour('--ink-3'),
    font: axisFont,
    grid: { stroke: () => colour('--line-soft'), width: 1 },
    ticks: { show: false },
  }
  /** @type {UPlotOptions} */
  const options = {
    width: Math.max(host.clientWidth, 64),
    height: host.clientHeight,
    ms: 1,
    padding: [8, 20, 0, 0],
    legend: { show: false },
    scales: {
      x: { time: true, range: () => [shown.from, shown.to] },
      y: { range: (_plot, min, max) => roomFor(min, max) },
    },
    axes: [
      { ...axis, space: 88, size: 28, values: (_plot, splits, _axis, _space, step) => timeLabels(splits, step) },
      {
        ...axis,
        space: 40,
        size: (_plot, labels) => axisWidth(labels),
        values: (_plot, splits, _axis, _space, step) => valueLabels(splits, step),
      },
    ],
    series: [
      {},
      { label: 'least', paths, width: 0, points: { show: false } },
      { label: 'most', paths, width: 0, points: { show: false } },
      {
        label,
        paths,
        stroke: series,
        width: 1.5,
        points: { show: true, size: 5, width: 0, fill: series, stroke: series, filter: lonePoints },
      },
    ],
    bands: [{ series: [2, 1], fill: band }],
    cursor: {
      y: false,
      points: { size: 8, width: 2, show: (plot, index) => cursorPoint(plot, index) },
      // Only the crosshair is shared: a drag that all charts took part in would zoom once for each of them.
      sync: {
        key: crosshair,
        setSeries: false,
        filters: { pub: (type) => type === 'mousemove' || type === 'mouseleave' },
      },
      drag: { x: true, y: false, setScale: false },
      bind: {
        dblclick: () => () => {
          moves.back()
          return null
        },
        mousedown: (plot, _target, begin) => (event) => {
          if (event.button === 0 && event.shiftKey) startPan(plot, event)
          else begin(event)
          return null
        },
      },
    },
    hooks: {
      setSelect: [
        (plot) => {
          if (plot.select.width < 4) return
          const from = plot.posToVal(plot.select.left, 'x')
          const to = plot.posToVal(plot.select.left + plot.select.width, 'x')
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
          moves.zoom(from, to)
        },
      ],
      setCursor: [(plot) => readout(readoutText(plot))],
      drawAxes: [(plot) => drawGaps(plot, gaps, colour('--late'))],
      draw: [(plot) => drawMarkers(plot, markers, colour('--bad'))],
    },
  }

  /** @type {readonly Marker[]} */
  let markers = []
  /** @type {readonly Gap[]} */
  let gaps = []

  // What the server drew stays until there is something to draw in its place; until then the plot is there and not seen (weir.css).
  const drawn = [...host.children]
  /** @type {[number[], (number | null)[], (number | null)[], (number | null)[]]} */
  let data = [[], [], [], []]
  const plot = new uPlot(options, data, host)
  const none = document.createElement('p')
  none.className = 'none'
  none.textContent = 'No readings in this range.'
  none.hidden = true
  host.append(none)

  /** @param {UPlot} target @param {MouseEvent} down */
  function startPan(target, down) {
    const from = shown.from
    const to = shown.to
    const perPixel = (to - from) / target.over.clientWidth
    let moved = 0
    /** @param {MouseEvent} move */
    const onMove = (move) => {
      moved = (down.clientX - move.clientX) * perPixel
      moves.pan(from + moved, to + moved, false)
    }
    const onUp = () => {
      document.removeEventListener('mousemove', onMove)
      document.removeEventListener('mouseup', onUp)
      if (moved !== 0) moves.pan(from + moved, to + moved, true)
    }
    document.addEventListener('mousemove', onMove)
    document.addEventListener('mouseup', onUp)
  }

  /** @param {UPlot} target */
  function readoutText(target) {
    const index = target.cursor.idx
    const left = target.cursor.left ?? -1
    if (left < 0) return ''
    const under = target.posToVal(left, 'x')
    const gap = gaps.find(({ from, to, filled }) => !filled && under >= from && under <= to)
    if (gap) return `not sent live: ${gapCauseText(gap.cause)}`
    if (index === null || index === undefined) return ''
    const at = data[0][index]
    const value = data[3][index]
    if (at === undefined || value === null || value === undefined) return ''
    const low = data[1][index]
    const high = data[2][index]
    const between =
      low === null || high === null || low === undefined || high === undefined
        ? ''
        : ` (${formatNumber(low)} to ${formatNumber(high)})`
    const near = markers.find(({ observedAt }) => Math.abs(target.valToPos(observedAt, 'x') - left) < markerReachPx)
    const said = near ? ` · ${near.explanation}` : ''
    return `${formatNumber(value)}${between} · ${localTime(at)} · ${utcTime(at)}${said}`
  }

  host.addEventListener('keydown', (event) => {
    const span = shown.to - shown.from
    const middle = (shown.from + shown.to) / 2
    if (event.key === 'ArrowLeft') moves.pan(shown.from - span / 4, shown.to - span / 4, true)
    else if (event.key === 'ArrowRight') moves.pan(shown.from + span / 4, shown.to + span / 4, true)
    else if (event.key === '+' || event.key === '=') moves.zoom(middle - span / 4, middle + span / 4)
    else if (event.key === '-') moves.zoom(middle - span, middle + span)
    else if (event.key === 'Escape' || event.key === 'Backspace') moves.back()
    else return
    event.preventDefault()
  })
  const resized = new ResizeObserver(() => {
    if (host.clientWidth > 0 && host.clientWidth !== plot.width)
      plot.setSize({ width: host.clientWidth, height: host.clientHeight })
  })
  resized.observe(host)

  return {
    /** `isWhole`: that there is nothing may be said.
     * @param {[number[], (number | null)[], (number | null)[], (number | null)[]]} columns @param {{ from: number, to: number }} window
     * @param {boolean} isWhole @param {boolean} isSwitch */
    show(columns, window, isWhole, isSwitch) {
      for (const element of drawn.splice(0)) element.remove()
      data = columns
      shown = window
      isHeld = isSwitch
      plot.setData(data)
      none.hidden = !isWhole || hasPointWithin(columns[0], window)
      host.dataset.points = String(columns[0].length)
      host.dataset.resolution = resolution()
      host.dataset.line = isHeld ? 'steps' : 'slopes'
      if ((plot.cursor.left ?? -1) >= 0) readout(readoutText(plot))
    },
    /** @param {{ from: number, to: number }} window */
    slide(window) {
      shown = window
      plot.setScale('x', { min: window.from, max: window.to })
    },
    /** Newest first. @param {readonly Marker[]} anomalies */
    mark(anomalies) {
      markers = anomalies
      host.dataset.anomalies = String(anomalies.length)
      plot.redraw(false, false)
    },
    /** @param {readonly Gap[]} declared */
    showGaps(declared) {
      gaps = declared
      host.dataset.gaps = String(declared.length)
      plot.redraw(false, false)
    },
    redraw: () => plot.redraw(true, true),
    remove() {
      resized.disconnect()
      plot.destroy()
    },
  }
}

/** A line down to the reading that was odd, and a ring around it.
 * @param {UPlot} plot @param {readonly Marker[]} markers @param {string} colour */
function drawMarkers(plot, markers, colour) {
  const { ctx, bbox } = plot
  const ratio = devicePixelRatio || 1
  ctx.save()
  ctx.beginPath()
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height)
  ctx.clip()
  ctx.strokeStyle = colour
  ctx.fillStyle = colour
  for (const { observedAt, value } of markers) {
    const x = plot.valToPos(observedAt, 'x', true)
    if (x < bbox.left || x > bbox.left + bbox.width) continue
    const y = Math.min(Math.max(plot.valToPos(value, 'y', true), bbox.top), bbox.top + bbox.height)
    ctx.lineWidth = ratio
    ctx.globalAlpha = 0.45
    ctx.beginPath()
    ctx.moveTo(x, bbox.top)
    ctx.lineTo(x, bbox.top + bbox.height)
    ctx.stroke()
    ctx.globalAlpha = 1
    ctx.lineWidth = 2 * ratio
    ctx.beginPath()
    ctx.arc(x, y, 4.5 * ratio, 0, 2 * Math.PI)
    ctx.stroke()
  }
  ctx.restore()
}

const hatchPx = 7

/** Hatched, under the line; paler once the table has filled it. @param {UPlot} plot @param {readonly Gap[]} gaps @param {string} colour */
function drawGaps(plot, gaps, colour) {
  const { ctx, bbox } = plot
  const ratio = devicePixelRatio || 1
  for (const { from, to, filled } of gaps) {
    const left = Math.max(plot.valToPos(from, 'x', true), bbox.left)
    // A moment is seen too.
    const right = Math.min(Math.max(plot.valToPos(to, 'x', true), left + 3 * ratio), bbox.left + bbox.width)
    if (right <= left) continue
    ctx.save()
    ctx.beginPath()
    ctx.rect(left, bbox.top, right - left, bbox.height)
    ctx.clip()
    ctx.globalAlpha = filled ? 0.25 : 0.7
    ctx.strokeStyle = colour
    ctx.lineWidth = ratio
    ctx.beginPath()
    for (let x = left - bbox.height; x < right; x += hatchPx * ratio) {
      ctx.moveTo(x, bbox.top + bbox.height)
      ctx.lineTo(x + bbox.height, bbox.top)
    }
    ctx.stroke()
    ctx.restore()
  }
}

/** @param {number[]} times @param {{ from: number, to: number }} window */
function hasPointWithin(times, { from, to }) {
  return times.some((at) => at >= from && at <= to)
}

/** @param {number[]} splits @param {number} step */
function timeLabels(splits, step) {
  let before = ''
  return splits.map((at) => {
    const date = new Date(at)
    const month = step >= 26 * 86_400_000
    if (month) return year.format(at)
    const today = day.format(at)
    const midnight = date.getHours() === 0 && date.getMinutes() === 0 && date.getSeconds() === 0
    if (step >= 86_400_000 || midnight) {
      before = today
      return today
    }
    const time = step >= 60_000 ? hour.format(at) : second.format(at)
    // The first label names the day; later ones only when it changes.
    const text = before === today ? time : before === '' ? `${time}` : `${today} ${time}`
    before = today
    return text
  })
}

/** Points without a neighbour, which no line would show. @param {UPlot} plot @param {number} seriesIndex @returns {number[]} */
function lonePoints(plot, seriesIndex) {
  const values = /** @type {(number | null)[]} */ (plot.data[seriesIndex])
  /** @type {number[]} */
  const found = []
  for (let i = 0; i < values.length; i++) {
    if (values[i] === null || values[i] === undefined) continue
    if ((values[i - 1] ?? null) === null && (values[i + 1] ?? null) === null) found.push(i)
  }
  return found
}

/** Only the line has a point under the crosshair, not the edges of its band. @param {UPlot} plot @param {number} index */
function cursorPoint(plot, index) {
  const point = document.createElement('div')
  if (index !== 3) point.hidden = true
  else {
    const colour = getComputedStyle(plot.root).getPropertyValue('--series')
    point.style.background = colour
    point.style.borderColor = colour
  }
  return point
}
