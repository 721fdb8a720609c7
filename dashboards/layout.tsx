// The frame of every page: head, header with the connection mark, and the words for what can't be shown. Nothing inline: the
// Content-Security-Policy forbids it (security.ts).
import { escapeHtml } from '@kitajs/html'
import type { Assets } from './assets.ts'
import { formatAge, formatAgo } from './format.ts'

interface PageProperties {
  readonly assets: Assets
  readonly title: string
  /** Which entry of the navigation is here. */
  readonly here?: 'overview' | 'pipeline'
  /** Module scripts of assets/, run after uPlot where that is asked for. */
  readonly scripts?: readonly string[]
  readonly charts?: boolean
  readonly children?: JSX.Element | JSX.Element[]
}

export function Page({ assets, title, here, scripts = [], charts = false, children }: PageProperties): JSX.Element {
  return (
    <>
      {'<!doctype html>'}
      <html lang="en" data-live={attribute(assets.live ?? '')}>
        <head>
          <meta charset="utf-8" />
          <meta name="viewport" content="width=device-width, initial-scale=1" />
          <meta name="color-scheme" content="light dark" />
          <title safe>{title}</title>
          <link rel="icon" href={assets.url('weir.svg')} type="image/svg+xml" />
          {charts && <link rel="stylesheet" href={assets.url('uplot.css')} />}
          <link rel="stylesheet" href={assets.url('weir.css')} />
          {charts && <script defer src={assets.url('uplot.js')} />}
          {scripts.map((name) => (
            <script type="module" src={assets.url(name)} />
          ))}
        </head>
        <body>
          <a class="skip" href="#main">
            Skip to the content
          </a>
          <header class="top">
            <a class="brand" href="/" aria-label="Weir, overview">
              <Mark />
              <span>weir</span>
            </a>
            <nav aria-label="Pages">
              <a href="/" aria-current={here === 'overview' ? 'page' : undefined}>
                Overview
              </a>
              <a href="/pipeline" aria-current={here === 'pipeline' ? 'page' : undefined}>
                Pipeline
              </a>
              <a href="/docs">API</a>
            </nav>
            <p class="link" id="link" data-state="still" role="status" aria-live="polite">
              <span class="link-dot" aria-hidden="true" />
              <span id="link-text" />
            </p>
          </header>
          <main id="main">{children}</main>
          <footer class="bottom">
            <p>
              Times in <span id="zone">UTC</span>
            </p>
            {assets.signedIn && (
              <form method="post" action="/logout">
                <button type="submit" class="quiet">
                  Sign out
                </button>
              </form>
            )}
          </footer>
        </body>
      </html>
    </>
  )
}

/** Water over a step. */
function Mark(): JSX.Element {
  return (
    <svg width="28" height="24" viewBox="0 0 28 24" fill="none" aria-hidden="true" class="mark">
      <path d="M1 5h11c5 0 5 14 10 14h5" />
      <path d="M1 10h8c5 0 4.500 9 8 9" />
      <path d="M1 15h5c3 0 3 4 5 4" />
    </svg>
  )
}

/** An instant as an age that the browser keeps counting; without scripts it says how old it was when the page was made. */
export function Age({ at, now, ago = false }: { at: number; now: number; ago?: boolean }): JSX.Element {
  return (
    <time class="age" datetime={new Date(at).toISOString()} data-at={at} {...(ago ? { 'data-ago': '' } : {})} safe>
      {(ago ? formatAgo : formatAge)(now - at)}
    </time>
  )
}

/** What can't be shown just now, why, and what to do. */
export function Notice({
  title,
  detail,
  kind = 'warn',
}: {
  title: string
  detail: string
  kind?: 'warn' | 'note'
}): JSX.Element {
  return (
    <div class={`notice ${kind}`} role="status">
      <strong safe>{title}</strong>
      <p safe>{detail}</p>
    </div>
  )
}

/** Stretches that the live stream could not send, in words: filled by the scripts when the server declares one. */
export function Gaps(): JSX.Element {
  return <ul id="gaps" class="gaps" aria-label="Gaps in what came live" aria-live="polite" hidden />
}

/** For attributes: the JSX runtime escapes quotes there, but not the ampersand, which would change a name such as `&lt;`. */
export function attribute(text: string): string {
  return escapeHtml(text)
}
