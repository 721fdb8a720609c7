// A port that can't be had, as the sentence that says which option moves it.
import { StartError } from './errors.ts'

export interface Listener {
  /** What was to listen, as a sentence begins with it: `MQTT`. */
  readonly what: string
  readonly host: string
  readonly port: number
  /** The option that names the port. */
  readonly option: string
}

/** From what `listen` failed with. */
export function listenError(error: NodeJS.ErrnoException, { what, host, port, option }: Listener): StartError {
  return new StartError(sentence(), { cause: error })

  function sentence(): string {
    switch (error.code) {
      case 'EADDRINUSE':
        return `${what} port ${port} on ${host} is taken by another program: end that one, or set ${option} to a free port`
      case 'EACCES':
        return `${what} port ${port} on ${host} may not be opened by this user: set ${option} to a port above 1023`
      case 'EADDRNOTAVAIL':
      case 'ENOTFOUND':
        return `${host} is not an address of this machine: set WEIR_HOST to one that is`
      default:
        return `${what} can't listen on ${host}:${port} (${option}): ${error.message}`
    }
  }
}
