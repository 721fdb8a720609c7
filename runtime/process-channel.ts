// What the first process and its children say to each other over IPC. Small and seldom; readings never pass here.
import type { ProcessStatus } from './status.ts'

export type FromChild =
  | { readonly kind: 'listening'; readonly name: string; readonly url: string }
  /** It does its job. */
  | { readonly kind: 'ready' }
  /** It can't start because of something outside ourselves: a sentence for an operator. It ends after this. */
  | { readonly kind: 'failed'; readonly message: string }
  | { readonly kind: 'status'; readonly status: ProcessStatus }
  /** Only the first process appends to the embedded log. Answered by `appended` with the same number. */
  | ({ readonly kind: 'append'; readonly request: number } & RowsToAppend)

export type ToChild =
  /** The status of every other process, and where things listen, by the first word of their start-up line. */
  | {
      readonly kind: 'world'
      readonly statuses: readonly ProcessStatus[]
      readonly addresses: Readonly<Record<string, string>>
    }
  /** Durable; or not kept, and why: again, later. */
  | { readonly kind: 'appended'; readonly request: number; readonly problem?: string }
  /** Drain, stop, exit. */
  | { readonly kind: 'stop' }

/** Of the topic `anomalies`, which are few; readings never pass here. */
export interface RowsToAppend {
  readonly topic: 'anomalies'
  readonly partition: number
  readonly count: number
  /** RowBinary, as base64. */
  readonly rows: string
}

export const statusEveryMs = 1_000
