import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, it } from 'vitest'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { linkSignals } from './linked-signal.ts'

it('ends with the first of its signals, at once when one has ended already', () => {
  const [one, other] = [new AbortController(), new AbortController()]
  const { signal } = linkSignals([one.signal, other.signal])
  expect(signal.aborted).toBe(false)
  other.abort()
  expect(signal.aborted).toBe(true)
  expect(linkSignals([one.signal, other.signal]).signal.aborted).toBe(true)
})

it('ends when its time is over', async () => {
  const { signal } = linkSignals([new AbortController().signal], 20)
  await waitFor(() => signal.aborted)
})

it('ends no more once it was released', () => {
  const one = new AbortController()
  const { signal, release } = linkSignals([one.signal])
  release()
  one.abort()
  expect(signal.aborted).toBe(false)
})

it('is not collected while somebody waits for it', () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const one = new AbortController()
  let isEnded = false
  linkSignals([one.signal]).signal.addEventListener('abort', () => {
    isEnded = true
  })
  collect()
  one.abort()
  expect(isEnded).toBe(true)
})
