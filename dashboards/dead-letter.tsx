// `/dead-letters/{id}`: one payload that could not be used, with its bytes, to be put back as it is or mended. Forms and links alone: everything
// works without scripts.
import type { DeadLetterDetailAnswer } from '../api/wire.ts'
import type { Assets } from './assets.ts'
import { deviceHref, formatBytes, formatCount } from './format.ts'
import { attribute, Notice, Page } from './layout.tsx'
import type { PayloadView } from './payload-view.ts'

/** Larger ones are put back as they are, or mended in a file (`weir dead-letters replay ID --payload FILE`). */
const mendBytesMax = 64 * 1024

/** What a payload that was sent in a codec that there is none for may be read as. */
const readableAs = [
  { codec: 'json', title: 'JSON' },
  { codec: 'ndjson', title: 'JSON, one a line' },
]

/** Of its page. */
export function letterHref(id: string): string {
  return attribute(`/dead-letters/${encodeURIComponent(id)}`)
}

/** What came of an attempt to put it back. */
export type PutBackOutcome =
  | { readonly kind: 'done'; readonly accepted: number; readonly deadLettered: number }
  | { readonly kind: 'failed'; readonly detail: string }

interface DetailProperties {
  readonly assets: Assets
  readonly letter: DeadLetterDetailAnswer
  readonly view: PayloadView
  readonly outcome: PutBackOutcome | undefined
  /** What a person wrote that could not be put back: never lost. */
  readonly draft: string | undefined
}

export function DeadLetterPage({ assets, letter, view, outcome, draft }: DetailProperties): JSX.Element {
  const { id, device, reason, detail, metric, codec, origin, receivedAt, putBack } = letter
  return (
    <Page assets={assets} title={`Dead letter of ${device} · Weir`} here="pipeline" scripts={['plain.js']}>
      <div class="page-head">
        <p>
          <a href="/dead-letters">Dead letters</a>
        </p>
        <h1 safe>{reason}</h1>
        <p safe>{detail}</p>
      </div>
      {outcome ? <Outcome outcome={outcome} device={device} /> : ''}
      <section class="panel" aria-labelledby="about-title">
        <h2 id="about-title">Where it comes from</h2>
        <dl class="facts">
          <dt>Device</dt>
          <dd>
            <a href={attribute(deviceHref(device))} safe>
              {device}
            </a>
          </dd>
          {metric !== '' && (
            <>
              <dt>Metric</dt>
              <dd safe>{metric}</dd>
            </>
          )}
          <dt>Received</dt>
          <dd>
            <time datetime={new Date(receivedAt).toISOString()} data-local={receivedAt} safe>
              {new Date(receivedAt).toISOString().replace('T', ' ').replace('Z', ' UTC')}
            </time>
          </dd>
          {putBack && (
            <>
              <dt>Put back</dt>
              <dd id="put-back-at">
                <time datetime={new Date(putBack.at).toISOString()} data-local={putBack.at} safe>
                  {new Date(putBack.at).toISOString().replace('T', ' ').replace('Z', ' UTC')}
                </time>
                <span safe>{`: ${putBackText(putBack)}`}</span>
              </dd>
            </>
          )}
          <dt>Came in at</dt>
          <dd>
            <code safe>{origin}</code>
          </dd>
          <dt>Codec</dt>
          <dd safe>{codec}</dd>
          <dt>Size</dt>
          <dd safe>{sizeText(view.bytes.length)}</dd>
          <dt>Id</dt>
          <dd>
            <code safe>{id}</code>
          </dd>
        </dl>
      </section>
      <Payload id={id} view={view} />
      <PutBackForms letter={letter} view={view} draft={draft} />
    </Page>
  )
}

function Outcome({ outcome, device }: { outcome: PutBackOutcome; device: string }): JSX.Element {
  if (outcome.kind === 'failed') return <NotPutBack detail={outcome.detail} />
  const { accepted, deadLettered } = outcome
  return (
    <div class="notice note" role="status" id="put-back-done">
      <strong safe>{`Put back: ${putBackText({ accepted, deadLettered })}.`}</strong>
      <p>
        The dead letter itself stays here, as what once arrived.{' '}
        <a href={attribute(deviceHref(device))}>See the device</a>
      </p>
    </div>
  )
}

/** Where it is a dead letter once more, the sentence names a route for programs: people get the page. */
function NotPutBack({ detail }: { detail: string }): JSX.Element {
  const title = 'Nothing of it was put back'
  const [route, id] = /GET \/v1\/dead-letters\/([0-9a-f-]+) says why\.$/.exec(detail) ?? []
  if (route === undefined || id === undefined) return <Notice title={title} detail={detail} />
  return (
    <div class="notice warn" role="status">
      <strong safe>{title}</strong>
      <p>
        <span safe>{detail.slice(0, -route.length)}</span>
        <a href={letterHref(id)}>The new dead letter</a> says why.
      </p>
    </div>
  )
}

