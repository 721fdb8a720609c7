// The way of a reading, stage by stage: received → durable → stored → seen, each with its rate and how far behind it is, red where it stands still.
import type { PipelineAnswer } from '../api/wire.ts'
import { formatCount, formatDuration, formatRate } from './format.ts'

export const stageNames = ['received', 'durable', 'stored', 'seen'] as const
type StageName = (typeof stageNames)[number]
type Stage = PipelineAnswer['stages'][StageName]

const meanings: Readonly<Record<StageName, string>> = {
  received: 'taken in from devices',
  durable: 'safe on disk, acknowledged',
  stored: 'in the table, answered by every query',
  seen: 'sent to open pages',
}

/** Behind by more than this, a stage is said to be late, and to stand still when nothing comes through it either. */
export const lateMs = 5_000

export function stageState(stage: Stage): 'flows' | 'rests' | 'late' | 'stands' {
  if (stage.lagMs > lateMs) return stage.perSecond > 0 ? 'late' : 'stands'
  return stage.perSecond > 0 ? 'flows' : 'rests'
}

export function lagText(stage: Stage): string {
  const state = stageState(stage)
  if (state === 'stands') return `stands still for ${formatDuration(stage.lagMs)}`
  if (state === 'late') return `${formatDuration(stage.lagMs)} behind`
  return stage.lagMs > 0 ? `${formatDuration(stage.lagMs)} behind` : 'nothing waits'
}

export function PathStrip({ pipeline }: { pipeline: PipelineAnswer }): JSX.Element {
  return (
    <section class="panel" aria-labelledby="path-title">
      <h2 id="path-title">Path of a reading</h2>
      <ol class="path" id="path">
        {stageNames.map((name) => {
          const stage = pipeline.stages[name]
          return (
            <li data-stage={name} data-state={stageState(stage)}>
              <h3>
                <span class="dot" aria-hidden="true" />
                {name}
              </h3>
              <p class="meaning">{meanings[name]}</p>
              <p class="rate">
                <b data-part="rate" safe>
                  {formatRate(stage.perSecond)}
                </b>{' '}
                <span class="unit">/s</span>
              </p>
              <p class="lag" data-part="lag" safe>
                {lagText(stage)}
              </p>
              <p class="total">
                <span data-part="total" safe>
                  {formatCount(stage.total)}
                </span>{' '}
                since start
              </p>
            </li>
          )
        })}
      </ol>
    </section>
  )
}
