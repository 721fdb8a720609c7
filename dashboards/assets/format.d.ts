// The types of format.js for the server's side, which reads JavaScript only through declarations.
export interface SparkFrame {
  from: number
  to: number
  min: number
  max: number
}
export interface Range {
  readonly name: '15m' | '1h' | '6h' | '24h' | '7d' | '30d' | '90d'
  readonly label: string
  readonly ms: number
}
export function formatNumber(value: number): string
export function formatRate(rate: number): string
export function formatCount(count: number): string
export function formatDuration(ms: number): string
export function formatAge(ms: number): string
export const sparkWidth: number
export const sparkHeight: number
export function sparkFrame(values: readonly number[], from: number, to: number): SparkFrame
export function isSwitch(values: readonly number[]): boolean
export function sparkPoints(times: readonly number[], values: readonly number[], frame: SparkFrame): string
export function sparkRead(points: string, frame: SparkFrame): { times: number[]; values: number[] }
export const ranges: readonly Range[]
export function stepMs(resolution: string): number
export function pointsText(points: number): string
export function resolutionText(resolution: string): string
export function isGap(times: ArrayLike<number>, index: number, step: number): boolean
export function formatAgo(ms: number): string
export function orDash(value: number | null | undefined, format: (value: number) => string): string
export function formatBytes(bytes: number): string
export interface Stage {
  readonly perSecond: number | null
  readonly lagMs: number | null
}
export function stageState(stage: Stage): 'flows' | 'rests' | 'late' | 'stands' | 'unknown'
export function lagText(stage: Stage): string
export function slowestLag(stages: readonly Stage[]): number | null
export function deviceHref(device: string): string
export function aroundQuery(at: number): string
export function gapCauseText(cause: string): string
export function sparkFrom(times: ArrayLike<number>, from: number, to: number): number
export function trendText(points: number, from: number, to: number): string
export function limitText(kind: string): string
export const nothingFoundText: string
export function newestOfEach<T extends { device: string }>(anomalies: readonly T[], max: number): T[]
