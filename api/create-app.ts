// The API as an application without a port: tests and pages ask it in the same process, api-service.ts puts it on the network.
import { STATUS_CODES } from 'node:http'
import helmet from '@fastify/helmet'
import swagger from '@fastify/swagger'
import Fastify, { type FastifyInstance, type FastifyReply } from 'fastify'
import { jsonSchemaTransform, jsonSchemaTransformObject, type ZodTypeProvider } from 'fastify-type-provider-zod'
import type { z } from 'zod'
import type { ViewerAccess } from '../runtime/access/viewer-access.ts'
import { type AnswerLimits, boundAnswers, connectionIdleMsMax, connectionsMax } from './answer-budget.ts'
import type { ApiApp, ApiContext } from './context.ts'
import { guardRequests } from './guard.ts'
import { PipelineRates } from './pipeline-rates.ts'
import { installProblems, invalidParameters, problemMediaType, sendError } from './problems.ts'
import { anomalyRoutes } from './routes/anomalies.ts'
import { deadLetterRoutes } from './routes/dead-letters.ts'
import { deviceRoutes } from './routes/devices.ts'
import { latestRoutes } from './routes/latest.ts'
import { liveRoutes } from './routes/live.ts'
import { loginRoutes } from './routes/login.ts'
import { operationRoutes } from './routes/operations.ts'
import { readingRoutes } from './routes/readings.ts'
import { referenceRoutes } from './routes/reference.ts'
import { registryRoutes } from './routes/registry.ts'
import { seriesRoutes } from './routes/series.ts'

export interface AppOptions extends ApiContext {
  /** Who may look. */
  readonly access: ViewerAccess
  readonly rates?: PipelineRates
  readonly answers?: AnswerLimits
  readonly pages?: ((app: FastifyInstance) => Promise<void>) | undefined
}

const bodyBytesMax = 1024 * 1024
/** Who asks shows the admin token. */
const bearerEverywhere = () => ({
  components: { securitySchemes: { admin: { type: 'http' as const, scheme: 'bearer' } } },
  security: [{ admin: [] }],
})
/** Long enough for a hundred names in a query, and for a path parameter that is answered with 404. */
const targetLengthMax = 64 * 1024

export async function createApp({
  pages,
  rates = new PipelineRates(),
  answers,
  access,
  ...context
}: AppOptions): Promise<FastifyInstance> {
  const app = Fastify({
    bodyLimit: bodyBytesMax,
    routerOptions: { maxParamLength: 4_096, ignoreTrailingSlash: false },
    forceCloseConnections: 'idle',
    // A request that came over an open connection while we stop is answered like any other.
    return503OnClosing: false,
    requestTimeout: 30_000,
    connectionTimeout: connectionIdleMsMax,
    // Room for a hundred names in one query.
    http: { maxHeaderSize: targetLengthMax },
    // What Fastify refuses before it looks for a route: a path that is not UTF-8.
    frameworkErrors: (error, request, reply) => sendError(error, request, reply as FastifyReply, context.logger),
    // Bytes that are no HTTP never reach a route.
    clientErrorHandler(error, socket) {
      if (socket.writable && !socket.destroyed)
        socket.end(malformedAnswer(error.code === 'HPE_HEADER_OVERFLOW' ? 431 : 400))
    },
  })
  app.setValidatorCompiler(({ schema }) => (data) => {
    const parsed = (schema as z.ZodType).safeParse(data)
    return parsed.success ? { value: parsed.data } : { error: invalidParameters(parsed.error) }
  })
  // Answers are made by typed code, and tests hold every one to its schema; checking 50,000 readings again here would cost more than asking for them.
  app.setSerializerCompiler(() => (data) => JSON.stringify(data))
  app.server.maxConnections = connectionsMax
  installProblems(app, context.logger)
  guardRequests(app as unknown as ApiApp, access)
  boundAnswers(app as unknown as ApiApp, answers)
  await app.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'none'"],
        scriptSrc: ["'self'"],
        styleSrc: ["'self'"],
        imgSrc: ["'self'", 'data:'],
        connectSrc: ["'self'"],
        fontSrc: ["'self'"],
        baseUri: ["'none'"],
        formAction: ["'self'"],
        frameAncestors: ["'none'"],
      },
    },
    // Plain HTTP on loopback; who puts TLS in front says so there.
    strictTransportSecurity: false,
  })
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Weir',
        description: 'Readings of devices: the newest, the history, and live. Instants are epoch milliseconds.',
        version: '1',
      },
      ...(access.isRequired && bearerEverywhere()),
    },
    transform: jsonSchemaTransform,
    transformObject: jsonSchemaTransformObject,
  })
  const routes = app.withTypeProvider<ZodTypeProvider>() as unknown as ApiApp
  registerRoutes(routes, context, rates, access)
  loginRoutes(routes, access)
  if (context.registry) registryRoutes(routes, context, context.registry)
  referenceRoutes(app)
  if (pages) await app.register(async (scope) => pages(scope))
  return app
}

function registerRoutes(app: ApiApp, context: ApiContext, rates: PipelineRates, access: ViewerAccess): void {
  deviceRoutes(app, context)
  latestRoutes(app, context)
  readingRoutes(app, context)
  seriesRoutes(app, context)
  liveRoutes(app, context, access)
  anomalyRoutes(app, context)
  deadLetterRoutes(app, context)
  operationRoutes(app, context, rates)
}

function malformedAnswer(status: number): string {
  const title = STATUS_CODES[status]!
  const slug = title.toLowerCase().replaceAll(' ', '-')
  const body = JSON.stringify({
    type: `/problems/${slug}`,
    title,
    status,
    detail: 'This is not a usable HTTP request.',
  })
  return (
    `HTTP/1.1 ${status} ${title}\r\nContent-Type: ${problemMediaType}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n` +
    `Connection: close\r\n\r\n${body}`
  )
}
