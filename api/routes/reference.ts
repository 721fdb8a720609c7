// What the API is, made from the schemas that it runs on: the OpenAPI document, and a page for people made from the document.
import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import { type OpenApiDocument, referenceStyle, renderReference } from '../reference-page.ts'

const withoutParameters = { schema: { hide: true, querystring: z.strictObject({}) } as object }

export function referenceRoutes(app: FastifyInstance): void {
  app.get('/openapi.json', withoutParameters, async () => app.swagger())
  app.get('/docs', withoutParameters, async (_request, reply) =>
    reply.type('text/html; charset=utf-8').send(renderReference(app.swagger() as OpenApiDocument)),
  )
  app.get('/docs/style.css', withoutParameters, async (_request, reply) =>
    reply.type('text/css; charset=utf-8').header('cache-control', 'max-age=3600').send(referenceStyle),
  )
}
