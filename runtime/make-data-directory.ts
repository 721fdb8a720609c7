// The directory that holds everything Weir keeps, made by whoever needs it first.
import { mkdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { StartError } from './errors.ts'

export function makeDataDirectory(directory: string): void {
  try {
    makeEach(directory)
  } catch (error) {
    throw new StartError(`The data directory ${directory} can't be made: ${(error as Error).message}`)
  }
}

/** One by one: Node's own `recursive` tries for ever where none can be made, below /proc for one. */
function makeEach(directory: string): void {
  if (isDirectory(directory)) return
  const parent = dirname(directory)
  if (parent !== directory) makeEach(parent)
  try {
    mkdirSync(directory)
  } catch (error) {
    // Somebody else made it meanwhile.
    if (!isDirectory(directory)) throw error
  }
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
}
