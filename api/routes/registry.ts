// The registry of devices: labels, and the tokens that they show. Kept in a file that the intake watches (runtime/access/), so that a token works,
// and is gone, wherever it was made.
import { z } from 'zod'
import { isDevicePattern } from '../../domain/authority.ts'
import { defaultTenant, isDeviceName } from '../../domain/reading.ts'
import { addToken, type DeviceRegistry, ensureDevice, removeTokens } from '../../runtime/access/device-registry.ts'
import { labelNamePattern, type RegisteredDevice, registryLimits } from '../../runtime/access/registry-file.ts'
import { LimitError, RequestError, StartError } from '../../runtime/errors.ts'
import type { ApiApp, ApiContext } from '../context.ts'
import { decodePage, pageOf } from '../page.ts'
import { afterParameter, limitParameter, thingsLimitMax } from '../parameters.ts'
import {
  newTokenSchema,
  problemSchema,
  type RegistrationAnswer,
  registrationSchema,
  registrationsSchema,
} from '../wire.ts'

const params = z.object({
  device: z.string().refine(isDeviceName, 'is not the name of a device: 1–128 of A-Z a-z 0-9 . _ : - @, not . or ..'),
})
const registrationBody = z
  .strictObject({
    labels: z
      .record(
        z.string().regex(labelNamePattern, 'is not 1 to 64 characters of A-Z a-z 0-9 . _ -'),
        z.string().max(registryLimits.labelLengthMax),
      )
      .optional()
      .meta({ description: 'Instead of those that it has' }),
    speaksFor: z
      .array(z.string().refine(isDevicePattern, 'is neither the name of a device nor the beginning of one and *'))
      .optional()
      .meta({ description: 'Other devices that it may send for, by name or by the beginning of a name and `*`' }),
  })
  .meta({ id: 'RegistrationBody' })

export function registryRoutes(app: ApiApp, { clock }: ApiContext, registry: DeviceRegistry): void {
  const now = (): number => Math.floor(clock.nowMicros() / 1000)
  const refusals = { 400: problemSchema, 409: problemSchema, 503: problemSchema }

  app.register(async (scope) => {
    // An empty body is no body, whatever it says of itself.
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => {
      try {
        done(null, body === '' ? undefined : JSON.parse(String(body)))
      } catch {
        done(new RequestError(400, 'malformed-body', 'The body is not usable', 'The body is not JSON.'))
      }
    })
    const routes = scope as unknown as ApiApp

    routes.get(
      '/v1/registrations',
      {
        schema: {
          summary: 'Registered devices with their labels and the ids of their tokens',
          tags: ['devices'],
          querystring: z.strictObject({ limit: limitParameter(thingsLimitMax), after: afterParameter.optional() }),
          response: { 200: registrationsSchema, 400: problemSchema },
        },
      },
      async ({ query: { limit, after } }) => {
        const beyond = after === undefined ? '' : decodePage('registrations', ['string'], after)[0]
        const names = registry.names().filter((name) => name > beyond)
        return pageOf(
          names,
          limit,
          (name) => registrationOf(registry.device(name)!),
          (last) => ({ kind: 'registrations', key: [last] }),
        )
      },
    )

    routes.get(
      '/v1/devices/:device/registration',
      {
        schema: {
          summary: 'Labels of one device, whom it speaks for, and the ids of its tokens',
          tags: ['devices'],
          params,
          querystring: z.strictObject({}),
          response: { 200: registrationSchema, 404: problemSchema },
        },
      },
      async ({ params: { device } }) => registrationOf(registry.device(device) ?? notRegistered(device)),
    )

    routes.put(
      '/v1/devices/:device',
      {
        schema: {
          summary: 'Register a device, or change its labels',
          tags: ['devices'],
          params,
          querystring: z.strictObject({}),
          body: registrationBody.nullish(),
          response: { 200: registrationSchema, ...refusals },
        },
      },
      ({ params: { device }, body }) =>
        changed(
          registry.change((devices) => {
            const { labels, speaksFor } = body ?? {}
            const known = ensureDevice(devices, device, defaultTenant, now())
            const after = { ...known, ...(labels && { labels }), ...(speaksFor && { speaksFor }) }
            devices.set(device, after)
            return registrationOf(after)
          }),
        ),
    )

    routes.delete(
      '/v1/devices/:device',
      {
        schema: {
          summary: 'Forget a registration and all its tokens; readings stay',
          tags: ['devices'],
          params,
          querystring: z.strictObject({}),
          response: { 204: z.undefined(), 404: problemSchema, ...refusals },
        },
      },
      async ({ params: { device } }, reply) => {
        await changed(registry.change((devices) => devices.delete(device) || notRegistered(device)))
        return reply.status(204).send()
      },
    )

    routes.post(
      '/v1/devices/:device/tokens',
      {
        schema: {
          summary: 'A new token of a device, which is registered where it is not yet; shown this once',
          tags: ['devices'],
          params,
          querystring: z.strictObject({}),
          response: { 201: newTokenSchema, ...refusals },
        },
      },
      async ({ params: { device } }, reply) => {
        const made = await changed(
          registry.change((devices) => addToken(devices, ensureDevice(devices, device, defaultTenant, now()), now())),
        )
        return reply.status(201).header('cache-control', 'no-store').send(made)
      },
    )

    routes.delete(
      '/v1/devices/:device/tokens/:id',
      {
        schema: {
          summary: 'Revoke a token: live connections that were opened with it are closed within five seconds',
          tags: ['devices'],
          params: params.extend({ id: z.string() }),
          querystring: z.strictObject({}),
          response: { 204: z.undefined(), 404: problemSchema, ...refusals },
        },
      },
      async ({ params: { device, id } }, reply) => {
        await changed(
          registry.change((devices) => {
            const known = devices.get(device) ?? notRegistered(device)
            if (removeTokens(devices, known, (token) => token.id === id) === 0) noToken(device, id)
          }),
        )
        return reply.status(204).send()
      },
    )
  })
}

function registrationOf({ device, labels, speaksFor, addedAt, tokens }: RegisteredDevice): RegistrationAnswer {
  return {
    device,
    labels: { ...labels },
    speaksFor: [...speaksFor],
    addedAt,
    tokens: tokens.map(({ id, createdAt }) => ({ id, createdAt })),
  }
}

/** The registry speaks of limits and files; a caller is told in problems. */
async function changed<Answer>(change: Promise<Answer>): Promise<Answer> {
  try {
    return await change
  } catch (error) {
    if (error instanceof LimitError) throw new RequestError(409, 'registry-limit', 'That is too many', error.message)
    if (error instanceof StartError)
      throw new RequestError(503, 'registry-away', 'The registry cannot be changed at the moment', error.message)
    throw error
  }
}

function notRegistered(device: string): never {
  const detail = `${device} is not registered: PUT /v1/devices/${device}, or weir device add ${device}.`
  throw new RequestError(404, 'unknown-device', 'No such device', detail)
}

function noToken(device: string, id: string): never {
  const detail = `${device} has no token with the id ${JSON.stringify(id.slice(0, 64))}.`
  throw new RequestError(404, 'unknown-token', 'No such token', detail)
}
