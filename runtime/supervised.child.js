// A child for the supervisor's tests, ruled by its environment and by its words: it becomes ready, refuses, dies, hangs, goes on after its parent.
const { BEHAVIOUR: behaviour, SAY_PARENT: sayParent } = process.env
if (behaviour === 'refuses') process.send({ kind: 'failed', message: 'The port is taken' }, () => process.exit(1))
else if (behaviour === 'dies') process.exit(3)
else if (behaviour === 'hangs at once') setInterval(() => {}, 1_000)
else {
  process.on('message', ({ kind }) => {
    if (kind === 'stop' && behaviour !== 'hangs') process.exit(0)
  })
  process.send({ kind: 'listening', name: 'http', url: `http://127.0.0.1:1/${sayParent ?? ''}` })
  const status = { process: 'x', at: 1, parts: { writer: { state: 'ok' } }, instruments: [] }
  process.send({ kind: 'status', status })
  process.send({ kind: 'ready' })
  // A child says how it is again and again.
  setInterval(() => process.send({ kind: 'status', status }), 20)
}
