// The browser's own way of writing numbers, ages and sparklines (assets/format.js), for the server: what the first paint shows is what the
// scripts go on with.
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type * as Format from './assets/format.js'
import { packageDirectory } from './assets.ts'

const format: typeof Format = await import(pathToFileURL(join(packageDirectory, 'dashboards/assets/format.js')).href)

export const {
  aroundQuery,
  deviceHref,
  formatAge,
  formatAgo,
  formatBytes,
  formatCount,
  formatDuration,
  formatNumber,
  formatRate,
  isGap,
  isSwitch,
  lagText,
  limitText,
  newestOfEach,
  nothingFoundText,
  orDash,
  pointsText,
  ranges,
  resolutionText,
  slowestLag,
  sparkFrame,
  sparkFrom,
  sparkHeight,
  sparkPoints,
  sparkWidth,
  stageState,
  stepMs,
  trendText,
} = format
export type SparkFrame = Format.SparkFrame
