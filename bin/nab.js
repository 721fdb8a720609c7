// `npm run nab -- FOLDER [--tier N] [more words for the scorer]`: the product's detector on the Numenta Anomaly Benchmark. FOLDER (or WEIR_TEST_NAB)
// holds the scorer (score.mjs), the data and the labels; they are not part of this repository. Without them it says so and ends well.
// Each tier is scored twice: at the best thresholds, and, for how often it alarms on nothing, at the one that the product has by default.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { project } from './build.js'

/** Standard, reward low false positives, reward low false negatives. */
const least = { 0: [], 1: [77, 68, 82], 2: [79, 69, 84] }
const falseMax = 0.1
const profiles = ['standard', 'reward_low_FP_rate', 'reward_low_FN_rate']

const words = process.argv.slice(2)
const tierAt = words.indexOf('--tier')
const tiers = tierAt < 0 ? [0, 1, 2] : [Number(words.splice(tierAt, 2)[1])]
const named = words[0] !== undefined && !words[0].startsWith('-') ? words.shift() : undefined
const folder = resolve(named ?? process.env.WEIR_TEST_NAB ?? join(project, '../shared/nab'))
const scorer = join(folder, 'score.mjs')

if (!existsSync(scorer)) {
  process.stdout.write(
    `skipped: there is no score.mjs in ${folder}; name the benchmark's folder: npm run nab -- FOLDER\n`,
  )
} else {
  const { options } = await import('../dist/runtime/config.js')
  for (const tier of tiers) {
    run(tier)
    if (words.length === 0) runAtDefault(tier, options.detectorScoreMin.fallback)
  }
}

function score(tier, more) {
  return spawnSync(
    process.execPath,
    [
      scorer,
      ...['--data', join(folder, 'data'), '--windows', join(folder, 'combined_windows.json')],
      ...['--detector', join(project, 'benchmarks/nab-detector.mjs'), '--options', JSON.stringify({ tier })],
      ...more,
    ],
    { encoding: 'utf8' },
  )
}

/** False rows of those that are scored: outside of the labelled windows, and past the scorer's own time to learn. */
function runAtDefault(tier, threshold) {
  const { stdout, stderr, status } = score(tier, ['--threshold', threshold, '--json', '-'])
  if (status !== 0) {
    process.stdout.write(stderr)
    process.exitCode = 1
    return
  }
  const { scoredRows, profiles: scored } = JSON.parse(stdout)
  const { falsePositives, detected, windows } = scored.standard
  const rate = (1_000 * falsePositives) / scoredRows
  const seen = `${falsePositives} false in ${scoredRows} readings, ${rate.toFixed(3)} in 1,000; ${detected} of ${windows} windows found`
  process.stdout.write(`tier ${tier} at the default threshold ${threshold}: ${seen}\n\n`)
  if (rate <= falseMax) return
  process.stdout.write(`tier ${tier}: ${rate.toFixed(3)} false in 1,000 readings is above ${falseMax}\n`)
  process.exitCode = 1
}

function run(tier) {
  const { stdout, stderr, status } = score(tier, words)
  process.stdout.write(`tier ${tier}\n${stdout}${stderr}\n`)
  if (status !== 0) process.exitCode = 1
  for (const [index, profile] of profiles.entries()) {
    const score = Number(new RegExp(`^${profile}\\s+(\\S+)`, 'm').exec(stdout)?.[1])
    const min = least[tier]?.[index]
    if (min === undefined || words.length > 0 || score >= min) continue
    process.stdout.write(`tier ${tier}, ${profile}: ${score} is below ${min}\n`)
    process.exitCode = 1
  }
}
