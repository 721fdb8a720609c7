// `/dead-letters`: what could not be used, by reason and device. Forms and links alone: everything works without scripts.
import type { DeadLetterAnswer, DeadLetterReasonsAnswer, DeadLettersAnswer } from '../api/wire.ts'
import type { Answered, NotAnswered } from './ask.ts'
import type { Assets } from './assets.ts'
import { letterHref, putBackText } from './dead-letter.tsx'
import { formatCount } from './format.ts'
import { Age, attribute, Notice, Page } from './layout.tsx'

export interface DeadLetterFilter {
  readonly reason: string
  readonly device: string
  readonly after: string
}

interface ListProperties {
  readonly assets: Assets
  readonly letters: Answered<DeadLettersAnswer>
  readonly reasons: Answered<DeadLetterReasonsAnswer>
  readonly filter: DeadLetterFilter
  readonly now: number
}

export function DeadLettersPage({ assets, letters, reasons, filter, now }: ListProperties): JSX.Element {
  return (
    <Page assets={assets} title="Dead letters · Weir" here="pipeline" scripts={['dead-letters.js']}>
      <div class="page-head">
        <h1>Dead letters</h1>
        <p>
          What arrived and could not be used. Nothing of it is lost: each is kept with its bytes, why, and where it came
          in, and can be put back.
        </p>
      </div>
      <section class="panel" aria-labelledby="letters-title">
        <div class="panel-head">
          <h2 id="letters-title">Newest first</h2>
          <Filter filter={filter} reasons={reasons} />
        </div>
        <p class="aside" id="newer" role="status" aria-live="polite" />
        {letters.ok ? (
          <List answer={letters.value} filter={filter} now={now} />
        ) : (
          <Notice title="They can't be listed now" detail={awayText(letters)} />
        )}
      </section>
    </Page>
  )
}

/** What is wrong with the question, or what to do. */
function awayText({ status, detail }: NotAnswered): string {
  return status === 400 ? detail : `What is kept stays kept: load the page again in a moment. (${detail})`
}

function Filter({ filter, reasons }: Pick<ListProperties, 'filter' | 'reasons'>): JSX.Element {
  const known = reasons.ok ? reasons.value.items : []
  const isListed = filter.reason === '' || known.some(({ reason }) => reason === filter.reason)
  return (
    <form method="get" action="/dead-letters" class="filter" id="filter">
      <label>
        <span>Reason</span>
        <select name="reason">
          <option value="">all</option>
          {!isListed && (
            <option value={attribute(filter.reason)} selected safe>
              {filter.reason}
            </option>
          )}
          {known.map(({ reason, count }) => (
            <option value={attribute(reason)} selected={reason === filter.reason} safe>
              {`${reason} (${formatCount(count)})`}
            </option>
          ))}
        </select>
      </label>
      <label>
        <span>Device</span>
        <input
          name="device"
          value={attribute(filter.device)}
          placeholder="all, or boiler-*"
          maxlength="129"
          autocomplete="off"
          spellcheck="false"
        />
      </label>
      <button type="submit" class="quiet">
        Show
      </button>
    </form>
  )
}

function List({
  answer,
  filter,
  now,
}: {
  answer: DeadLettersAnswer
  filter: DeadLetterFilter
  now: number
}): JSX.Element {
  const { items, next } = answer
  const isFiltered = filter.reason !== '' || filter.device !== ''
  return (
    <div id="letters" data-newest={attribute(items[0]?.id ?? '')} data-first={String(filter.after === '')}>
      {items.length === 0 ? (
        <p class="none">
          {isFiltered ? (
            <>
              None like this. <a href="/dead-letters">Show all</a>
            </>
          ) : (
            'None: everything that arrived could be used.'
          )}
        </p>
      ) : (
        <table class="letters">
          <thead>
            <tr>
              <th scope="col">Received</th>
              <th scope="col">Device</th>
              <th scope="col">Why</th>
              <th scope="col">Codec</th>
            </tr>
          </thead>
          <tbody>
            {items.map((letter) => (
              <Row letter={letter} now={now} />
            ))}
          </tbody>
        </table>
      )}
      {(next !== null || filter.after !== '') && (
        <nav class="pager" aria-label="Pages of dead letters">
          {filter.after !== '' && <a href={pageHref({ ...filter, after: '' })}>Newest</a>}
          {next !== null && <a href={pageHref({ ...filter, after: next })}>Older</a>}
        </nav>
      )}
    </div>
  )
}

function pageHref(filter: DeadLetterFilter): string {
  const query = new URLSearchParams(Object.entries(filter).filter(([, value]) => value !== ''))
  return attribute(query.size > 0 ? `/dead-letters?${query}` : '/dead-letters')
}

function Row({ letter, now }: { letter: DeadLetterAnswer; now: number }): JSX.Element {
  const { id, device, reason, detail, metric, codec, receivedAt, putBack } = letter
  return (
    <tr data-id={attribute(id)}>
      <td class="heard">
        <a href={letterHref(id)} aria-label={attribute(`Dead letter of ${device}: ${detail}`)}>
          <Age at={receivedAt} now={now} ago />
        </a>
      </td>
      <th scope="row" safe>
        {device}
      </th>
      <td class="why">
        <b safe>{reason}</b>
        {metric !== '' && (
          <>
            {' '}
            <span class="metric" safe>
              {metric}
            </span>
          </>
        )}
        <p safe>{detail}</p>
        {putBack && (
          <p class="put-back" title={attribute(putBackText(putBack))}>
            Put back <Age at={putBack.at} now={now} ago />
          </p>
        )}
      </td>
      <td safe>{codec}</td>
    </tr>
  )
}
