// Where consumer groups stand: `<directory>/groups/<group>.<topic>.json`, one file a group and topic, so that no two consumers ever write the
// same one. Replaced as a whole (temporary file, fsync, rename, fsync of the directory): after a crash it is the old or the new position.

import { promises as fs } from 'node:fs'
import * as path from 'node:path'
import type { ConsumerGroup, LogPosition, LogTopic } from '../../domain/event-log.ts'
import { LogDamagedError, RetryableError } from '../../runtime/errors.ts'
import { logTopics } from './frame-format.ts'
import { isMissing, type LogFiles, writeAll } from './log-files.ts'

const groupNamePattern = /^[a-z0-9][a-z0-9-]{0,63}$/

function groupFile(directory: string, group: ConsumerGroup, topic: LogTopic): string {
  if (!groupNamePattern.test(group))
    throw new RangeError(`"${group}" can't name a group: a-z, 0-9 and dashes, at most 64`)
  return path.join(directory, 'groups', `${group}.${topic}.json`)
}

/** Undefined: the group has never read this topic. */
export async function readCommitted(
  directory: string,
  group: ConsumerGroup,
  topic: LogTopic,
): Promise<LogPosition | undefined> {
  const file = groupFile(directory, group, topic)
  let text: string
  try {
    text = await fs.readFile(file, 'utf8')
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
  try {
    // Only the first line counts: whatever was added after it is not ours.
    const { position } = JSON.parse(text.split('\n', 1)[0]!) as { position: Record<string, number> }
    const entries = Object.entries(position).map(([partition, offset]) => [Number(partition), offset] as const)
    if (!entries.every((entry) => entry.every((number) => Number.isSafeInteger(number) && number >= 0)))
      throw new Error()
    return new Map(entries)
  } catch {
    throw new LogDamagedError(
      file,
      0,
      `${file} does not say where the group ${group} stands. Restore it from a copy, or remove it: the group then reads ${topic} again from the beginning (what is stored twice is kept once).`,
    )
  }
}

/** All topics that a group has ever read, with its position in each. */
export async function readGroup(directory: string, group: ConsumerGroup): Promise<Map<LogTopic, LogPosition>> {
  const found = new Map<LogTopic, LogPosition>()
  for (const topic of logTopics) {
    const position = await readCommitted(directory, group, topic)
    if (position) found.set(topic, position)
  }
  return found
}

/** All groups that have ever read something. */
export async function listGroups(directory: string): Promise<readonly ConsumerGroup[]> {
  const names = await fs.readdir(path.join(directory, 'groups')).catch((error: unknown) => {
    if (isMissing(error)) return []
    throw error
  })
  const found = names.map((name) => /^([a-z0-9][a-z0-9-]*)\.[a-z-]+\.json$/.exec(name)?.[1])
  return [...new Set(found.filter((group) => group !== undefined))].sort()
}

/** One group's position in one topic. Commits made while one is being saved are saved together, the newest. */
export class GroupOffsets {
  private readonly files: LogFiles
  private readonly file: string
  private latest: Map<number, number>
  private saving: Promise<void> = Promise.resolve()
  private queued: Promise<void> | undefined

  private constructor(files: LogFiles, file: string, position: LogPosition) {
    this.files = files
    this.file = file
    this.latest = new Map(position)
  }

  /** Registers the group for the topic at its beginning if it is new there: from then on retention waits for it. */
  static async open(files: LogFiles, directory: string, group: ConsumerGroup, topic: LogTopic): Promise<GroupOffsets> {
    const known = await readCommitted(directory, group, topic)
    const offsets = new GroupOffsets(files, groupFile(directory, group, topic), known ?? new Map())
    if (!known) await offsets.commit(new Map())
    return offsets
  }

  position(): LogPosition {
    return this.latest
  }

  commit(position: LogPosition): Promise<void> {
    for (const [partition, offset] of position) this.latest.set(partition, offset)
    this.queued ??= this.saving
      .catch(() => {})
      .then(() => {
        this.queued = undefined
        this.saving = this.save()
        return this.saving
      })
    return this.queued
  }

  private async save(): Promise<void> {
    const text = Buffer.from(`${JSON.stringify({ version: 1, position: Object.fromEntries(this.latest) })}\n`)
    const temporary = `${this.file}.new`
    try {
      await this.files.makeDirectory(path.dirname(this.file))
      const descriptor = await this.files.open(temporary, 'w+')
      try {
        await writeAll(this.files, descriptor, text, text.length, 0)
        await this.files.fsync(descriptor)
      } finally {
        await this.files.close(descriptor)
      }
      await this.files.rename(temporary, this.file)
      await this.files.syncDirectory(path.dirname(this.file))
    } catch (error) {
      throw new RetryableError(
        `the position of a group could not be saved in ${this.file}: ${(error as Error).message}`,
        {
          cause: error,
          retryAfterMs: 500,
        },
      )
    }
  }

  async close(): Promise<void> {
    await (this.queued ?? this.saving).catch(() => {})
  }
}
