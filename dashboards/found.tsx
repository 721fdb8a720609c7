// What was found last, each with its sentence and a step away from where it is: most lie outside of what is shown. Goes on live (assets/found.js).
import type { AnomalyAnswer } from '../api/wire.ts'
import { minuteText } from './chart-card.tsx'
import { aroundQuery, deviceHref, newestOfEach, nothingFoundText } from './format.ts'
import { attribute } from './layout.tsx'

interface FoundProperties {
  /** Newest first; undefined: not known now. */
  readonly anomalies: readonly AnomalyAnswer[] | undefined
  readonly max: number
  /** Of a fleet: each says whose it is. */
  readonly ofFleet: boolean
  readonly title: string
}

export function Found({ anomalies: known, max, ofFleet, title }: FoundProperties): JSX.Element {
  const anomalies = known ?? []
  const isEmpty = anomalies.length === 0
  return (
    <section
      class={`panel found${ofFleet ? ' of-fleet' : ''}`}
      id="found"
      aria-labelledby="found-title"
      hidden={isEmpty && !ofFleet}
    >
      <h2 id="found-title">{title}</h2>
      <p class="none" data-part="none" hidden={!isEmpty}>
        {known
          ? nothingFoundText
          : 'What was found can’t be asked for now: it comes by itself. What is found meanwhile shows here.'}
      </p>
      <ul data-max={String(max)} data-fleet={String(ofFleet)} aria-live="polite">
        {newestOfEach(anomalies, max).map(({ id, device, metric, observedAt, explanation }) => {
          const href = `${deviceHref(device)}?${aroundQuery(observedAt)}`
          return (
            <li data-id={attribute(id)} data-observed-at={observedAt}>
              <a href={attribute(href)} data-go={ofFleet ? undefined : attribute(href)} data-at={observedAt} safe>
                {minuteText(observedAt)}
              </a>{' '}
              <b safe>{ofFleet ? `${device} ${metric}` : metric}</b> <span safe>{explanation}</span>
            </li>
          )
        })}
      </ul>
    </section>
  )
}
