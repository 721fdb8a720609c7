// `/devices/{device}`: one chart a metric on one axis of time, complete from the server, live once its script runs.
import type { AnomalyAnswer, DeviceDetailAnswer, ReadingAnswer, SeriesAnswer } from '../api/wire.ts'
import type { Answered } from './ask.ts'
import type { Assets } from './assets.ts'
import { CardTemplate, ChartCard, minuteText } from './chart-card.tsx'
import { liveRange, newestReading, rangeAround, type ShownRange } from './device-range.ts'
import { formatAge, ranges } from './format.ts'
import { Found } from './found.tsx'
import { Age, attribute, Gaps, Notice, Page } from './layout.tsx'

/** Charts that a page draws at once; the other metrics are listed and shown on demand. */
export const chartsMax = 12
/** Anomalies that are listed, wherever in time. */
export const foundMax = 5

export interface TextHistory {
  readonly metric: string
  readonly items: readonly ReadingAnswer[]
}

interface DevicePageProperties {
  readonly assets: Assets
  readonly device: DeviceDetailAnswer
  readonly range: ShownRange
  readonly series: Answered<SeriesAnswer>
  /** Of this range, newest first. */
  readonly anomalies: readonly AnomalyAnswer[]
  /** The newest of all, wherever in time. */
  readonly found: readonly AnomalyAnswer[]
  readonly metrics: readonly string[]
  readonly metricsLeft: number
  /** All were asked for, however many. */
  readonly drawsAll: boolean
  readonly texts: readonly TextHistory[]
  readonly now: number
}

export function DevicePage({
  assets,
  device,
  range,
  series,
  anomalies,
  found,
  metrics,
  metricsLeft,
  drawsAll,
  texts,
  now,
}: DevicePageProperties): JSX.Element {
  const newest = newestReading(device)
  const answer = series.ok ? series.value : undefined
  const empty = answer?.series.every(({ observedAt }) => observedAt.length === 0)
  return (
    <Page assets={assets} title={`${device.device} · Weir`} charts scripts={['device.js']}>
      <div
        id="device"
        data-device={attribute(device.device)}
        data-range={range.kind === 'live' ? range.name : ''}
        data-from={range.from}
        data-to={range.to}
        data-newest-at={newest ? newest.observedAt : 0}
        data-now={now}
        data-metrics={attribute(JSON.stringify(metrics))}
      >
        <div class="device-head">
          <h1>
            <span
              class="dot"
              id="online"
              data-online={String(device.online)}
              role="img"
              aria-label={device.online ? 'online' : 'silent'}
            />
            <span safe>{device.device}</span>
          </h1>
          <p>
            <span id="online-text">{device.online ? 'online' : 'silent'}</span>, heard{' '}
            <span id="heard">
              <Age at={device.lastReceivedAt} now={now} ago />
            </span>{' '}
            · first <Age at={device.firstReceivedAt} now={now} ago />
          </p>
        </div>
        <RangeBar range={range} drawsAll={drawsAll} />
        <div id="notices" aria-live="polite">
          {!series.ok && (
            <Notice
              title="The store is away: history can't be drawn just now"
              detail={`What arrives is kept and appears here live; history comes back by itself. (${series.detail})`}
            />
          )}
          {empty && newest && metrics.length > 0 && <NothingHere newestAt={newest.observedAt} now={now} />}
        </div>
        <Gaps />
        <div id="charts" class="charts">
          {metrics.map((metric, index) => {
            const latest = device.latest.find((each) => each.metric === metric)
            return (
              <ChartCard
                metric={metric}
                latest={
                  latest?.value === undefined ? undefined : { observedAt: latest.observedAt, value: latest.value }
                }
                series={answer?.series.find((each) => each.metric === metric)}
                anomalies={anomalies.filter((each) => each.metric === metric)}
                resolution={answer?.resolution ?? 'raw'}
                source={answer?.source ?? 'raw'}
                from={range.from}
                to={range.to}
                now={now}
                colour={index}
              />
            )
          })}
        </div>
        {metricsLeft > 0 && (
          <p class="aside">
            {String(metricsLeft)} more metrics:{' '}
            <a href={attribute(`?${rangeQuery(range)}&metrics=all`)} data-part="all">
              draw them all
            </a>
          </p>
        )}
        <CardTemplate />
        <Found anomalies={found} max={foundMax} ofFleet={false} title="Found lately" />
        <div id="texts">
          {texts.map((history) => (
            <TextTable history={history} now={now} />
          ))}
        </div>
        {metrics.length === 0 && texts.length === 0 && (
          <p class="none" id="nothing-yet">
            This device has not sent a reading that could be used yet. What it sends appears here.
          </p>
        )}
        <TextTemplate />
      </div>
    </Page>
  )
}

function rangeQuery(range: ShownRange): string {
  return range.kind === 'live' ? `range=${range.name}` : `from=${range.from}&to=${range.to}`
}

