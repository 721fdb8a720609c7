// uPlot as its own script defines it, before the modules run.
import type Plot from 'uplot'

declare global {
  const uPlot: typeof Plot
  type UPlot = Plot
  type UPlotOptions = Plot.Options
}
