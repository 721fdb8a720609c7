// By which name a request may come, in the words of whoever is refused.
import { expect, it } from 'vitest'
import { foreignHost, type OriginRules } from './request-origin.ts'

const rules = (host: string): OriginRules => ({ host, hostNames: ['weir.example'], checksHost: true })

it('says a name that can be used, also where every address is bound', () => {
  expect(foreignHost('evil.example:8080', rules('127.0.0.1'))?.message).toMatch(/: use 127\.0\.0\.1, or set WEIR_HOST/)
  expect(foreignHost('evil.example:8080', rules('0.0.0.0'))?.message).toMatch(/: use 127\.0\.0\.1, or set WEIR_HOST/)
  expect(foreignHost('evil.example:8080', rules('10.0.0.7'))?.message).toMatch(/: use 10\.0\.0\.7, or set WEIR_HOST/)
})

it('lets in loopback, names without a dot (those of services in a network of containers), and those that are given', () => {
  for (const host of ['127.0.0.1:8080', 'localhost', '[::1]:8080', 'ingest:8081', 'weir.example'])
    expect(foreignHost(host, rules('0.0.0.0')), host).toBeUndefined()
})
