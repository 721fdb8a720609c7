// Publishes as a device does, and waits for the acknowledgement.
import mqtt from 'mqtt'
import type { WeirProcess } from '../helpers/spawn-weir.ts'

export interface Publisher {
  /** Resolves once it is acknowledged, so durable. */
  publish(device: string, payload: unknown): Promise<void>
  close(): Promise<void>
}

export async function connectPublisher(weir: WeirProcess): Promise<Publisher> {
  const client = await mqtt.connectAsync(`mqtt://${weir.mqtt.host}:${weir.mqtt.port}`)
  return {
    async publish(device, payload) {
      await client.publishAsync(`devices/${device}/telemetry`, JSON.stringify(payload), { qos: 1 })
    },
    close: () => client.endAsync(),
  }
}
