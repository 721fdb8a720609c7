// The way of a reading, stage by stage, each with its rate and how far behind it is, red where it stands still. What is not known here is a dash.
import type { PipelineAnswer } from '../api/wire.ts'
import { formatCount, formatRate, lagText, orDash, stageState } from './format.ts'
import { attribute } from './layout.tsx'

type StageName = keyof PipelineAnswer['stages']
/** The way to a page; detection goes beside it. */
export const pathStages = ['received', 'durable', 'stored', 'seen'] as const satisfies readonly StageName[]
export const allStages = ['received', 'durable', 'stored', 'detected', 'seen'] as const satisfies readonly StageName[]

const meanings: Readonly<Record<StageName, string>> = {
  received: 'taken in from devices',
  durable: 'safe on disk, acknowledged',
  stored: 'in the table, answered by every query',
  detected: 'looked at by detection',
  seen: 'sent to open pages',
}

/** Which part says how a stage is; the api itself knows what is seen. */
const teller: Readonly<Record<StageName, 'ingest' | 'writer' | 'detector' | undefined>> = {
  received: 'ingest',
  durable: 'ingest',
  stored: 'writer',
  detected: 'detector',
  seen: undefined,
}

export function PathStrip({
  pipeline,
  stages = pathStages,
}: {
  pipeline: PipelineAnswer
  stages?: readonly StageName[]
}): JSX.Element {
  return (
    <section class="panel" aria-labelledby="path-title">
      <h2 id="path-title">Path of a reading</h2>
      <ol class={`path of-${stages.length}`} id="path">
        {stages.map((name) => {
          const stage = pipeline.stages[name]
          const by = teller[name]
          const why = by === undefined ? null : pipeline.unknown[by]
          return (
            <li data-stage={name} data-state={stageState(stage)} data-teller={by ?? ''} title={attribute(why ?? '')}>
              <h3>
                <span class="dot" aria-hidden="true" />
                {name}
              </h3>
              <p class="meaning">{meanings[name]}</p>
              <p class="rate">
                <b data-part="rate" safe>
                  {orDash(stage.perSecond, formatRate)}
                </b>{' '}
                <span class="unit">/s</span>
              </p>
              <p class="lag" data-part="lag" safe>
                {lagText(stage)}
              </p>
              <p class="total">
                <span data-part="total" safe>
                  {orDash(stage.total, formatCount)}
                </span>{' '}
                since start
              </p>
            </li>
          )
        })}
      </ol>
      <Unknown pipeline={pipeline} />
    </section>
  )
}

/** Why there are dashes, in words. */
function Unknown({ pipeline }: { pipeline: PipelineAnswer }): JSX.Element {
  const whys = [...new Set(Object.values(pipeline.unknown).filter((why) => why !== null))]
  return (
    <p class="aside" id="unknown" hidden={whys.length === 0} safe>
      {whys.join(' ')}
    </p>
  )
}
