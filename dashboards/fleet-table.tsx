// The fleet as a table: status, last heard, latest values, a sparkline each. Also served alone (/fragments/fleet), for search as you type.
import type { ReadingAnswer } from '../api/wire.ts'
import { anomalyDays, type Fleet, type FleetQuery, type FleetRow } from './fleet.ts'
import { deviceHref, formatNumber, trendText } from './format.ts'
import { Age, attribute } from './layout.tsx'
import { Sparkline } from './sparkline.tsx'

/** Latest values that a row has room for. */
const valuesMax = 3

export function FleetTable({ fleet, query, now }: { fleet: Fleet; query: FleetQuery; now: number }): JSX.Element {
  const { rows, next } = fleet
  return (
    <div
      id="fleet"
      data-search={attribute(query.search)}
      data-after={attribute(query.after)}
      data-more={String(next !== null)}
      data-away={String(fleet.away !== undefined)}
    >
      {fleet.away && (
        <p class="aside" role="status">
          The store is away: sparklines come back with it. What arrives now is kept and shown.
        </p>
      )}
      {rows.length === 0 ? (
        <p class="none">
          No device is called <q safe>{query.search}</q>. <a href="/">Show all</a>
        </p>
      ) : (
        <table class="fleet">
          <thead>
            <tr>
              <th scope="col">Device</th>
              <th scope="col">Last heard</th>
              <th scope="col">Latest values</th>
              <th scope="col">Trend</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <Row row={row} now={now} />
            ))}
          </tbody>
        </table>
      )}
      {(next !== null || query.after !== '') && (
        <nav class="pager" aria-label="Pages of the fleet">
          {query.after !== '' && <a href={href(query.search, '')}>First page</a>}
          {next !== null && <a href={href(query.search, next)}>Next {String(rows.length)}</a>}
        </nav>
      )}
    </div>
  )
}

function href(search: string, after: string): string {
  const query = new URLSearchParams()
  if (search) query.set('search', search)
  if (after) query.set('after', after)
  return attribute(query.size > 0 ? `/?${query}` : '/')
}

function Row({ row, now }: { row: FleetRow; now: number }): JSX.Element {
  const { device, latest, spark, metric, anomalies } = row
  // The metric of the sparkline leads, so that value and line belong together.
  const shown = [...latest]
    .sort((a, b) => Number(b.metric === metric) - Number(a.metric === metric))
    .slice(0, valuesMax)
  const more = device.metrics.length - shown.length
  return (
    <tr
      data-device={attribute(device.device)}
      data-online={String(device.online)}
      data-metric={attribute(metric ?? '')}
    >
      <th scope="row">
        <a class="device" href={attribute(deviceHref(device.device))}>
          <span class="dot" role="img" aria-label={device.online ? 'online' : 'silent'} />
          <span safe>{device.device}</span>
          {anomalies > 0 && (
            <span class="badge" title={`Anomalies in the last ${anomalyDays} days`}>
              {String(anomalies)}
              <span class="unseen">
                {' '}
                {anomalies === 1 ? 'anomaly' : 'anomalies'} in the last {String(anomalyDays)} days
              </span>
            </span>
          )}
        </a>
      </th>
      <td class="heard">
        <Age at={device.lastReceivedAt} now={now} />
      </td>
      <td class="values">
        {shown.map((reading) => (
          <Value reading={reading} />
        ))}
        {more > 0 && <span class="more">+{String(more)}</span>}
      </td>
      <td class="trend">
        {spark ? (
          <>
            <Sparkline {...spark} />
            <small data-part="span" safe>
              {trendText(spark.times.length, spark.from, spark.to)}
            </small>
          </>
        ) : (
          <svg class="spark" viewBox="0 0 120 28" preserveAspectRatio="none" aria-hidden="true" />
        )}
      </td>
    </tr>
  )
}

function Value({ reading }: { reading: ReadingAnswer }): JSX.Element {
  return (
    <span class="value" data-metric={attribute(reading.metric)} data-observed-at={reading.observedAt}>
      <span class="metric" safe>
        {reading.metric}
      </span>{' '}
      <b safe>{reading.value === undefined ? (reading.text ?? '') : formatNumber(reading.value)}</b>
    </span>
  )
}
