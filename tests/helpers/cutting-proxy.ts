// Stands between the product and a Kafka or a ClickHouse: cuts connections in the middle of a request, or when the answer to one that was done comes.
// Ends TLS in front of a server that has none.
import { type AddressInfo, createServer, connect as dial, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'

export interface CuttingProxyOptions {
  /** Where to connect to, asked at each connection. */
  readonly target: () => { readonly host: string; readonly port: number }
  readonly tls?: { readonly key: string; readonly cert: string }
}

/** Whether answers on a connection are meant, by what was just sent on it; undefined: as before. */
export type IsMeant = (sent: Buffer) => boolean | undefined

export class CuttingProxy {
  cuts = 0
  /** Of answers, over all connections. */
  bytesAnswered = 0
  /** Answers that are still to be cut. */
  answersLeft = 0
  readonly port: number
  private readonly server: Server
  private readonly sockets = new Set<Socket>()
  private isMeant: IsMeant = () => true
  /** Of what clients send. */
  private bytesUntilCut = Number.POSITIVE_INFINITY
  private everyBytes = Number.POSITIVE_INFINITY

  private constructor(server: Server) {
    this.server = server
    this.port = (server.address() as AddressInfo).port
  }

  static async open({ target, tls }: CuttingProxyOptions): Promise<CuttingProxy> {
    let proxy: CuttingProxy | undefined
    const pass = (client: Socket): void => proxy?.pass(client, target())
    const server: Server = tls ? createTlsServer(tls, pass) : createServer(pass)
    // A handshake that fails is the other side's to tell.
    server.on('tlsClientError', () => {})
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
    proxy = new CuttingProxy(server)
    return proxy
  }

  /** Cuts now and then: after this many bytes, again after twice as many, and so on, so that everything comes through in the end. */
  cutRequestsAfter(bytes: number): void {
    this.bytesUntilCut = bytes
    this.everyBytes = bytes
  }

  /** Lets requests through, and cuts when their answers come. */
  cutAnswers(times: number, isMeant: IsMeant = () => true): void {
    this.answersLeft = times
    this.isMeant = isMeant
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    await new Promise((done) => this.server.close(done))
  }

  private pass(client: Socket, { host, port }: { readonly host: string; readonly port: number }): void {
    const server = dial(port, host)
    let isMeant = false
    const end = (): void => {
      client.destroy()
      server.destroy()
    }
    for (const socket of [client, server]) {
      this.sockets.add(socket)
      socket.on('error', end)
      socket.on('close', () => {
        this.sockets.delete(socket)
        end()
      })
    }
    const cut = (): void => {
      this.cuts++
      end()
    }
    client.on('data', (data) => {
      isMeant = this.isMeant(data) ?? isMeant
      this.bytesUntilCut -= data.length
      if (this.bytesUntilCut < 0) {
        this.everyBytes *= 2
        this.bytesUntilCut = this.everyBytes
        // Half of it arrives.
        server.write(data.subarray(0, data.length >> 1))
        cut()
      } else if (!server.write(data)) pauseUntilDrained(client, server)
    })
    server.on('data', (data) => {
      this.bytesAnswered += data.length
      if (isMeant && this.answersLeft > 0) {
        this.answersLeft--
        cut()
      } else if (!client.write(data)) pauseUntilDrained(server, client)
    })
  }
}

function pauseUntilDrained(from: Socket, to: Socket): void {
  from.pause()
  to.once('drain', () => from.resume())
}
