// What README.md and docs/ name is there: files, headings, options, metrics, routes, kinds of problems, tests. What they tell people to run is run
// by tests/end-to-end/the-documents-as-written.test.ts.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { options } from '../runtime/config.ts'

const project = join(import.meta.dirname, '..')
const read = (file: string): string => readFileSync(join(project, file), 'utf8')
const filesIn = (folder: string, ending: RegExp): string[] =>
  readdirSync(join(project, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && ending.test(entry.name))
    .map((entry) => relative(project, join(entry.parentPath, entry.name)))
const documents = ['README.md', 'ARCHITECTURE.md', ...filesIn('docs', /\.md$/)]
/** Decisions tell of what was, too. */
const manuals = documents.filter((file) => !file.startsWith('docs/decisions/'))
const sources = ['api', 'dashboards', 'ingest', 'runtime', 'storage', 'stream', 'cli']
  .flatMap((folder) => filesIn(folder, /(?<!\.test)\.tsx?$/))
  .map(read)
  .join('\n')

/** Everything in a text that matches, once. */
const named = (text: string, pattern: RegExp): string[] => [
  ...new Set([...text.matchAll(pattern)].map(([, it]) => it!)),
]

/** As the pages of a repository make them of a heading. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-')
const anchorsOf = (file: string): string[] =>
  named(read(file).replaceAll(/^```[\s\S]*?^```/gm, ''), /^#+ (.+)$/gm).map(anchorOf)

it.each(documents)('%s links to what is there', (file) => {
  for (const link of named(read(file), /\]\((?!https?:)([^)\s]+)\)/g)) {
    const [path = '', anchor] = link.split('#')
    const target = path === '' ? file : relative(project, resolve(project, dirname(file), path))
    expect(existsSync(join(project, target)), `${link} in ${file}`).toBe(true)
    if (anchor !== undefined && !statSync(join(project, target)).isDirectory())
      expect(anchorsOf(target), `${link} in ${file}`).toContain(anchor)
  }
})

describe.each(manuals)('%s names', (file) => {
  const text = read(file)

  it('options that there are', () => {
    const known = new Set(Object.keys(options).map((name) => `WEIR_${name.replace(/[A-Z]/g, '_$&').toUpperCase()}`))
    // Those of the tests are theirs; an ellipsis stands for several.
    const names = named(text, /\b(WEIR_(?!TEST_)[A-Z_]*[A-Z])\b(?!…|_)/g)
    expect(names.filter((name) => !known.has(name))).toEqual([])
  })

  it('metrics that there are', () => {
    const names = named(text, /`(weir(?:_[a-z]+){2,})[`{]/g)
    // Those of detection are named after their totals.
    const camel = (name: string): string =>
      name.replace(/^weir_detector_/, '').replaceAll(/_(.)/g, (_, it) => it.toUpperCase())
    const isThere = (name: string): boolean =>
      new RegExp(`\\b${name}\\b`).test(sources) ||
      (name.startsWith('weir_detector_') && sources.includes(` ${camel(name)}: '`))
    expect(names.filter((name) => !isThere(name))).toEqual([])
  })

  it('kinds of problems that there are', () => {
    const slugs = named(text, /(?:\/problems|…)\/([a-z]+(?:-[a-z]+)+)/g)
    expect(slugs.filter((slug) => !sources.includes(`'${slug}'`))).toEqual([])
  })

  it('routes that there are', () => {
    const routes = named(text, /(?<![\w-])(\/v1\/[a-z][\w/{}-]*[\w}])/g)
    const isThere = (route: string): boolean => {
      // An example has the name of a device where the route has its place.
      const parts = route.split('/').map((part) => (/^\{.*\}$|^[a-z]+-\d+$/.test(part) ? '[:{$][a-zA-Z{}()]+' : part))
      return new RegExp(`['\`]${parts.join('/')}['\`/]`).test(sources)
    }
    expect(routes.filter((route) => !isThere(route))).toEqual([])
  })

  it('tests that there are', () => {
    const tests = filesIn('tests', /\.test\.ts$/).join('\n')
    const names = named(text, /npm test -- ([^`]+)`/g).flatMap((words) => words.split(' '))
    expect(names.filter((name) => !tests.includes(name))).toEqual([])
  })
})
