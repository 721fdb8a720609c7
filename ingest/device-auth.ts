// Who may send: the one check behind every door of the intake (MQTT, MQTT over WebSocket, HTTP, /v1/ingest). A token is turned into a credential
// here, once a connection or request; what the credential may do is domain/authority.ts.
import { type DeviceCredential, everyone, maySpeakFor } from '../domain/authority.ts'
import { type DeviceName, defaultTenant } from '../domain/reading.ts'
import type { DeviceRegistry } from '../runtime/access/device-registry.ts'
import { bearerOf, isSameSecret, sha256Of } from '../runtime/access/device-token.ts'
import { insideName, insideToken } from '../runtime/access/viewer-access.ts'
import { type AccessOptions, requiresAuth } from '../runtime/config.ts'
import { RequestError } from '../runtime/errors.ts'
import type { ConnackCode, ConnectPacket } from './mqtt-frames.ts'

export interface DeviceAuth {
  readonly isRequired: boolean
  /** Undefined: nobody has this token. */
  byToken(token: string): DeviceCredential | undefined
  /** By the header `Authorization`; a problem (401) where it is missing or wrong. */
  byHeader(authorization: string): DeviceCredential | RequestError
  /**
   * The credential, or the code of the CONNACK that says no. `certificate`: the device that a certificate names which an authority of ours signed; it
   * takes the place of a token.
   */
  byConnect(connect: Pick<ConnectPacket, 'username' | 'password'>, certificate?: string): DeviceCredential | ConnackCode
  /** False once the token was revoked, or means something else. */
  stands(credential: DeviceCredential): boolean
  /** Called when a credential may have ceased to stand. */
  onChange(listener: () => void): void
  /** Whether a client id is the name of somebody else, or begins with it and a slash: nobody may take it first. */
  isForeignClientId(credential: DeviceCredential, clientId: string): boolean
}

/** Without authentication. */
export const openAuth: DeviceAuth = {
  isRequired: false,
  byToken: () => everyone,
  byHeader: () => everyone,
  byConnect: () => everyone,
  stands: () => true,
  onChange: () => {},
  isForeignClientId: () => false,
}

/** Of our own processes: it may speak for every device, and is never revoked. */
const inside: DeviceCredential = {
  tokenId: 'inside',
  tenant: defaultTenant,
  device: insideName,
  speaksFor: ['*'],
}

export function createDeviceAuth(config: AccessOptions, registry: DeviceRegistry | undefined): DeviceAuth {
  if (!requiresAuth(config)) return openAuth
  const insideHash = config.adminToken === undefined ? undefined : sha256Of(insideToken(config.adminToken))

  function byToken(token: string): DeviceCredential | undefined {
    const holder = registry?.holderOf(token)
    if (holder !== undefined) return holder
    return insideHash !== undefined && isSameSecret(token, insideHash) ? inside : undefined
  }

  /** Of a registered device alone, so that it can be shut out: by forgetting it. */
  function byCertificate(device: string): DeviceCredential | undefined {
    const known = registry?.deviceNow(device)
    return known && { tokenId: certificateId, tenant: known.tenant, device, speaksFor: known.speaksFor }
  }

  return {
    isRequired: true,
    byToken,

    byHeader(authorization) {
      if (authorization === '') return missingToken()
      const token = bearerOf(authorization)
      return (token === undefined ? undefined : byToken(token)) ?? wrongToken()
    },

    byConnect({ username, password }, certificate) {
      if (password === undefined && certificate !== undefined) {
        const credential = byCertificate(certificate)
        return credential && (username === undefined || isNamed(credential, username)) ? credential : 5
      }
      if (username === undefined || password === undefined) return 5
      if (password.length > tokenBytesMax) return 4
      const credential = byToken(password.toString('latin1'))
      return credential !== undefined && isNamed(credential, username) ? credential : 4
    },

    stands(credential) {
      if (credential === inside || registry === undefined) return credential === inside
      if (credential.tokenId !== certificateId) return registry.stands(credential)
      return registry.device(credential.device)?.speaksFor.join() === credential.speaksFor.join()
    },
    onChange: (listener) => registry?.onChange(listener),

    isForeignClientId(credential, clientId) {
      const slash = clientId.indexOf('/')
      const name = slash < 0 ? clientId : clientId.slice(0, slash)
      return registry?.device(name) !== undefined && !maySpeakFor(credential, name)
    },
  }
}

/** Instead of a token's id. */
const certificateId = 'certificate'
/** Longer than any token. */
const tokenBytesMax = 128

/** `device` or `device@tenant`; a device's name may have an @ of its own, so nothing is taken apart. */
function isNamed({ device, tenant }: DeviceCredential, username: string): boolean {
  return username === device || username === `${device}@${tenant}`
}

/** Why this credential may not send for this device; undefined: it may. */
export function foreignDevice(credential: DeviceCredential, device: DeviceName): RequestError | undefined {
  if (maySpeakFor(credential, device)) return undefined
  const detail = `The token of ${credential.device} is good for its own telemetry, not for that of ${device}.`
  return new RequestError(403, 'not-this-device', 'Not with the token of another device', detail)
}

const howTo = 'Send the device’s token as the header Authorization: Bearer …; weir device add NAME makes one.'

function missingToken(): RequestError {
  return new RequestError(401, 'unauthorised', 'Who are you?', howTo)
}

export function wrongToken(): RequestError {
  const detail = `This is no device’s token, or was revoked. ${howTo}`
  return new RequestError(401, 'wrong-token', 'Not with this token', detail)
}
