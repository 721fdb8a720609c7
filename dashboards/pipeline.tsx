// `/pipeline`: each stage's rate and lag, connections, limits that were hit, dead letters by reason, and the state of each part. What is not known
// here is a dash, with why. Moves by itself (assets/pipeline.js).
import type { DeadLetterReasonsAnswer, PipelineAnswer, ReadyAnswer } from '../api/wire.ts'
import type { Answered } from './ask.ts'
import type { Assets } from './assets.ts'
import { formatBytes, formatCount, limitText, orDash } from './format.ts'
import { Age, attribute, Notice, Page } from './layout.tsx'
import { allStages, PathStrip } from './path-strip.tsx'
import type { RateHistory } from './rate-history.ts'
import { RateNumber } from './rate-number.tsx'

interface PipelineProperties {
  readonly assets: Assets
  readonly pipeline: Answered<PipelineAnswer>
  readonly ready: Answered<ReadyAnswer>
  readonly reasons: Answered<DeadLetterReasonsAnswer>
  readonly rates: RateHistory
  readonly now: number
}

export function PipelinePage({ assets, pipeline, ready, reasons, rates, now }: PipelineProperties): JSX.Element {
  return (
    <Page assets={assets} title="Pipeline · Weir" here="pipeline" scripts={['pipeline.js']}>
      <h1 class="unseen">Pipeline</h1>
      {pipeline.ok ? (
        <>
          <PathStrip pipeline={pipeline.value} stages={allStages} />
          <Connections pipeline={pipeline.value} rates={rates} now={now} />
        </>
      ) : (
        <Notice
          title="The pipeline does not say how it is"
          detail={`${pipeline.detail} Readings that were acknowledged are kept all the same; this page tries again by itself.`}
        />
      )}
      <div class="halves">
        <Limits pipeline={pipeline} />
        <Reasons reasons={reasons} now={now} />
        <Consumers pipeline={pipeline} />
        <Parts ready={ready} />
      </div>
    </Page>
  )
}

function Connections({
  pipeline,
  rates,
  now,
}: {
  pipeline: PipelineAnswer
  rates: RateHistory
  now: number
}): JSX.Element {
  const { doors, viewers, refused, deadLettered, log, stages } = pipeline
  return (
    <section class="numbers of-pipeline" aria-label="Connections" id="numbers">
      <RateNumber stages={stages} rates={rates} now={now} />
      <Figure title="MQTT" number="mqtt" value={orDash(doors?.mqtt, formatCount)} what="connections of devices" />
      <Figure
        title="Gateway"
        number="gateway"
        value={orDash(doors?.gateway, formatCount)}
        what="WebSockets of devices"
      />
      <Figure title="Viewers" number="viewers" value={formatCount(viewers)} what="live subscriptions" />
      <Figure title="Refused" number="refused" value={orDash(refused, formatCount)} what="never acknowledged" />
      <Figure
        title="Dead-lettered"
        number="deadLettered"
        value={orDash(deadLettered, formatCount)}
        what="since start"
      />
      <div class="number">
        <h2>Log</h2>
        <p class="big" data-number="log" safe>
          {orDash(log?.bytes, formatBytes)}
        </p>
        <small>
          of{' '}
          <span data-number="quota" safe>
            {orDash(log?.quotaBytes, formatBytes)}
          </span>
        </small>
      </div>
    </section>
  )
}

function Figure({
  title,
  number,
  value,
  what,
}: {
  title: string
  number: string
  value: string
  what: string
}): JSX.Element {
  return (
    <div class="number">
      <h2 safe>{title}</h2>
      <p class="big" data-number={number} safe>
        {value}
      </p>
      <small safe>{what}</small>
    </div>
  )
}

