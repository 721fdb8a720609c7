// Every limit of the intake in one place: what it is, and what happens beyond it. Options that an operator sets are in runtime/config.ts.

const kibi = 1024
const mebi = 1024 * 1024

export const ingestLimits = {
  /** A CONNECT that announces more is closed before a byte of it is kept. */
  connectBytesMax: 16 * kibi,
  /** The same for every later packet. */
  packetBytesMax: 256 * kibi,
  /** From the accepted socket to a whole CONNECT. */
  connectWithinMs: 5_000,
  /** From a packet's first byte to its last. */
  packetWithinMs: 10_000,
  /** From CONNECT to its answer: authentication, and a session that is opened in the broker. */
  sessionWithinMs: 10_000,
  /** From an answer that ends a connection to the end, when the peer does not close by itself. */
  lingerMs: 500,

  clientIdBytesMax: 128,
  topicBytesMax: 512,
  topicLevelsMax: 100,

  /** Publishes of one connection that are not acknowledged yet; beyond it the socket is not read. */
  publishesInFlightMax: 128,
  /** Their bytes. */
  bytesInFlightMax: mebi,
  /** Read ahead of blocked publishes, so that a PINGREQ behind them is still answered. */
  lookAheadBytesMax: 64 * kibi,
  /** Packets that the broker has and has not dealt with, a connection. */
  passedInFlightMax: 64,
  passedBytesInFlightMax: 512 * kibi,
  /** QoS 2 publishes received and not yet released by PUBREL: more closes the connection (waiting would wait for ever). */
  unreleasedMax: 1024,
  /** Topics whose check and route a connection remembers. */
  topicsRememberedMax: 64,

  /** Written to a socket and not taken by the peer: beyond it nothing more is read from that peer … */
  outputBytesMax: 256 * kibi,
  /** … messages of QoS 0 for it are dropped beyond this (a burst of live telemetry passes, a frozen reader does not) … */
  outputBytesBeforeDropMax: mebi,
  /** … and when it takes nothing for this long it is closed. */
  outputStalledMsMax: 5_000,

  /** Beyond it the broker waits with what else it has for the peer. */
  sessionOutputBytesMax: 64 * kibi,

  filtersPerSubscribeMax: 8,
  filtersPerConnectionMax: 50,

  /** Copies of telemetry on their way to live subscribers, over all connections; beyond it copies are dropped. */
  copiesInFlightMax: 16_384,
  copiesBytesInFlightMax: 8 * mebi,

  /** Sessions that outlive their connection, and what each may hold. */
  sessionsMax: 10_000,
  sessionMessagesMax: 1_000,
  sessionBytesMax: mebi,
  sessionIdleMsMax: 24 * 60 * 60 * 1000,
  /** Over all sessions. */
  sessionsBytesMax: 64 * mebi,
  retainedMessagesMax: 10_000,
  retainedBytesMax: 16 * mebi,
} as const
