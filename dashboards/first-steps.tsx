// `/` while nothing has ever arrived: what to type, with the real address, and a listener that turns into a chart at the first reading.
import type { Assets } from './assets.ts'
import { CardTemplate } from './chart-card.tsx'
import { attribute, Page } from './layout.tsx'

const payload = '{"temperature": 71.3}'

interface FirstStepsProps {
  readonly assets: Assets
  readonly mqtt: URL
  /** Undefined: not known here. */
  readonly gateway: string | undefined
  /** Devices show a token. */
  readonly needsToken: boolean
}

export function FirstSteps({ assets, mqtt, gateway, needsToken }: FirstStepsProps): JSX.Element {
  const host = mqtt.hostname
  const port = mqtt.port || '1883'
  const address = `mqtt://${mqtt.host}`
  const login = needsToken ? ' -u boiler-1 -P "$TOKEN"' : ''
  const header = needsToken ? ' -H "authorization: Bearer $TOKEN"' : ''
  const credentials = needsToken ? ", { username: 'boiler-1', password: 'the token' }" : ''
  const token = {
    id: 'token',
    title: 'A device and its token first, shown this once',
    code: 'TOKEN=$(npx weir device add boiler-1 | head -n 1)',
  }
  const fleet = `npx weir simulate --devices 20 --rate 20${port === '1883' ? '' : ` --url ${address}`}`
  const fleetWithToken = [
    `FLEET=$(npx weir device add fleet --speaks-for 'boiler-*,pump-*,room-*,meter-*' | head -n 1)`,
    `npx weir simulate --devices 20 --rate 20 --url "mqtt://fleet:$FLEET@${mqtt.host}"`,
  ].join('\n')
  const steps = [
    ...(needsToken ? [token] : []),
    {
      id: 'mosquitto',
      title: 'From a shell',
      code: `mosquitto_pub -h ${host} -p ${port}${login} -q 1 -t devices/boiler-1/telemetry -m '${payload}'`,
    },
    {
      id: 'curl',
      title: 'Over HTTP',
      code: `curl -H 'content-type: application/json'${header} -d '${payload}' ${gateway ?? `http://${host}:8081`}/v1/telemetry/boiler-1`,
    },
    {
      id: 'node',
      title: 'From Node.js, with the package mqtt',
      code: [
        "import { connectAsync } from 'mqtt'",
        `const client = await connectAsync('${address}'${credentials})`,
        `await client.publishAsync('devices/boiler-1/telemetry', '${payload}', { qos: 1 })`,
        'await client.endAsync()',
      ].join('\n'),
    },
    { id: 'simulate', title: 'Or a fleet that is made up', code: needsToken ? fleetWithToken : fleet },
  ]
  return (
    <Page assets={assets} title="Weir · First reading" here="overview" charts scripts={['first-steps.js']}>
      <div class="intro">
        <h1>Send a first reading</h1>
        <p>
          Nothing has arrived yet. Publish from anywhere to <code safe>{`devices/{device}/telemetry`}</code> on{' '}
          <code safe>{address}</code>: {needsToken ? 'a device shows its token' : 'no device has to be registered'}, and
          this page shows the reading the moment it is kept.
        </p>
      </div>
      <section class="panel listener" id="listener" aria-labelledby="listener-title">
        <h2 id="listener-title">
          <span class="pulse" aria-hidden="true" />
          <span id="heard" role="status" aria-live="polite">
            Listening for a first reading
          </span>
        </h2>
        <p class="aside" id="heard-detail">
          Without scripts: send one, then load this page again.
        </p>
        <div id="charts" />
        <CardTemplate />
      </section>
      <ol class="steps">
        {steps.map(({ id, title, code }) => (
          <li class="panel">
            <div class="panel-head">
              <h2 safe>{title}</h2>
              <button type="button" class="quiet" data-copy={id} hidden>
                Copy
              </button>
            </div>
            <pre id={attribute(id)} tabindex="0">
              <code safe>{code}</code>
            </pre>
          </li>
        ))}
      </ol>
    </Page>
  )
}
