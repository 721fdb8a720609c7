// The one writer of a log. Group commit without a timer: appends of one turn, and those that come while a commit is being made durable, go into
// the next commit; an idle log writes at once. One durable write (O_DSYNC) a commit, the next begins when it has returned. A turn that appends a
// lot has its first part on the way to the disk while the rest is framed.
//
//   append ─▶ filling buffer ─▶ waiting buffers ─▶ durable write ─▶ end file ─▶ promises resolve

import type { LogState, LogTopic, Offset, Partition } from '../../domain/event-log.ts'
import { LimitError, LogFailedError, RetryableError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { AppendGate } from './append-gate.ts'
import { CommitBuffer } from './commit-buffer.ts'
import type { EndFile, EndSignal, LogEnd } from './end-file.ts'
import { frameBytes } from './frame-format.ts'
import type { LogFiles } from './log-files.ts'
import { copyMarks, type Marks, segmentHeaderBytes } from './segment-header.ts'
import type { OpenSegment, SegmentStore } from './segment-store.ts'

export const commitBytesMax = 8 * 1024 * 1024
/** Most bytes that wait for a commit; past it an append is refused. */
export const pendingBytesMax = 64 * 1024 * 1024

/** So much is a commit of its own while the disk has nothing to do, although the turn may bring more. */
const earlyCommitBytes = 64 * 1024

const retryFirstMs = 100
const retryMaxMs = 1000
const expireMs = 10_000
const spareBuffersMax = 4

export interface AppenderOptions {
  readonly files: LogFiles
  readonly logId: number
  readonly partitions: number
  readonly segmentBytes: number
  readonly store: SegmentStore
  readonly segment: OpenSegment
  /** Where the segment's commits end. */
  readonly byte: number
  readonly lastCommit: number
  readonly marks: Marks
  readonly endFile: EndFile
  readonly end: EndSignal
  readonly logger: Logger
  readonly onState: (state: LogState) => void
}

export class Appender {
  private readonly gate: AppendGate
  private readonly options: AppenderOptions
  private readonly bytesMax: number
  private segment: OpenSegment
  private byte: number
  private lastCommit: number
  /** Where everything stands on disk, and where it will once all that waits is there. */
  private durable: Marks
  private next: Marks
  private filling: CommitBuffer
  private waiting: CommitBuffer[] = []
  private waitingBytes = 0
  private readonly free: CommitBuffer[] = []
  /** From the first append until nothing waits any more. */
  private isRunning = false
  private isCommitting = false
  private isClosed = false
  private regaining: Promise<void> | undefined
  private wakeRegain: (() => void) | undefined
  private idle: (() => void)[] = []
  private readonly timers: NodeJS.Timeout[]

  constructor(options: AppenderOptions) {
    this.options = options
    this.gate = new AppendGate(options.logger, options.onState)
    this.segment = options.segment
    this.byte = options.byte
    this.lastCommit = options.lastCommit
    this.durable = options.marks
    this.next = copyMarks(options.marks)
    this.bytesMax = Math.min(commitBytesMax, options.segmentBytes - segmentHeaderBytes)
    this.filling = new CommitBuffer(options.logId)
    this.filling.reset(this.lastCommit + 1)
    this.timers = [
      setInterval(() => this.maintain(), expireMs).unref(),
      setInterval(() => this.gate.watchForStall(), retryMaxMs).unref(),
    ]
    this.publish()
    this.prepareSpare()
  }

  append(topic: LogTopic, partition: Partition, rows: Uint8Array, count: number, receivedAt: number): Promise<Offset> {
    const { refusal } = this.gate
    if (refusal) return Promise.reject(refusal())
    const { partitions } = this.options
    if (!(partition >= 0 && partition < partitions && Number.isInteger(partition)))
      return Promise.reject(new RangeError(`there is no partition ${partition}: the log has ${partitions}`))
    if (!this.filling.fits(rows.length, this.bytesMax)) {
      const refused = this.makeRoom(rows.length)
      if (refused) return Promise.reject(refused)
    }
    const topicNumber = topic === 'readings' ? 0 : topic === 'anomalies' ? 1 : 2
    const slot = topicNumber * partitions + partition
    const { offsets, receivedAt: newest } = this.next
    const offset = offsets[slot]!
    offsets[slot] = offset + 1
    if (receivedAt > newest[slot]!) newest[slot] = receivedAt
    if (!this.isRunning) {
      this.isRunning = true
      process.nextTick(this.run)
    }
    const appended = this.filling.add(topicNumber, partition, rows, count, receivedAt, offset)
    if (this.filling.length >= earlyCommitBytes && !this.isCommitting) this.run()
    return appended
  }

  get state(): LogState {
    return this.gate.state
  }

  bytesOnDisk(): number {
    return this.options.store.bytesOnDisk()
  }

  receivedAtMax(slot: number): number {
    return this.next.receivedAt[slot]!
  }

  /** Opens another buffer behind the one that is full. Returns the refusal when that is more than may wait. */
  private makeRoom(rowsLength: number): Error | undefined {
    if (frameBytes(rowsLength) > this.bytesMax)
      return new LimitError(
        'log-chunk-bytes',
        `a chunk of ${rowsLength} bytes is more than the log takes at once (${this.bytesMax} bytes)`,
      )
    if (this.waitingBytes + this.filling.length + frameBytes(rowsLength) > pendingBytesMax)
      return new LimitError(
        'log-pending-bytes',
        `${pendingBytesMax} bytes wait to be made durable already: the disk does not keep up; try again`,
      )
    this.sealFilling()
    return undefined
  }

  private sealFilling(): void {
    const full = this.filling
    full.seal()
    full.marks = copyMarks(this.next)
    this.waiting.push(full)
    this.waitingBytes += full.length
    this.filling = this.free.pop() ?? new CommitBuffer(this.options.logId)
    this.filling.reset(full.commit + 1)
  }

  /** Callers gather a turn's work themselves; what they append without a pause goes together. */
  private readonly run = (): void => {
    if (this.isCommitting) return
    if (this.waiting.length === 0) {
      if (this.filling.length === 0) {
        this.isRunning = false
        for (const done of this.idle.splice(0)) done()
        return
      }
      this.sealFilling()
    }
    const buffer = this.waiting.shift()!
    this.waitingBytes -= buffer.length
    this.isCommitting = true
    void this.commit(buffer).then((isDurable) => {
      this.isCommitting = false
      // Whoever was waiting may append again before the next commit begins; it begins before anything that they put off to a later tick.
      process.nextTick(this.run)
      if (isDurable) buffer.resolve()
      if (this.free.length < spareBuffersMax) this.free.push(buffer)
    })
  }

  private async commit(buffer: CommitBuffer): Promise<boolean> {
    const { files } = this.options
    const { gate } = this
    gate.commitBegins()
    try {
      if (this.byte + buffer.length > this.segment.header.bytes) await this.roll(buffer.commit)
      const { descriptor } = this.segment
      const { block, length } = buffer
      // A write may come back short, and says why only when it is tried again.
      for (let done = 0; done < length; ) {
        const written = await files.writeDurably(descriptor, block.bytes, done, length - done, this.byte + done)
        if (written <= 0) throw Object.assign(new Error('the file took no bytes'), { code: 'EIO' })
        done += written
      }
    } catch (error) {
      this.fail(error as Error, buffer)
      return false
    } finally {
      gate.commitEnds()
    }
    this.byte += buffer.length
    this.lastCommit = buffer.commit
    this.durable = buffer.marks!
    this.publish()
    if (gate.isStalled) gate.takeAgain()
    return true
  }

  private async roll(firstCommit: number): Promise<void> {
    const before = this.segment.descriptor
    this.segment = await this.options.store.roll(this.byte, firstCommit, this.durable)
    this.byte = segmentHeaderBytes
    // Its commits are durable, or it was abandoned: nothing depends on this.
    await this.options.files.close(before).catch(() => {})
    this.prepareSpare()
  }

  private publish(): void {
    const { logId, partitions, endFile, end } = this.options
    const now: LogEnd = {
      logId,
      partitions,
      commit: this.lastCommit,
      segment: this.segment.header.segment,
      byte: this.byte,
      marks: this.durable,
    }
    end.set(now)
    endFile.publish(now)
  }

  private prepareSpare(): void {
    this.options.store.prepare().catch((error: Error) => {
      if (!this.isClosed)
        this.options.logger.warn(
          { error },
          'the next segment of the log could not be made yet; what is open still takes appends',
        )
    })
  }

  /** Nothing of this commit, nor of what was gathered behind it, is acknowledged; its segment counts no further than the last durable commit. */
  private fail(error: Error, buffer: CommitBuffer): void {
    const { logger } = this.options
    const { gate } = this
    const refused = [buffer, ...this.waiting.splice(0)]
    if (this.filling.length > 0) refused.push(this.filling)
    const lastNumber = Math.max(...refused.map((each) => each.commit))
    this.waitingBytes = 0
    gate.isStalled = false
    this.next = copyMarks(this.durable)
    this.filling = new CommitBuffer(this.options.logId)
    // The numbers are not used again: frames of the failed commits may be on disk.
    this.filling.reset(lastNumber + 1)
    let refuseWith: () => Error
    if (error instanceof LimitError) {
      refuseWith = () => new LimitError(error.limit, error.message)
      gate.refuse({ state: 'full', reason: error.message }, refuseWith)
      logger.error({ limit: error.limit }, error.message)
    } else if (error instanceof LogFailedError) {
      refuseWith = gate.fail(error)
    } else {
      const reason = `a commit to the log could not be made durable (${error.message}); its segment is abandoned, and appends are refused until another one takes them`
      refuseWith = () => new RetryableError(reason, { cause: error, retryAfterMs: 1000 })
      gate.refuse({ state: 'stalled', reason }, refuseWith)
      logger.error({ error, segment: this.segment.header.segment, byte: this.byte }, reason)
    }
    const refusal = refuseWith()
    for (const each of refused) each.reject(refusal)
    if (gate.state.state !== 'failed') this.regaining ??= this.regain().finally(() => (this.regaining = undefined))
  }

  /** Goes on in a new segment, as soon as there can be one. */
  private async regain(): Promise<void> {
    const { logger } = this.options
    const { gate } = this
    let waitMs = retryFirstMs
    while (!this.isClosed) {
      await new Promise<void>((resolve) => {
        this.wakeRegain = resolve
        setTimeout(resolve, waitMs).unref()
      })
      if (this.isClosed) return
      waitMs = Math.min(waitMs * 2, retryMaxMs)
      try {
        await this.roll(this.filling.commit)
      } catch (error) {
        if (error instanceof LogFailedError) {
          gate.fail(error)
          return
        }
        if (error instanceof LimitError)
          gate.refuse({ state: 'full', reason: error.message }, () => new LimitError(error.limit, error.message))
        continue
      }
      // The numbers of what failed are passed over: who reads on from here expects the one that comes next.
      this.lastCommit = this.segment.header.firstCommit - 1
      this.publish()
      gate.takeAgain()
      logger.info({ segment: this.segment.header.segment }, 'the log takes appends again')
      return
    }
  }

  private maintain(): void {
    const { store, logger } = this.options
    store
      .expire()
      .catch((error: Error) =>
        logger.warn({ error }, 'old segments of the log could not be removed; tried again later'),
      )
    if (!this.gate.refusal) this.prepareSpare()
  }

  async close(): Promise<void> {
    this.gate.close()
    if (this.isRunning) await new Promise<void>((resolve) => this.idle.push(resolve))
    this.isClosed = true
    this.wakeRegain?.()
    for (const timer of this.timers) clearInterval(timer)
    await this.regaining
    await this.options.store.close()
    await this.options.files.close(this.segment.descriptor).catch(() => {})
    await this.options.endFile.close()
  }
}
