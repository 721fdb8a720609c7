// One real Kafka broker for all files of a run on Kafka: its address goes to them by the environment.
import { kafkaMissing, startKafka } from './kafka.ts'

export default async function startBroker(): Promise<() => Promise<void>> {
  const missing = kafkaMissing()
  if (missing) throw new Error(missing)
  const kafka = await startKafka()
  process.env.WEIR_TEST_KAFKA_BROKERS = kafka.brokers.join(',')
  return () => kafka.dispose()
}
