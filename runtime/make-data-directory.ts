// The directory that holds everything Weir keeps, made by whoever needs it first.
import { mkdirSync } from 'node:fs'
import { StartError } from './errors.ts'

export function makeDataDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true })
  } catch (error) {
    throw new StartError(`The data directory ${directory} can't be made: ${(error as Error).message}`)
  }
}
