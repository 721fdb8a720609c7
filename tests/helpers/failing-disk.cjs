// Loaded into the real product before anything of its own (NODE_OPTIONS=--require), by tests of a disk that fails: syncs of the files that the order
// names end with EIO, as the system would say it, as often as the order says. Nothing in the product knows of this.
const fs = require('node:fs')
const { syncBuiltinESMExports } = require('node:module')

const orderFile = process.env.FAILING_DISK_ORDER

function takesOrder(operation, descriptor) {
  let order
  try {
    order = JSON.parse(fs.readFileSync(orderFile, 'utf8'))
  } catch {
    return false
  }
  const rule = order[operation]
  if (!rule || rule.times <= 0 || !new RegExp(rule.file).test(fs.readlinkSync(`/proc/self/fd/${descriptor}`)))
    return false
  rule.times--
  fs.writeFileSync(`${orderFile}.new`, JSON.stringify(order))
  fs.renameSync(`${orderFile}.new`, orderFile)
  return true
}

for (const operation of ['fdatasync', 'fsync']) {
  const real = fs[operation]
  fs[operation] = (descriptor, done) => {
    if (!takesOrder(operation, descriptor)) return real(descriptor, done)
    const error = Object.assign(new Error(`EIO: i/o error, ${operation}`), {
      code: 'EIO',
      errno: -5,
      syscall: operation,
    })
    setImmediate(done, error)
  }
}
syncBuiltinESMExports()
