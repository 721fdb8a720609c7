// The OpenAPI document as a page that can be read: one section a route, its parameters, its answers. Nothing is loaded from elsewhere, nothing
// is scripted.

interface Schema {
  readonly description?: string
  readonly type?: string | readonly string[]
  readonly enum?: readonly unknown[]
  readonly default?: unknown
  readonly $ref?: string
  readonly items?: Schema
  readonly anyOf?: readonly Schema[]
  readonly oneOf?: readonly Schema[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  readonly const?: unknown
}

interface Operation {
  readonly summary?: string
  readonly description?: string
  readonly parameters?: readonly {
    readonly name: string
    readonly in: string
    readonly required?: boolean
    readonly description?: string
    readonly schema?: Schema
  }[]
  readonly responses?: Readonly<
    Record<
      string,
      { readonly description?: string; readonly content?: Readonly<Record<string, { readonly schema?: Schema }>> }
    >
  >
}

export interface OpenApiDocument {
  readonly info: { readonly title: string; readonly description?: string; readonly version: string }
  readonly paths?: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components?: { readonly schemas?: Readonly<Record<string, Schema>> }
}

export function renderReference({ info, paths = {}, components }: OpenApiDocument): string {
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  )
  const contents = operations.map(
    ({ path, method, operation }) =>
      `<li><a href="#${anchor(method, path)}"><code>${method} ${escaped(path)}</code></a> ${escaped(operation.summary ?? '')}</li>`,
  )
  const sections = operations.map(({ path, method, operation }) => renderOperation(method, path, operation))
  const schemas = Object.entries(components?.schemas ?? {}).map(
    ([name, schema]) =>
      `<section id="schema-${escaped(name)}"><h3>${escaped(name)}</h3>${renderSchema(schema)}</section>`,
  )
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escaped(info.title)} – reference</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/style.css">
</head>
<body>
<main>
<h1><a href="/">${escaped(info.title)}</a></h1>
<p>${escaped(info.description ?? '')} Version ${escaped(info.version)}. For programs: <a href="/openapi.json">/openapi.json</a>.</p>
<ul class="contents">${contents.join('\n')}</ul>
${sections.join('\n')}
<h2>Schemas</h2>
${schemas.join('\n')}
</main>
</body>
</html>
`
}

function renderOperation(
  method: string,
  path: string,
  { summary, description, parameters, responses }: Operation,
): string {
  const rows = (parameters ?? []).map(
    (parameter) =>
      `<tr><td><code>${escaped(parameter.name)}</code></td><td>${parameter.in}${parameter.required ? ', required' : ''}</td>` +
      `<td>${escaped(parameter.description ?? parameter.schema?.description ?? '')} ${choices(parameter.schema)}</td></tr>`,
  )
  const answers = Object.entries(responses ?? {}).map(([status, response]) => {
    const contents = Object.entries(response.content ?? {}).map(
      ([media, { schema }]) => `<code>${escaped(media)}</code> ${typeOf(schema)}`,
    )
    return `<tr><td><code>${escaped(status)}</code></td><td>${contents.join(', ')}</td></tr>`
  })
  return `<section id="${anchor(method, path)}">
<h2><code>${method} ${escaped(path)}</code></h2>
<p>${escaped(summary ?? '')}</p>
${description ? `<p>${escaped(description)}</p>` : ''}
${rows.length > 0 ? `<table><thead><tr><th>Parameter</th><th>In</th><th></th></tr></thead><tbody>${rows.join('')}</tbody></table>` : ''}
<table><thead><tr><th>Status</th><th>Answer</th></tr></thead><tbody>${answers.join('')}</tbody></table>
</section>`
}

function renderSchema(schema: Schema): string {
  const alternatives = schema.oneOf ?? schema.anyOf
  if (alternatives) return alternatives.map(renderSchema).join('<p>or</p>')
  const rows = Object.entries(schema.properties ?? {}).map(([name, property]) => {
    const need = schema.required?.includes(name) ? '' : ' (optional)'
    return `<tr><td><code>${escaped(name)}</code>${need}</td><td>${typeOf(property)}</td><td>${escaped(property.description ?? '')}</td></tr>`
  })
  return `<table><thead><tr><th>Field</th><th>Type</th><th></th></tr></thead><tbody>${rows.join('')}</tbody></table>`
}

function typeOf(schema: Schema | undefined): string {
  if (!schema) return ''
  if (schema.$ref) {
    const name = escaped(schema.$ref.split('/').at(-1)!)
    return `<a href="#schema-${name}">${name}</a>`
  }
  if (schema.const !== undefined) return `<code>${escaped(JSON.stringify(schema.const))}</code>`
  if (schema.enum) return schema.enum.map((each) => `<code>${escaped(JSON.stringify(each))}</code>`).join(' | ')
  if (schema.items) return `list of ${typeOf(schema.items)}`
  const alternatives = schema.oneOf ?? schema.anyOf
  if (alternatives) return alternatives.map(typeOf).join(' | ')
  return escaped([schema.type ?? 'any'].flat().join(' | '))
}

function choices(schema: Schema | undefined): string {
  if (!schema?.enum) return ''
  return `(${schema.enum.map((each) => `<code>${escaped(String(each))}</code>`).join(', ')})`
}

function anchor(method: string, path: string): string {
  return `${method}-${path}`.replace(/[^A-Za-z0-9]+/g, '-')
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}

export const referenceStyle = `:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 16px; }
h2 { margin-top: 48px; font-size: 1.2rem; }
table { border-collapse: collapse; width: 100%; margin: 8px 0; }
th, td { text-align: left; vertical-align: top; padding: 4px 8px; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
code { font-family: ui-monospace, monospace; font-size: 0.9em; overflow-wrap: anywhere; }
.contents { padding-left: 16px; }
`
