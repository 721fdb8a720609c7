// Methods that Node's Buffer has and its types leave out. They skip the checks of toString() and are what a hot path wants.
export {}

declare global {
  interface Buffer {
    utf8Slice(start?: number, end?: number): string
    latin1Slice(start?: number, end?: number): string
    utf8Write(text: string, offset?: number, length?: number): number
    latin1Write(text: string, offset?: number, length?: number): number
  }
}
