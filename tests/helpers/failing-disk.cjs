// Loaded into the real product before anything of its own (NODE_OPTIONS=--require), by tests of a disk that fails: syncs of the files that the order
// names end with EIO, as the system would say it, as often as the order says. A write to a file that is open with O_DSYNC is a write and an fdatasync:
// the bytes are in the file, and EIO says that they may not be on the disk. Or they do not end at all, for as long as the order says so. Nothing in the
// product knows of this.
const fs = require('node:fs')
const { syncBuiltinESMExports } = require('node:module')

const orderFile = process.env.FAILING_DISK_ORDER
const stallLookMs = 50

function readOrder() {
  try {
    return JSON.parse(fs.readFileSync(orderFile, 'utf8'))
  } catch {
    return {}
  }
}

function isOf(rule, descriptor) {
  return new RegExp(rule.file).test(fs.readlinkSync(`/proc/self/fd/${descriptor}`))
}

function takesOrder(operation, descriptor) {
  const order = readOrder()
  const rule = order[operation]
  if (!rule || rule.times <= 0 || !isOf(rule, descriptor)) return false
  rule.times--
  fs.writeFileSync(`${orderFile}.new`, JSON.stringify(order))
  fs.renameSync(`${orderFile}.new`, orderFile)
  return true
}

function onceItAnswers(descriptor, go) {
  const { stall } = readOrder()
  if (stall && isOf(stall, descriptor)) setTimeout(onceItAnswers, stallLookMs, descriptor, go)
  else go()
}

function fault(operation) {
  return Object.assign(new Error(`EIO: i/o error, ${operation}`), { code: 'EIO', errno: -5, syscall: operation })
}

for (const operation of ['fdatasync', 'fsync']) {
  const real = fs[operation]
  fs[operation] = (descriptor, done) =>
    onceItAnswers(descriptor, () => {
      if (takesOrder(operation, descriptor)) setImmediate(done, fault(operation))
      else real(descriptor, done)
    })
}

const durable = new Set()
const { close, open, write } = fs
fs.open = (file, flags, ...rest) => {
  const done = rest.pop()
  open(file, flags, ...rest, (error, descriptor) => {
    if (!error && typeof flags === 'number' && (flags & fs.constants.O_DSYNC) !== 0) durable.add(descriptor)
    done(error, descriptor)
  })
}
fs.close = (descriptor, ...rest) => {
  durable.delete(descriptor)
  close(descriptor, ...rest)
}
fs.write = (descriptor, ...rest) => {
  if (!durable.has(descriptor)) return write(descriptor, ...rest)
  onceItAnswers(descriptor, () => {
    if (!takesOrder('fdatasync', descriptor)) return write(descriptor, ...rest)
    const done = rest.pop()
    write(descriptor, ...rest, (error) => done(error ?? fault('write')))
  })
}
syncBuiltinESMExports()
