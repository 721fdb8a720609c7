import { describe, expect, it } from 'vitest'
import { type DeviceCredential, everyone, isDevicePattern, maySpeakFor, ownerOf, speaksForAll } from './authority.ts'

const of = (device: string, ...speaksFor: string[]): DeviceCredential => ({
  tokenId: 't',
  tenant: 'default',
  device,
  speaksFor,
})

describe('a credential', () => {
  it.each([
    [of('d1'), 'd1', true],
    [of('d1'), 'd10', false],
    [of('d1'), 'd', false],
    [of('d1'), '', false],
    [of('g', 'hall-*'), 'hall-', true],
    [of('g', 'hall-*'), 'hall-7', true],
    [of('g', 'hall-*'), 'hal', false],
    [of('g', 'hall-*'), 'g', true],
    [of('g', 'd1', 'd2'), 'd2', true],
    [of('g', 'd1', 'd2'), 'd22', false],
    [of('g', '*'), 'anything', true],
    [everyone, 'anything', true],
  ])('%j for %j: %j', (credential, device, may) => expect(maySpeakFor(credential, device)).toBe(may))

  it('speaks for all or not', () => {
    expect([everyone, of('g', '*'), of('g', 'a*'), of('*')].map(speaksForAll)).toEqual([true, true, false, false])
  })

  it('belongs to a device, whichever token it came by', () => {
    expect(ownerOf(of('d'))).toBe(ownerOf({ ...of('d', 'x'), tokenId: 'u' }))
    expect(ownerOf(of('d'))).not.toBe(ownerOf(of('e')))
  })
})

it.each([
  ['*', true],
  ['a*', true],
  ['a', true],
  ['', false],
  ['**', false],
  ['a*b', false],
  ['a b*', false],
])('%j is a pattern: %j', (text, is) => expect(isDevicePattern(text)).toBe(is))