function Limits({ pipeline }: { pipeline: Answered<PipelineAnswer> }): JSX.Element {
  const limits = pipeline.ok ? pipeline.value.limits : []
  const why = pipeline.ok ? pipeline.value.unknown.ingest : pipeline.detail
  return (
    <section class="panel" aria-labelledby="limits-title">
      <h2 id="limits-title">Limits that were hit</h2>
      <p class="none" data-part="limits-none" hidden={limits.length > 0} safe>
        {why === null ? 'None since start.' : `Not known here. ${why}`}
      </p>
      <table class="facts-table" id="limits" hidden={limits.length === 0}>
        <thead>
          <tr>
            <th scope="col">What</th>
            <th scope="col">Cause</th>
            <th scope="col" class="figure">
              Times
            </th>
          </tr>
        </thead>
        <tbody>
          {limits.map(({ kind, cause, count }) => (
            <tr>
              <td safe>{limitText(kind)}</td>
              <td safe>{cause || '–'}</td>
              <td class="figure" safe>
                {formatCount(count)}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  )
}

function Reasons({ reasons, now }: { reasons: Answered<DeadLetterReasonsAnswer>; now: number }): JSX.Element {
  const items = reasons.ok ? reasons.value.items : []
  return (
    <section class="panel" aria-labelledby="reasons-title">
      <div class="panel-head">
        <h2 id="reasons-title">Dead letters</h2>
        <a href="/dead-letters">Browse</a>
      </div>
      <p class="none" data-part="reasons-none" hidden={items.length > 0} safe>
        {reasons.ok ? 'None: everything that arrived could be used.' : `Not known now. ${reasons.detail}`}
      </p>
      <table class="facts-table" id="reasons" hidden={items.length === 0}>
        <thead>
          <tr>
            <th scope="col">Reason</th>
            <th scope="col" class="figure">
              Kept
            </th>
            <th scope="col" class="figure">
              Newest
            </th>
          </tr>
        </thead>
        <tbody>
          {items.map(({ reason, count, newestAt }) => (
            <tr>
              <td>
                <a href={attribute(`/dead-letters?reason=${encodeURIComponent(reason)}`)} safe>
                  {reason}
                </a>
              </td>
              <td class="figure" safe>
                {formatCount(count)}
              </td>
              <td class="figure">
                <Age at={newestAt} now={now} ago />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  )
}

function Consumers({ pipeline }: { pipeline: Answered<PipelineAnswer> }): JSX.Element {
  const consumers = pipeline.ok ? pipeline.value.consumers : []
  return (
    <section class="panel" aria-labelledby="consumers-title">
      <h2 id="consumers-title">Readers of the log</h2>
      <table class="facts-table" id="consumers">
        <thead>
          <tr>
            <th scope="col">Group</th>
            <th scope="col">Topic</th>
            <th scope="col" class="figure">
              Chunks waiting
            </th>
          </tr>
        </thead>
        <tbody>
          {consumers.map(({ group, topic, waitingChunks }) => (
            <tr>
              <td safe>{group}</td>
              <td safe>{topic}</td>
              <td class="figure" safe>
                {orDash(waitingChunks, formatCount)}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      <p class="aside">
        What the log holds and a group has not settled. Detection settles with each of its snapshots, so a few always
        wait. A dash: the group has not settled anything yet.
      </p>
    </section>
  )
}

function Parts({ ready }: { ready: Answered<ReadyAnswer> }): JSX.Element {
  const parts = ready.ok ? Object.entries(ready.value.parts) : []
  return (
    <section class="panel" aria-labelledby="parts-title">
      <h2 id="parts-title">Parts</h2>
      {!ready.ok && <p class="none" safe>{`Not known now. ${ready.detail}`}</p>}
      <table class="facts-table" id="parts">
        <thead>
          <tr>
            <th scope="col">Part</th>
            <th scope="col">State</th>
            <th scope="col">Process</th>
          </tr>
        </thead>
        <tbody>
          {parts.map(([name, { state, detail, process }]) => (
            <tr>
              <td safe>{name}</td>
              <td>
                <span class="state" data-state={state}>
                  <span class="dot" aria-hidden="true" />{' '}
                  <span safe>{detail === undefined ? state : `${state}: ${detail}`}</span>
                </span>
              </td>
              <td safe>{process}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  )
}
