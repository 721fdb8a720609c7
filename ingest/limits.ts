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
  /** What a peer sent and went away is taken within this time; what is still without room then is lost, and counted. */
  leftWithinMs: 10_000,

  /**
   * What a device may owe of its rate (WEIR_RATE_LIMIT_READINGS_PER_S) when it comes anew and can't be made to wait: with telemetry as its will (beyond
   * it CONNACK 3), or on another socket of /v1/ingest (1013).
   */
  debtMsMax: 1_000,

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
  /** Of these, and of the room for waiting and retained messages, what one device may take where devices have tokens. */
  sessionsShareMax: 0.1,
  sessionMessagesMax: 1_000,
  sessionBytesMax: mebi,
  sessionIdleMsMax: 24 * 60 * 60 * 1000,
  /** Over all sessions. */
  sessionsBytesMax: 64 * mebi,
  retainedMessagesMax: 10_000,
  retainedBytesMax: 16 * mebi,

  /** A body over HTTP that announces more is refused before a byte of it is read; one that announces nothing, once it is larger. */
  bodyBytesMax: mebi,
  /** A body that is not whole must have brought so much more … */
  bodyStepBytes: 16 * kibi,
  /** … within this time. uWebSockets.js has a limit of its own, 8 to 12 s, at which it answers nothing. */
  bodyStepWithinMs: 7_000,
  /** Part of the memory of all publishes that unfinished bodies may hold; beyond it further ones are refused. */
  bodiesShareMax: 0.25,
  /** From a body's last byte to an answer: a log that takes longer is answered with 503, and what was sent may be kept all the same. */
  durableWithinMs: 10_000,
  /** Requests whose answer waits for the log. */
  requestsInFlightMax: 10_000,

  /** Connections of the gateway's port that are no WebSocket: more than there may be requests in flight. */
  gatewayConnectionsMax: 12_000,
  /** WebSockets of /v1/ingest at once. */
  ingestSocketsMax: 2_000,
  /** Those of them that have not said who they are; the one that has been silent longest makes room for one more. */
  ingestStrangersMax: 200,
  /** The frame that says so. */
  authFrameBytesMax: 1024,
  /** Messages of one of them that are not settled; announced in its hello, one more closes it. */
  ingestWindow: 64,
  /** A message; announced too. */
  ingestMessageBytesMax: 64 * kibi,
  /** A message that is larger than it may be is told so up to here; beyond, its socket is cut off without a word. */
  ingestMessageBytesReadMax: 256 * kibi,
  /** What a peer owes us reading of; acknowledgements are small, so one that does not take this much takes nothing. */
  ingestOutputBytesMax: 256 * kibi,

  /** MQTT over WebSocket: one frame, … */
  mqttFrameBytesMax: 320 * kibi,
  /** … what waits behind a front that does not read, for one socket (it can't be paused) … */
  mqttQueueBytesMax: 4 * mebi,
  /** … and over all of them, as a part of the memory of all publishes. */
  mqttQueuesShareMax: 0.5,
  /** Written by us and not taken. */
  mqttOutputBytesMax: 4 * mebi,

  /** A peer that says nothing and answers no ping is let go. */
  socketSilenceSecondsMax: 60,
} as const
