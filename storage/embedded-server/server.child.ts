// The embedded server in a process of its own, as tests start it: argv is its directory, port, log level and words for the engine; the first
// line on stdout is its address.
import { createLogger, type LogLevel } from '../../runtime/logger.ts'
import { createEmbeddedServer } from './server.ts'

const [directory, port = '0', level = 'warn', ...engineArguments] = process.argv.slice(2)
const server = createEmbeddedServer({
  directory: directory!,
  port: Number(port),
  logger: createLogger(level as LogLevel, 'clickhouse'),
  engineArguments,
})
// A test that died leaves nothing behind.
process.on('disconnect', () => process.exit(0))
process.on('SIGTERM', async () => {
  await server.drain(AbortSignal.timeout(2_000))
  await server.stop()
  process.exit(0)
})
await server.start()
console.log(`ready http://127.0.0.1:${server.address().port}`)
