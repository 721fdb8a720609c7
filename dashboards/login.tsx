// The way in, where looking takes the admin token: one field, which works without scripts.
import type { Assets } from './assets.ts'
import { attribute, Notice, Page } from './layout.tsx'

export function Login({ assets, next, wrong }: { assets: Assets; next: string; wrong: boolean }): JSX.Element {
  return (
    <Page assets={assets} title="Sign in · Weir" scripts={['plain.js']}>
      <section class="panel login">
        <h1>Sign in</h1>
        <p>
          This Weir shows its readings to whoever has the admin token: the value of <code>WEIR_ADMIN_TOKEN</code> where
          it was started.
        </p>
        {wrong && <Notice title="That was not it" detail="The token is another one. Nothing is locked: try again." />}
        <form method="post" action="/login">
          <input type="hidden" name="next" value={attribute(next)} />
          <label for="token">Admin token</label>
          <input id="token" name="token" type="password" autocomplete="current-password" required autofocus />
          <button type="submit" class="primary">
            Sign in
          </button>
        </form>
      </section>
    </Page>
  )
}