function RangeBar({ range, drawsAll }: { range: ShownRange; drawsAll: boolean }): JSX.Element {
  return (
    <div class="ranges">
      <nav class="segments" aria-label="Range">
        {ranges.map(({ name, label }) => (
          <a
            href={attribute(`?range=${name}${drawsAll ? '&metrics=all' : ''}`)}
            data-range={name}
            aria-current={range.kind === 'live' && range.name === name ? 'true' : undefined}
          >
            {label}
          </a>
        ))}
      </nav>
      <p class="shown" id="shown">
        <span id="shown-text" safe>
          {`${minuteText(range.from)} – ${range.kind === 'live' ? 'now' : minuteText(range.to)} UTC`}
        </span>
      </p>
      <button type="button" class="live" id="live" hidden aria-pressed={range.kind === 'live' ? 'true' : 'false'}>
        <span class="pulse" aria-hidden="true" />
        Live
      </button>
      <button type="button" class="quiet" id="back" hidden>
        Back
      </button>
    </div>
  )
}

/** Not a dead end: offers the shortest range that has the newest reading in it. */
function NothingHere({ newestAt, now }: { newestAt: number; now: number }): JSX.Element {
  const longest = ranges.at(-1)!
  const there = now - newestAt > longest.ms ? rangeAround(newestAt, newestAt) : liveRange(now, now - newestAt)
  const href = there.kind === 'live' ? `?range=${there.name}` : `?from=${there.from}&to=${there.to}`
  const label = there.kind === 'live' ? `Show ${ranges.find(({ name }) => name === there.name)!.label}` : 'Go there'
  return (
    <div class="notice note" id="nothing-here">
      <strong>No readings in this range.</strong>
      <p>
        The newest is <span safe>{formatAge(now - newestAt)}</span> old.{' '}
        <a href={attribute(href)} data-go={attribute(href)} safe>
          {label}
        </a>
      </p>
    </div>
  )
}

export function TextTable({ history, now }: { history: TextHistory; now: number }): JSX.Element {
  return (
    <section class="panel text" data-metric={attribute(history.metric)} aria-label={attribute(history.metric)}>
      <h2 data-part="name" safe>
        {history.metric}
      </h2>
      <table>
        <thead class="unseen">
          <tr>
            <th scope="col">Age</th>
            <th scope="col">Text</th>
          </tr>
        </thead>
        <tbody data-part="rows">
          {history.items.map((reading) => (
            <tr data-observed-at={reading.observedAt}>
              <td class="heard">
                <Age at={reading.observedAt} now={now} ago />
              </td>
              <td safe>{reading.text ?? ''}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  )
}

function TextTemplate(): JSX.Element {
  return (
    <template id="text">
      <TextTable history={{ metric: '', items: [] }} now={0} />
    </template>
  )
}

export function UnknownDevice({
  assets,
  name,
  isName,
  mqtt,
  needsToken,
}: {
  assets: Assets
  name: string
  isName: boolean
  mqtt: URL
  needsToken: boolean
}): JSX.Element {
  const registering = needsToken ? `TOKEN=$(npx weir device add ${name} | head -n 1)\n` : ''
  const login = needsToken ? ` -u ${name} -P "$TOKEN"` : ''
  const publishing = `mosquitto_pub -h ${mqtt.hostname} -p ${mqtt.port || '1883'}${login} -q 1 -t 'devices/${name}/telemetry' -m '{"temperature": 71.3}'`
  return (
    <Page assets={assets} title="Unknown device · Weir" scripts={[isName ? 'unknown-device.js' : 'plain.js']}>
      <section class="panel lost" id="unknown-device" data-device={attribute(name)}>
        <h1>
          No device <q safe>{name}</q> has been heard of
        </h1>
        {isName ? (
          <>
            <p>
              A device appears with its first reading;{' '}
              {needsToken ? 'it shows a token to send one' : 'it does not have to be registered'}. To send one under
              this name (this page then becomes its own):
            </p>
            <pre tabindex="0">
              <code safe>{registering + publishing}</code>
            </pre>
          </>
        ) : (
          <p>
            It could not be one either: names have 1 to 128 of the characters <code>A-Z a-z 0-9 . _ : - @</code>.
          </p>
        )}
        <p>
          <a href={attribute(`/?search=${encodeURIComponent(name.slice(0, 128))}`)}>Search the fleet</a> or go to the{' '}
          <a href="/">overview</a>.
        </p>
      </section>
    </Page>
  )
}

export function DeviceAway({ assets, name, detail }: { assets: Assets; name: string; detail: string }): JSX.Element {
  return (
    <Page assets={assets} title={`${name} · Weir`} scripts={['plain.js']}>
      <h1 safe>{name}</h1>
      <Notice title="This device can't be looked up just now" detail={`${detail} Load the page again in a moment.`} />
    </Page>
  )
}
