// Our own counters and gauges (a `metric` is what a device reports; these are `instruments`). Increased per chunk, commit or request,
// never per reading. Every process has one set; the first process hands its snapshot to the serving one, which answers /metrics for all.
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/** Plain data, so that it can cross a process boundary. */
export type InstrumentsSnapshot = Awaited<ReturnType<Registry['getMetricsAsJSON']>>

export interface Instruments {
  /**
   * Names end in `_total`; label values come from bounded sets. Who knows them beforehand says them, `{ cause: closeCauses }`, and each begins at 0:
   * a sample that only appears with its first event has no rate then, and no alarm hears of it. The same name twice gives the same counter,
   * with the values of both.
   */
  counter<Label extends string = never>(
    name: string,
    help: string,
    labels?: readonly Label[] | Readonly<Record<Label, readonly string[]>>,
  ): Counter<Label>
  /** `read` is asked when a snapshot is taken. */
  gauge(name: string, help: string, read: () => number): void
  histogram(name: string, help: string, buckets: readonly number[]): Histogram
  snapshot(): Promise<InstrumentsSnapshot>
}

export function createInstruments(process: string): Instruments {
  const registry = new Registry()
  registry.setDefaultLabels({ process })
  collectDefaultMetrics({ register: registry })
  return {
    counter(name, help, labels = []) {
      const labelNames = isList(labels) ? [...labels] : Object.keys(labels)
      const before = registry.getSingleMetric(name)
      const counter =
        before instanceof Counter ? before : new Counter({ name, help, labelNames, registers: [registry] })
      if (!isList(labels)) for (const each of combinationsOf(labels)) counter.inc(each, 0)
      return counter
    },
    gauge(name, help, read) {
      new Gauge({
        name,
        help,
        registers: [registry],
        collect() {
          this.set(read())
        },
      })
    },
    histogram(name, help, buckets) {
      return new Histogram({ name, help, buckets: [...buckets], registers: [registry] })
    },
    snapshot: () => registry.getMetricsAsJSON(),
  }
}

function isList(labels: object): labels is readonly string[] {
  return Array.isArray(labels)
}

function combinationsOf(labels: Readonly<Record<string, readonly string[]>>): readonly Record<string, string>[] {
  let all: Record<string, string>[] = [{}]
  for (const [label, values] of Object.entries(labels)) {
    all = all.flatMap((each) => values.map((value) => ({ ...each, [label]: value })))
  }
  return all
}

/** The sum of an instrument's samples; undefined: this process has no such instrument. */
export function readInstrument(snapshot: InstrumentsSnapshot, name: string): number | undefined {
  const found = snapshot.find((each) => each.name === name)
  return found?.values.reduce((sum, { value }) => sum + value, 0)
}

/** Prometheus text (version 0.0.4) of the snapshots of all processes. */
export function renderInstruments(snapshots: readonly InstrumentsSnapshot[]): string {
  const families = new Map<string, { help: string; type: string; lines: string[] }>()
  for (const snapshot of snapshots) {
    for (const metric of snapshot) {
      let family = families.get(metric.name)
      if (!family) {
        family = { help: metric.help, type: String(metric.type), lines: [] }
        families.set(metric.name, family)
      }
      for (const sample of metric.values) {
        const name = (sample as { metricName?: string }).metricName ?? metric.name
        const labels = Object.entries(sample.labels).map(([label, value]) => `${label}="${escapeLabel(String(value))}"`)
        family.lines.push(`${name}${labels.length > 0 ? `{${labels.join(',')}}` : ''} ${sample.value}`)
      }
    }
  }
  let text = ''
  for (const [name, family] of families) {
    text += `# HELP ${name} ${family.help.replaceAll('\n', ' ')}\n# TYPE ${name} ${family.type}\n${family.lines.join('\n')}\n`
  }
  return text
}

function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}
