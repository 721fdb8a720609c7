// `npm run nab -- FOLDER [--tier N] [more words for the scorer]`: the product's detector on the Numenta Anomaly Benchmark. FOLDER (or WEIR_TEST_NAB)
// holds the scorer (score.mjs), the data and the labels; they are not part of this repository. Without them it says so and ends well.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { project } from './build.js'

/** Standard, reward low false positives, reward low false negatives. */
const least = { 0: [], 1: [77, 68, 82], 2: [79, 69, 84] }
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
  for (const tier of tiers) run(tier)
}

function run(tier) {
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    [
      scorer,
      ...['--data', join(folder, 'data'), '--windows', join(folder, 'combined_windows.json')],
      ...['--detector', join(project, 'benchmarks/nab-detector.mjs'), '--options', JSON.stringify({ tier })],
      ...words,
    ],
    { encoding: 'utf8' },
  )
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
