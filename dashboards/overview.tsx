// `/`: how the fleet and the pipeline are, in numbers that move.
import type { AnomalyAnswer, PipelineAnswer } from '../api/wire.ts'
import type { Answered, NotAnswered } from './ask.ts'
import type { Assets } from './assets.ts'
import type { Fleet, FleetQuery } from './fleet.ts'
import { FleetTable } from './fleet-table.tsx'
import { formatCount, formatDuration, orDash, slowestLag } from './format.ts'
import { Found } from './found.tsx'
import { attribute, Gaps, Notice, Page } from './layout.tsx'
import { PathStrip, pathStages } from './path-strip.tsx'
import type { RateHistory } from './rate-history.ts'
import { RateNumber } from './rate-number.tsx'

interface OverviewProperties {
  readonly assets: Assets
  readonly pipeline: Answered<PipelineAnswer>
  readonly fleet: Fleet | NotAnswered
  readonly query: FleetQuery
  readonly rates: RateHistory
  /** Since the day began in UTC: the server does not know the viewer's zone. Undefined: not known. */
  readonly anomaliesToday: number | undefined
  /** The newest, newest first; undefined: not known now. */
  readonly found: readonly AnomalyAnswer[] | undefined
  readonly now: number
}

/** Anomalies that are listed. */
const fleetFoundMax = 3

export function Overview({
  assets,
  pipeline,
  fleet,
  query,
  rates,
  anomaliesToday,
  found,
  now,
}: OverviewProperties): JSX.Element {
  return (
    <Page assets={assets} title="Weir · Overview" here="overview" scripts={['overview.js']}>
      <h1 class="unseen">Overview</h1>
      {pipeline.ok ? (
        <>
          <Numbers pipeline={pipeline.value} rates={rates} anomaliesToday={anomaliesToday} now={now} />
          <PathStrip pipeline={pipeline.value} />
        </>
      ) : (
        <Notice
          title="The pipeline does not say how it is"
          detail={`${pipeline.detail} Readings that were acknowledged are kept all the same; this page tries again by itself.`}
        />
      )}
      <Gaps />
      <Found anomalies={found} max={fleetFoundMax} ofFleet title="Odd readings" />
      <section class="panel" aria-labelledby="fleet-title">
        <div class="panel-head">
          <h2 id="fleet-title">Fleet</h2>
          <search class="search">
            <form method="get" action="/">
              <label class="unseen" for="search">
                Search devices
              </label>
              <input
                id="search"
                name="search"
                type="search"
                value={attribute(query.search)}
                placeholder="Search devices"
                autocomplete="off"
                spellcheck="false"
                maxlength="128"
                aria-keyshortcuts="/"
              />
              <kbd>/</kbd>
            </form>
          </search>
        </div>
        {'ok' in fleet ? (
          // Where the fleet comes to stand once it can be listed.
          <div id="fleet" data-more="true">
            <Notice
              title="The fleet can't be listed now"
              detail={`What arrives is kept all the same; this page tries again by itself. (${fleet.detail})`}
            />
          </div>
        ) : (
          <FleetTable fleet={fleet} query={query} now={now} />
        )}
      </section>
    </Page>
  )
}

function Numbers({
  pipeline,
  rates,
  anomaliesToday,
  now,
}: {
  pipeline: PipelineAnswer
  rates: RateHistory
  anomaliesToday: number | undefined
  now: number
}): JSX.Element {
  const { devices, stages, connections, series, viewers, deadLettered } = pipeline
  const behind = slowestLag(pathStages.map((name) => stages[name]))
  return (
    <section class="numbers" aria-label="Now" id="numbers">
      <RateNumber stages={stages} rates={rates} now={now} />
      <div class="number">
        <h2>Devices online</h2>
        <p class="big">
          <span data-number="online" safe>
            {formatCount(devices.online)}
          </span>{' '}
          <span class="of">
            of{' '}
            <span data-number="devices" safe>
              {formatCount(devices.total)}
            </span>
          </span>
        </p>
        <meter
          data-number="share"
          min="0"
          max={String(Math.max(devices.total, 1))}
          value={String(devices.online)}
          aria-label="Share of devices online"
        />
        <small>
          <span data-number="series" safe>
            {formatCount(series)}
          </span>{' '}
          series
        </small>
      </div>
      <div class="number">
        <h2>Behind</h2>
        <p class="big" data-number="behind" safe>
          {orDash(behind, formatDuration)}
        </p>
        <small>the slowest stage</small>
      </div>
      <div class="number">
        <h2>Anomalies today</h2>
        <p class="big" data-number="anomalies" safe>
          {orDash(anomaliesToday, formatCount)}
        </p>
        <small id="anomalies-since">since midnight (UTC)</small>
      </div>
      <div class="number">
        <h2>Connections</h2>
        <p class="big" data-number="connections" safe>
          {orDash(connections, formatCount)}
        </p>
        <small>
          <span data-number="viewers" safe>
            {formatCount(viewers)}
          </span>{' '}
          watching ·{' '}
          <a href="/dead-letters">
            <span data-number="deadLettered" safe>
              {orDash(deadLettered, formatCount)}
            </span>{' '}
            <span data-number="deadLetteredWord">{deadLettered === 1 ? 'dead letter' : 'dead letters'}</span>
          </a>
        </small>
      </div>
    </section>
  )
}
