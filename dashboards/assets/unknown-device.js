// The page of a device that nobody has heard of: becomes the device's own with its first reading.
import { openLive } from './live.js'
import { byId } from './page.js'

const device = byId('unknown-device').dataset.device ?? ''
openLive(() => new URLSearchParams({ mode: 'latest', device }).toString(), {
  readings(items) {
    if (items.length > 0) location.reload()
  },
})
