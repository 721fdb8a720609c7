import { expect, it } from 'vitest'
import { type Logger, silentLogger } from '../../runtime/logger.ts'
import { createOutage } from './outage.ts'

it('many connections that break together are one line, and one when all are back', () => {
  const said: string[] = []
  const logger: Logger = {
    ...silentLogger,
    warn: (_fields, message) => said.push(message ?? ''),
    info: (fields, message) => said.push(`${message} ${JSON.stringify(fields)}`),
  }
  const outage = createOutage(logger, 'mqtt://127.0.0.1:1')
  for (let times = 0; times < 2; times++) {
    for (let connection = 0; connection < 50; connection++) outage.lost()
    expect(said).toEqual([expect.stringMatching(/is lost/)])
    for (let connection = 0; connection < 49; connection++) outage.back()
    expect(said).toHaveLength(1)
    outage.back()
    expect(said.splice(0)).toEqual([expect.anything(), expect.stringMatching(/connected again.*"connections":50/)])
  }
})
