// Publishes as devices do: QoS 1 over MQTT, with a bounded number unacknowledged. When the connection is lost it comes back by itself and what was
// not acknowledged is sent again.

import { connect, type MqttClient } from 'mqtt'
import { StartError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { createOutage, type Outage } from './outage.ts'

export interface PublisherOptions {
  readonly url: string
  readonly clientId: string
  readonly logger: Logger
  readonly username?: string
  /** Of a device: its token. */
  readonly password?: string
  /** Shared by those that lose their connections together; else each says it for itself. */
  readonly outage?: Outage
  /** Unacknowledged publishes; the front takes 128 of a connection. */
  readonly inFlightMax?: number
  /** How long to wait for the first connection before giving up. */
  readonly connectMsMax?: number
  /** Ends a wait. */
  readonly signal: AbortSignal
}

const inFlightDefault = 100
const connectMsDefault = 10_000
const reconnectMs = 500
/** How often a wait looks whether it was ended; many publishers share one signal, so none listens to it. */
const lookEveryMs = 100

export class Publisher {
  private readonly client: MqttClient
  private readonly inFlightMax: number
  private readonly signal: AbortSignal
  private readonly waiting = new Set<() => void>()
  /** Connected at least once, and whether now. */
  private link: 'never' | 'up' | 'lost' = 'never'
  inFlight = 0
  acknowledged = 0
  reconnects = 0

  private constructor(client: MqttClient, options: PublisherOptions) {
    const { inFlightMax = inFlightDefault, signal, logger, url, outage = createOutage(logger, url) } = options
    this.client = client
    this.inFlightMax = inFlightMax
    this.signal = signal
    client.on('close', () => {
      if (this.link !== 'up' || client.disconnecting) return
      this.link = 'lost'
      outage.lost()
    })
    client.on('connect', () => {
      if (this.link === 'lost') {
        this.reconnects++
        outage.back()
      }
      this.link = 'up'
    })
  }

  /** Throws a StartError when nobody answers in time. */
  static async open(options: PublisherOptions): Promise<Publisher> {
    const { url, clientId, signal, connectMsMax = connectMsDefault, username, password } = options
    const client = connect(url, {
      ...(username !== undefined && password !== undefined && { username, password }),
      clientId,
      clean: true,
      reconnectPeriod: reconnectMs,
      connectTimeout: 5_000,
      keepalive: 30,
    })
    let cause = 'nothing answered'
    client.on('error', (error) => {
      cause = error.message || (error as NodeJS.ErrnoException).code || cause
    })
    const publisher = new Publisher(client, options)
    const isOpen = await new Promise<boolean>((done) => {
      const settle = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', settle)
        done(client.connected)
      }
      const timer = setTimeout(settle, connectMsMax)
      client.once('connect', settle)
      signal.addEventListener('abort', settle)
      if (signal.aborted) settle()
    })
    if (isOpen || signal.aborted) return publisher
    await publisher.close()
    throw new StartError(`No MQTT broker takes connections at ${url}: ${cause}. Is weir started there?`)
  }

  get hasRoom(): boolean {
    return this.inFlight < this.inFlightMax
  }

  /** Resolves once it is handed over: at once while there is room, else when an acknowledgement made room. False: the signal ended the wait. */
  async publish(topic: string, payload: string): Promise<boolean> {
    while (!this.hasRoom && !this.signal.aborted) await this.change()
    if (this.signal.aborted) return false
    this.inFlight++
    this.client.publish(topic, payload, { qos: 1 }, (error) => {
      this.inFlight--
      if (!error) this.acknowledged++
      this.wake()
    })
    return true
  }

  /** Waits until everything is acknowledged; answers what is not when the time is over. */
  async settle(withinMs: number): Promise<number> {
    const deadline = performance.now() + withinMs
    while (this.inFlight > 0 && performance.now() < deadline) await this.change(deadline - performance.now())
    return this.inFlight
  }

  async close(): Promise<void> {
    await this.client.endAsync(true)
  }

  private change(withinMs = lookEveryMs): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => done(), withinMs)
      const done = (): void => {
        clearTimeout(timer)
        this.waiting.delete(done)
        resolve()
      }
      this.waiting.add(done)
    })
  }

  private wake(): void {
    for (const done of [...this.waiting]) done()
  }
}
