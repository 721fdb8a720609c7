// Stands between the product and a ClickHouse: cuts the answers to inserts that were done, or ends TLS in front of a server that has none. Certificates
// are made by openssl for the time of a test.
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, connect as dial, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'

export interface StoreProxyOptions {
  /** Where to connect to, asked at each connection. */
  readonly target: () => { readonly host: string; readonly port: number }
  readonly tls?: { readonly key: string; readonly cert: string }
}

export class StoreProxy {
  /** Answers to inserts that are still to be cut. */
  cutsLeft = 0
  cuts = 0
  readonly port: number
  private readonly server: Server
  private readonly sockets = new Set<Socket>()

  private constructor(server: Server) {
    this.server = server
    this.port = (server.address() as AddressInfo).port
  }

  static async open({ target, tls }: StoreProxyOptions): Promise<StoreProxy> {
    let proxy: StoreProxy | undefined
    const pass = (client: Socket): void => proxy?.pass(client, target())
    const server: Server = tls ? createTlsServer(tls, pass) : createServer(pass)
    // A handshake that fails is the other side's to tell.
    server.on('tlsClientError', () => {})
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
    proxy = new StoreProxy(server)
    return proxy
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    await new Promise((done) => this.server.close(done))
  }

  private pass(client: Socket, { host, port }: { readonly host: string; readonly port: number }): void {
    const store = dial(port, host)
    let isInsert = false
    const end = (): void => {
      client.destroy()
      store.destroy()
    }
    for (const socket of [client, store]) {
      this.sockets.add(socket)
      socket.on('error', end)
      socket.on('close', () => {
        this.sockets.delete(socket)
        end()
      })
    }
    client.on('data', (data) => {
      // One request at a time on a connection, and its head comes in one piece.
      const head = data.subarray(0, 2_000).toString('latin1')
      if (head.startsWith('POST /')) isInsert = head.includes('query=INSERT+INTO+readings')
      if (!store.write(data)) pauseUntilDrained(client, store)
    })
    store.on('data', (data) => {
      if (isInsert && this.cutsLeft > 0) {
        this.cutsLeft--
        this.cuts++
        end()
      } else if (!client.write(data)) pauseUntilDrained(store, client)
    })
  }
}

function pauseUntilDrained(from: Socket, to: Socket): void {
  from.pause()
  to.once('drain', () => from.resume())
}

export interface Certificates {
  /** File of the authority. */
  readonly authorityFile: string
  readonly key: string
  readonly cert: string
}

/** An authority of our own, and a certificate for 127.0.0.1 that it signed. */
export function makeCertificates(directory: string): Certificates {
  const file = (name: string): string => join(directory, name)
  const openssl = (...words: string[]): void => {
    const made = spawnSync('openssl', words, { encoding: 'utf8' })
    if (made.status !== 0) throw new Error(`no certificate could be made: ${made.stderr}`)
  }
  const newKey = ['-newkey', 'rsa:2048', '-nodes']
  openssl(
    'req',
    '-x509',
    ...newKey,
    '-days',
    '2',
    '-subj',
    '/CN=Weir test authority',
    '-keyout',
    file('ca.key'),
    '-out',
    file('ca.pem'),
  )
  openssl('req', ...newKey, '-subj', '/CN=store', '-keyout', file('store.key'), '-out', file('store.csr'))
  writeFileSync(file('names'), 'subjectAltName=IP:127.0.0.1\n')
  const authority = ['-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-CAcreateserial']
  openssl(
    'x509',
    '-req',
    '-in',
    file('store.csr'),
    ...authority,
    '-days',
    '2',
    '-extfile',
    file('names'),
    '-out',
    file('store.pem'),
  )
  const text = (name: string): string => readFileSync(file(name), 'utf8')
  return { authorityFile: file('ca.pem'), key: text('store.key'), cert: text('store.pem') }
}
