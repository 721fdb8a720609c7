// The certificate of MQTT over TLS, from its files. They are looked at again and again: one that was renewed is used for every connection that comes from
// then on, without a restart; one that can't be used is said, and the one before goes on.
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createSecureContext, type SecureContextOptions } from 'node:tls'
import { StartError } from '../runtime/errors.ts'
import type { Health } from '../runtime/service.ts'
import type { IngestEvents } from './events.ts'

export interface CertificateFiles {
  readonly cert: string
  readonly key: string
  /** Of those whose certificates devices may show. */
  readonly clientCa: string | undefined
}

type Certificate = Required<Pick<SecureContextOptions, 'cert' | 'key'>> &
  Pick<SecureContextOptions, 'ca' | 'minVersion'>

const lookEveryMs = 2_000

export class MqttCertificate {
  private readonly files: CertificateFiles
  private readonly events: IngestEvents
  /** What was last read, whether it can be used or not. */
  private seen: string
  /** Files are replaced one after the other: what can't be used is said when it is still so at the next look. */
  private doubted = ''
  private trouble: string | undefined
  private isLooking = false
  private timer: NodeJS.Timeout | undefined
  readonly first: Certificate

  /** Throws a StartError for what can't be read, or is no certificate with its key. */
  constructor(files: CertificateFiles, events: IngestEvents) {
    this.files = files
    this.events = events
    this.first = read(files)
    this.seen = JSON.stringify(this.first)
    try {
      createSecureContext(this.first)
    } catch (error) {
      throw new StartError(
        `WEIR_TLS_CERT, WEIR_TLS_KEY or WEIR_TLS_CLIENT_CA can't be used: ${(error as Error).message}`,
      )
    }
  }

  /** `use` is given each one that can be used from now on. */
  watch(use: (certificate: Certificate) => void): void {
    this.timer = setInterval(() => void this.look(use), lookEveryMs)
    this.timer.unref()
  }

  stop(): void {
    clearInterval(this.timer)
  }

  health(): Health {
    if (this.trouble === undefined) return { state: 'ok' }
    return { state: 'degraded', detail: `MQTT over TLS goes on with the certificate that it had: ${this.trouble}` }
  }

  private async look(use: (certificate: Certificate) => void): Promise<void> {
    if (this.isLooking) return
    this.isLooking = true
    try {
      const certificate = await readAgain(this.files)
      const found = JSON.stringify(certificate)
      if (found !== this.seen) {
        createSecureContext(certificate)
        use(certificate)
        this.seen = found
        this.events.certificateChanged(this.files)
      }
      this.trouble = undefined
      this.doubted = ''
    } catch (error) {
      const { message } = error as Error
      if (message === this.doubted && this.trouble !== message) {
        this.trouble = message
        this.events.certificateUnusable({ ...this.files, error: message })
      }
      this.doubted = message
    } finally {
      this.isLooking = false
    }
  }
}

function read({ cert, key, clientCa }: CertificateFiles): Certificate {
  return certificateOf(pem(cert), pem(key), clientCa === undefined ? undefined : pem(clientCa))
}

async function readAgain({ cert, key, clientCa }: CertificateFiles): Promise<Certificate> {
  const texts = [cert, key, clientCa].map((file) => (file === undefined ? undefined : readFile(file, 'utf8')))
  const [certText, keyText, caText] = await Promise.all(texts)
  return certificateOf(certText!, keyText!, caText)
}

function certificateOf(cert: string, key: string, ca: string | undefined): Certificate {
  return { cert, key, ...(ca !== undefined && { ca }), minVersion: 'TLSv1.2' }
}

function pem(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new StartError(`The file ${file} for TLS can't be read: ${(error as Error).message}`)
  }
}
