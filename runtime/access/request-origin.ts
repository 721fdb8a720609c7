// Where a request says that it comes from and goes to, for the two things that a page of another site could do with a person's browser: reach a
// loopback port through a name of its own (DNS rebinding: `Host`), and send something that it can't read the answer of (`Origin`).
import { isLoopback } from '../config.ts'
import { RequestError } from '../errors.ts'

export interface OriginRules {
  /** WEIR_HOST. */
  readonly host: string
  /** WEIR_HOST_NAMES. */
  readonly hostNames: readonly string[]
  /** Without authentication the name is all that keeps a rebound page out. */
  readonly checksHost: boolean
  /** The last `Host` that passed: most requests have the same. */
  lastHost?: string
}

/** Why a request may not be answered under this name; undefined: it may. Who sends no `Host` is no browser. */
export function foreignHost(host: string | undefined, rules: OriginRules): RequestError | undefined {
  const { host: bound, hostNames, checksHost, lastHost } = rules
  if (!checksHost || host === undefined || host === '' || host === lastHost) return undefined
  const name = hostnameOf(`http://${host}`)
  if (name !== undefined && (isOwn(name) || name === bound.toLowerCase() || hostNames.includes(name))) {
    rules.lastHost = host
    return undefined
  }
  return new RequestError(
    421,
    'foreign-host',
    'Not under this name',
    `Nothing is answered here for the host ${JSON.stringify(host.slice(0, 100))}: use ${isEveryAddress(bound) ? '127.0.0.1' : bound}, or set WEIR_HOST_NAMES to the names that Weir is reached by.`,
  )
}

/**
 * Why a page may not do this; undefined: it may. Pages of the same host may, on any port or (`samePort`) on this one. Programs send no `Origin`.
 */
export function foreignOrigin(
  origin: string | undefined,
  host: string | undefined,
  { hostNames, samePort = false }: Pick<OriginRules, 'hostNames'> & { readonly samePort?: boolean },
): RequestError | undefined {
  if (origin === undefined || origin === '') return undefined
  const from = URL.canParse(origin) ? new URL(origin) : undefined
  const to = host && URL.canParse(`http://${host}`) ? new URL(`http://${host}`) : undefined
  if (from && hostNames.includes(from.hostname)) return undefined
  // A proxy may have added TLS in between: the scheme tells nothing.
  if (from && to && (samePort ? from.host === to.host : bare(from.hostname) === bare(to.hostname))) return undefined
  return new RequestError(
    403,
    'foreign-origin',
    'Not from a page of another site',
    `The page at ${origin.slice(0, 200)} may not do this here; pages of this host may${samePort ? '' : ', on any port'}.`,
  )
}

/** What a container binds: nothing to be reached by. */
function isEveryAddress(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}

/** A name without a dot is nobody's in the public DNS, so that no page from there can have it. */
function isOwn(name: string): boolean {
  return isLoopback(name) || /^[^.:]+$/.test(name)
}

function hostnameOf(url: string): string | undefined {
  return URL.canParse(url) ? bare(new URL(url).hostname) : undefined
}

/** An IPv6 address without its brackets. */
function bare(hostname: string): string {
  return hostname.replace(/^\[(.*)\]$/, '$1')
}
