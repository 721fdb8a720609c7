// What the browser is given beside the pages: our own scripts and styles as they lie in dashboards/assets/ (no build step), and uPlot as it is
// published. All of it sits in memory, compressed once; its address carries a hash of the whole set, so that it may be cached for ever.
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'
import type { FastifyInstance } from 'fastify'

const types: Readonly<Record<string, string>> = {
  js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
  svg: 'image/svg+xml',
}

interface Asset {
  readonly type: string
  readonly plain: Buffer
  readonly gzip: Buffer
  readonly brotli: Buffer
}

/** The checkout or package: the sources run from it, and so does dist/, into which assets are not copied. */
export const packageDirectory = findPackage(import.meta.dirname)
const assetsDirectory = join(packageDirectory, 'dashboards/assets')

function findPackage(from: string): string {
  for (let directory = from; ; directory = dirname(directory)) {
    if (existsSync(join(directory, 'package.json'))) return directory
    if (directory === dirname(directory)) throw new Error(`there is no package.json above ${from}`)
  }
}

export interface Assets {
  /** Where this page's browser finds live readings over WebSocket, `ws://host:port`; undefined: over HTTP alone. */
  readonly live?: string | undefined
  /** Whoever looks has signed in, and may sign out. */
  readonly signedIn?: boolean
  /** The address of a file of the set. */
  url(name: string): string
  readonly names: readonly string[]
  /** What a browser that takes brotli loads, for the budget. */
  compressedBytes(): number
}

export function registerAssets(app: FastifyInstance): Assets {
  const assets = readAssets()
  const hash = createHash('sha256')
  for (const [name, asset] of assets) hash.update(name).update('\0').update(asset.plain)
  const version = hash.digest('hex').slice(0, 12)

  app.get<{ Params: { version: string; name: string } }>(
    '/assets/:version/:name',
    { schema: { hide: true } as object },
    (request, reply) => {
      const asset = assets.get(request.params.name)
      if (!asset) return reply.code(404).type('text/plain; charset=utf-8').send('There is no such file.\n')
      // An older address gets what there is now, but nobody may keep it under that name.
      const current = request.params.version === version
      const accepted = String(request.headers['accept-encoding'] ?? '')
      const encoding = /\bbr\b/.test(accepted) ? 'brotli' : /\bgzip\b/.test(accepted) ? 'gzip' : 'plain'
      if (encoding !== 'plain') reply.header('content-encoding', encoding === 'brotli' ? 'br' : 'gzip')
      return reply
        .header('cache-control', current ? 'public, max-age=31536000, immutable' : 'no-store')
        .header('vary', 'accept-encoding')
        .header('x-content-type-options', 'nosniff')
        .type(asset.type)
        .send(asset[encoding])
    },
  )
  return {
    url: (name) => {
      if (!assets.has(name)) throw new Error(`dashboards/assets has no ${name}`)
      return `/assets/${version}/${name}`
    },
    names: [...assets.keys()],
    compressedBytes: () => [...assets.values()].reduce((sum, asset) => sum + asset.brotli.length, 0),
  }
}

function readAssets(): Map<string, Asset> {
  const uplot = dirname(createRequire(import.meta.url).resolve('uplot/package.json'))
  const paths = new Map([
    ['uplot.js', join(uplot, 'dist/uPlot.iife.min.js')],
    ['uplot.css', join(uplot, 'dist/uPlot.min.css')],
  ])
  for (const name of readdirSync(assetsDirectory).sort()) {
    if (!name.endsWith('.d.ts') && types[extension(name)]) paths.set(name, join(assetsDirectory, name))
  }
  const assets = new Map<string, Asset>()
  for (const [name, path] of paths) {
    const plain = readFileSync(path)
    assets.set(name, {
      type: types[extension(name)]!,
      plain,
      gzip: gzipSync(plain, { level: 9 }),
      brotli: brotliCompressSync(plain, { params: { [constants.BROTLI_PARAM_QUALITY]: 9 } }),
    })
  }
  return assets
}

function extension(name: string): string {
  return name.slice(name.lastIndexOf('.') + 1)
}
