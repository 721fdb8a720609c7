// What this process holds, without what may be let go: for tests of what a peer can make it keep.
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

export function usedBytes(): number {
  setFlagsFromString('--expose-gc')
  ;(runInNewContext('gc') as () => void)()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}
