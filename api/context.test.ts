import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { goneSignal } from './context.ts'

describe('a question to the store', () => {
  const reply = (): { readonly raw: ServerResponse } => ({ raw: new ServerResponse(new IncomingMessage(new Socket())) })

  it('is ended when nobody waits for the answer any more', () => {
    const asked = reply()
    const signal = goneSignal(asked)
    expect(signal.aborted).toBe(false)
    asked.raw.emit('close')
    expect(signal.aborted).toBe(true)
  })

  it('is ended when a store that hangs gives no answer', async () => {
    const signal = goneSignal(reply(), 20)
    await waitFor(() => signal.aborted)
  })
})
