// What the first process and its children say to each other over IPC. Small, about once a second; readings never pass here.
import type { ProcessStatus } from './status.ts'

export type FromChild =
  | { readonly kind: 'listening'; readonly name: string; readonly url: string }
  /** It does its job. */
  | { readonly kind: 'ready' }
  /** It can't start because of something outside ourselves: a sentence for an operator. It ends after this. */
  | { readonly kind: 'failed'; readonly message: string }
  | { readonly kind: 'status'; readonly status: ProcessStatus }

export type ToChild =
  /** The status of every other process, and where things listen, by the first word of their start-up line. */
  | {
      readonly kind: 'world'
      readonly statuses: readonly ProcessStatus[]
      readonly addresses: Readonly<Record<string, string>>
    }
  /** Drain, stop, exit. */
  | { readonly kind: 'stop' }

export const statusEveryMs = 1_000
