// An authority and a certificate of the tests' own, made by openssl for the time of a test.
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

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
