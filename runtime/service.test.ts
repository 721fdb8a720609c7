import { describe, expect, it } from 'vitest'
import { type Service, startServices, stopServices } from './service.ts'

const recorder = (): { said: string[]; service: (name: string, fails?: keyof Service) => Service } => {
  const said: string[] = []
  const step = (name: string, word: keyof Service, fails?: keyof Service) => async (): Promise<void> => {
    said.push(`${word} ${name}`)
    if (word === fails) throw new Error(`${name} is broken`)
  }
  return {
    said,
    service: (name, fails) => ({
      name,
      start: step(name, 'start', fails),
      drain: step(name, 'drain', fails),
      stop: step(name, 'stop', fails),
      health: () => ({ state: 'ok' }),
    }),
  }
}

describe('services', () => {
  it('start in order; drain, then stop, in reverse', async () => {
    const { said, service } = recorder()
    const services = ['store', 'serve', 'intake'].map((name) => service(name))
    await startServices(services)
    expect(await stopServices(services, AbortSignal.timeout(1_000))).toEqual([])
    expect(said.map((each) => each.replace(/ .*/, '')).join(' ')).toBe(
      'start start start drain drain drain stop stop stop',
    )
    expect(said.slice(3, 6)).toEqual(['drain intake', 'drain serve', 'drain store'])
    expect(said.slice(6)).toEqual(['stop intake', 'stop serve', 'stop store'])
  })

  it('are rolled back when one fails to start, itself included', async () => {
    const { said, service } = recorder()
    const services = [service('store'), service('serve', 'start'), service('intake')]
    await expect(startServices(services)).rejects.toThrow('serve is broken')
    expect(said).toEqual(['start store', 'start serve', 'stop serve', 'stop store'])
  })

  it('that fail to drain keep nobody from stopping', async () => {
    const { said, service } = recorder()
    const problems = await stopServices([service('store'), service('intake', 'drain')], AbortSignal.timeout(1_000))
    expect(problems.map(({ message }) => message)).toEqual(['intake could not drain: intake is broken'])
    expect(said).toEqual(['drain intake', 'drain store', 'stop intake', 'stop store'])
  })
})
