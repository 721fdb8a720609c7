import { describe, expect, it } from 'vitest'
import { canonicalTimeZone, offsetMs, startOfLocalDate } from './time-zone.ts'

describe('a calendar day', () => {
  it.each([
    ['UTC', '2024-03-31', '2024-03-31T00:00:00Z'],
    ['Europe/Berlin', '2024-03-31', '2024-03-30T23:00:00Z'],
    ['Europe/Berlin', '2024-04-01', '2024-03-31T22:00:00Z'],
    ['Europe/Berlin', '2024-10-28', '2024-10-27T23:00:00Z'],
    ['America/New_York', '2024-11-04', '2024-11-04T05:00:00Z'],
    ['Asia/Kathmandu', '2024-01-01', '2023-12-31T18:15:00Z'],
    // The clock goes from 23:59:59 to 01:00: midnight does not exist.
    ['America/Sao_Paulo', '2018-11-04', '2018-11-04T03:00:00Z'],
    ['Asia/Beirut', '2022-03-27', '2022-03-26T22:00:00Z'],
    ['America/Havana', '2024-03-10', '2024-03-10T05:00:00Z'],
    // The clock goes back from 01:00 to 00:00: midnight is there twice, and the first begins the day.
    ['America/Havana', '2024-11-03', '2024-11-03T04:00:00Z'],
    // The 30th was left out.
    ['Pacific/Apia', '2011-12-31', '2011-12-30T10:00:00Z'],
    ['Pacific/Apia', '2011-12-29', '2011-12-29T10:00:00Z'],
    ['Pacific/Kiritimati', '2024-01-01', '2023-12-31T10:00:00Z'],
    ['Australia/Lord_Howe', '2024-04-08', '2024-04-07T13:30:00Z'],
  ])('of %s, %s, begins at %s', (zone, date, expected) => {
    expect(new Date(startOfLocalDate(zone, date)).toISOString()).toBe(expected.replace('Z', '.000Z'))
  })

  it('begins where the local date changes, in every zone, on every day that its clock is changed', () => {
    for (const zone of ['Europe/Berlin', 'America/Sao_Paulo', 'Africa/Cairo', 'America/Asuncion', 'Asia/Tehran']) {
      for (let day = Date.UTC(1995, 0, 1); day < Date.UTC(2024, 0, 1); day += 86_400_000) {
        if (offsetMs(zone, day) === offsetMs(zone, day + 86_400_000)) continue
        const date = new Date(day).toISOString().slice(0, 10)
        const start = startOfLocalDate(zone, date)
        const dateAt = (at: number): string => new Date(at + offsetMs(zone, at)).toISOString().slice(0, 10)
        expect([zone, date, dateAt(start), dateAt(start - 1) < date]).toEqual([zone, date, date, true])
      }
    }
  })
})

describe('a zone', () => {
  it.each([
    ['Europe/Berlin', 'Europe/Berlin'],
    ['europe/berlin', 'Europe/Berlin'],
    ['UTC', 'UTC'],
    // The engine's own spelling.
    ['America/Argentina/Buenos_Aires', 'America/Buenos_Aires'],
    ['Etc/GMT+5', 'Etc/GMT+5'],
  ])('%s is known', (name, expected) => {
    expect(canonicalTimeZone(name)).toBe(expected)
  })
  it.each(['Mars/Olympus', '', '+02:00', 'Europe/Berlin; DROP', '../etc/passwd', 'x'.repeat(100)])(
    '%s is refused',
    (name) => {
      expect(canonicalTimeZone(name)).toBeUndefined()
    },
  )
})
