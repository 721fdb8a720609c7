// The comparison with the real log and the real store, where what is in the table may have left it by age.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { EventLog } from '../domain/event-log.ts'
import { encodeRowPrefix, RowWriter } from '../domain/row-format.ts'
import { systemClock } from '../runtime/clock.ts'
import { createInstruments } from '../runtime/instruments.ts'
import { silentLogger } from '../runtime/logger.ts'
import { readEndpoint } from '../storage/embedded-server/endpoint.ts'
import { type ClickHouse, openClickHouse } from '../storage/open-clickhouse.ts'
import { applyRawRetention, rawRetentionSeconds } from '../storage/raw-retention.ts'
import { readingsTable } from '../storage/tables.ts'
import { openEmbeddedLog } from '../stream/log/embedded-log.ts'
import { createWriterService } from '../stream/writer-service.ts'
import { type ClickHouseProcess, startClickHouse } from '../tests/helpers/clickhouse-process.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { compareWithTable } from './compare-with-table.ts'

let server: ClickHouseProcess
let directory: string
let log: EventLog
let clickhouse: ClickHouse
const dayMs = 86_400_000

beforeAll(async () => {
  server = await startClickHouse()
  directory = await mkdtemp(join(tmpdir(), 'weir-compare-'))
  const shared = { logger: silentLogger, clock: systemClock }
  const limits = { partitions: 1, quotaBytes: 1e9, retentionMs: 1e9, groups: ['writer'], segmentBytes: 4 * 1024 * 1024 }
  log = await openEmbeddedLog({ directory, mode: 'append', ...limits, ...shared })
  clickhouse = openClickHouse(() => readEndpoint(server.data), { logger: silentLogger })
})
afterAll(async () => {
  await clickhouse?.close()
  await log?.close()
  await server?.dispose()
  await rm(directory, { recursive: true, force: true })
})

it('a reading that has left the table by age is no difference; a younger one that is missing is', async () => {
  const retentionRawMs = 30 * dayMs
  const writer = createWriterService({
    log,
    clickhouse,
    logger: silentLogger,
    instruments: createInstruments('test'),
    clock: systemClock,
    retentionRawMs,
  })
  await writer.start()
  const nowMicros = systemClock.nowMicros()
  const rows = new RowWriter()
  const prefix = encodeRowPrefix('default', 'd', 'm')
  for (const days of [1, 2, 40, 50]) rows.number(prefix, nowMicros - days * dayMs * 1000, days, nowMicros)
  await log.append('readings', 0, rows.rows(), 4, nowMicros)
  await waitFor(async () => (await log.committed('writer', 'readings')).get(0) === 1)
  await waitFor(async () => (await rawRetentionSeconds(clickhouse)) === retentionRawMs / 1000)
  await writer.stop()
  const compare = () => compareWithTable({ log, clickhouse, topic: 'readings', progress: () => {} })

  await clickhouse.command(`OPTIMIZE TABLE ${readingsTable.name} FINAL`)
  expect(await compare()).toMatchObject({
    compared: 4,
    expired: 2,
    differences: { missing: 0, older: 0, different: 0 },
  })

  const keep = { settings: { mutations_sync: 1 } }
  await clickhouse.command(`ALTER TABLE ${readingsTable.name} DELETE WHERE value = 2`, keep)
  expect(await compare()).toMatchObject({ expired: 2, differences: { missing: 1 }, examples: [{ kind: 'missing' }] })

  // Without a retention, nothing excuses what is not there.
  await applyRawRetention(clickhouse, undefined)
  expect(await compare()).toMatchObject({ expired: 0, differences: { missing: 3 } })
})
