// What became of an input: a value, never an exception (exceptions are for bugs and for dependencies that are away).

/** Why a payload, or one metric of it, could not be used. Stable slugs: they are seen in dead letters and counters. */
export const rejectReasons = [
  'empty-payload',
  'malformed-payload',
  'unsupported-codec',
  'not-an-object',
  'nested-too-deep',
  'too-many-readings',
  'invalid-timestamp',
  'observed-before-1970',
  'observed-in-future',
  'invalid-metric-name',
  'invalid-value',
  'text-too-long',
  'columns-differ-in-length',
  'array-value',
] as const
export type RejectReason = (typeof rejectReasons)[number]

/** One thing that was refused, with enough to mend it: the slug, and a sentence that says what and where. */
export interface Rejection {
  readonly reason: RejectReason
  readonly detail: string
  /** The metric concerned, when the rest of the payload was usable. */
  readonly metric?: string
}

/** What a payload came to. `accepted` and `rejections` count readings; both zero for a payload that says nothing (all null). */
export interface Outcome {
  readonly accepted: number
  readonly rejections: readonly Rejection[]
}
