// Loaded into the real product before anything of its own (NODE_OPTIONS=--require), by tests of machines whose clocks differ: this one's is ahead, or
// behind, by SHIFTED_CLOCK_MS. Nothing in the product knows of this.
const now = Date.now
const shiftMs = Number(process.env.SHIFTED_CLOCK_MS ?? 0)
Date.now = () => now() + shiftMs
