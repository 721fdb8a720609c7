// `npm test [-- files]`: every test that this machine can run, and first what it can't run and why. WEIR_TEST_REQUIRE=all makes that a failure.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { project } from './build.js'

/** Programs that some tests drive, and how to get them. */
const tools = [
  { names: ['chromium', 'chromium-browser', 'google-chrome'], needs: 'tests/browser', get: 'apt-get install chromium' },
  {
    names: ['mosquitto_pub'],
    needs: 'the publishing lines of README.md, and what docs/ tells people to type',
    get: 'apt-get install mosquitto-clients',
  },
  { names: ['nginx'], needs: 'the proxy of docs/access.md', get: 'apt-get install nginx-light' },
]

for (const name of ['java', 'mvn'])
  tools.push({
    names: [name],
    needs: 'tests against a real Kafka',
    get: 'apt-get install openjdk-17-jre-headless maven',
  })

const missing = tools.filter(({ names }) => !names.some(isThere))
for (const { names, needs, get } of missing) {
  process.stdout.write(`not run here: ${needs}, because ${names[0]} is not installed (${get})\n`)
}
if (missing.length > 0 && process.env.WEIR_TEST_REQUIRE === 'all') {
  process.stdout.write('WEIR_TEST_REQUIRE is "all": nothing may be left out\n0 passed, 1 failed\n')
  process.exit(1)
}
const vitest = join(project, 'node_modules/vitest/vitest.mjs')
const { status } = spawnSync(process.execPath, [vitest, 'run', ...process.argv.slice(2)], {
  cwd: project,
  stdio: 'inherit',
})
process.exit(status ?? 1)

function isThere(name) {
  return spawnSync(name, ['--version'], { stdio: 'ignore' }).error?.code !== 'ENOENT'
}