export function putBackText({ accepted, deadLettered }: { accepted: number; deadLettered: number }): string {
  return `${formatCount(accepted)} accepted, ${formatCount(deadLettered)} dead-lettered again`
}

function sizeText(bytes: number): string {
  return bytes < 1_000 ? bytesText(bytes) : `${formatBytes(bytes)} (${bytesText(bytes)})`
}

function bytesText(bytes: number): string {
  return `${formatCount(bytes)} ${bytes === 1 ? 'byte' : 'bytes'}`
}

function Payload({ id, view }: { id: string; view: PayloadView }): JSX.Element {
  const { text, dump, dumpLeft, bytes } = view
  return (
    <section class="panel" aria-labelledby="payload-title">
      <div class="panel-head">
        <h2 id="payload-title">Payload</h2>
        <p class="downloads">
          <a href={`${letterHref(id)}/bytes`} download="">
            Download
          </a>{' '}
          <a href={`${letterHref(id)}/base64`} download="">
            as base64
          </a>
        </p>
      </div>
      {bytes.length === 0 && <p class="none">It was empty.</p>}
      {text !== undefined && bytes.length > 0 && (
        <pre class="bytes" id="as-text" tabindex="0">
          <code safe>{text.slice(0, mendBytesMax)}</code>
        </pre>
      )}
      {text === undefined && <p class="aside">These bytes are no text.</p>}
      {bytes.length > 0 && (
        <details open={text === undefined}>
          <summary>Byte by byte</summary>
          <pre class="bytes" id="as-hex" tabindex="0">
            <code safe>{dump}</code>
          </pre>
          {dumpLeft > 0 && <p class="aside" safe>{`${bytesText(dumpLeft)} more: download them.`}</p>}
        </details>
      )}
    </section>
  )
}

function PutBackForms({
  letter,
  view,
  draft,
}: {
  letter: DeadLetterDetailAnswer
  view: PayloadView
  draft: string | undefined
}): JSX.Element {
  const { id, codec, reason } = letter
  const { text, bytes } = view
  const needsCodec = reason === 'unsupported-codec'
  const action = `${letterHref(id)}/put-back`
  // Bytes of a codec that there is none for are written anew, not mended.
  const encoding = text === undefined && !needsCodec ? 'base64' : 'text'
  const kept = text ?? (needsCodec ? '' : letter.payload)
  return (
    <section class="panel" aria-labelledby="put-back-title">
      <h2 id="put-back-title">Put it back</h2>
      <p class="aside">
        It goes in by the front door, as if the device sent it now: what can be used of it is stored, the rest becomes a
        dead letter again.
      </p>
      {bytes.length <= mendBytesMax ? (
        <form method="post" action={action} class="mend">
          <input type="hidden" name="encoding" value={encoding} />
          <label for="payload" safe>
            {needsCodec ? 'Mended payload' : `Mended payload (${codec})${encoding === 'text' ? '' : ', as base64'}`}
          </label>
          <textarea id="payload" name="payload" rows="8" spellcheck="false" required safe>
            {`\n${draft ?? kept}`}
          </textarea>
          {needsCodec && <ReadAs field="mended-codec" />}
          <button type="submit" name="as" value="mended" class="primary">
            Put back as written here
          </button>
        </form>
      ) : (
        <p class="aside" safe>
          {`It is too large to be mended here: weir dead-letters replay ${id} --payload FILE${needsCodec ? ' --codec json' : ''}`}
        </p>
      )}
      <form method="post" action={action} class="kept">
        {needsCodec && <ReadAs field="kept-codec" />}
        <button type="submit" name="as" value="kept" class="quiet">
          Put back as it arrived
        </button>
      </form>
    </section>
  )
}

function ReadAs({ field }: { field: string }): JSX.Element {
  return (
    <label for={field}>
      Read it as{' '}
      <select id={field} name="codec">
        {readableAs.map(({ codec, title }) => (
          <option value={codec} safe>
            {title}
          </option>
        ))}
      </select>
    </label>
  )
}

export function NoDeadLetter({
  assets,
  detail,
  title,
}: {
  assets: Assets
  detail: string
  title: string
}): JSX.Element {
  return (
    <Page assets={assets} title="Dead letter · Weir" here="pipeline" scripts={['plain.js']}>
      <h1>Dead letter</h1>
      <Notice title={title} detail={detail} />
      <p>
        <a href="/dead-letters">All dead letters</a>
      </p>
    </Page>
  )
}
