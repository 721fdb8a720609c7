// A hint where a name was probably mistyped.

/** `; did you mean X?`, or nothing when no known name is near. */
export function nearestName(given: string, known: readonly string[]): string {
  const farthest = given.length < 5 ? 1 : given.length < 8 ? 2 : 3
  const near = known
    .map((each) => [startsAlike(given, each) ? 1 : distance(given, each), each] as const)
    .sort((a, b) => a[0] - b[0])[0]
  return near && near[0] <= farthest ? `; did you mean ${near[1]}?` : ''
}

/** Cut short, or with something after it. */
function startsAlike(given: string, known: string): boolean {
  return given.startsWith(known) || (given.length >= 5 && known.startsWith(given))
}

/** Levenshtein distance. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    }
    row = next
  }
  return row[b.length]!
}
