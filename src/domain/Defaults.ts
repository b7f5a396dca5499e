/**
 * The schedules, timeouts and bounds of the house, as data. What only an engine thread needs to know stands beside its
 * use, as threads do not load `effect`.
 */
import { Duration, Schedule } from "effect"
import type { InferenceError } from "./InferenceError.ts"

/** An engine that ran this long before it crashed starts its restarts anew. */
export const stableAfter = Duration.minutes(1)

/** Restarts of a crashed engine before its deployment counts as failed. */
export const restarts = 5

/**
 * When a crashed engine is started again: after 0.1 s, doubling to at most 10 s. Only crashes: a file that does not
 * load will not load a moment later either.
 */
export const restart = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("10 seconds")]).pipe(
  Schedule.upTo({ times: restarts }),
  Schedule.setInputType<InferenceError>(),
  Schedule.while(({ input: { reason } }) => reason._tag === "EngineCrashed" || reason._tag === "EngineHung")
)

/** When a deployment's circuit opens, for how long, and when it closes again. */
export const breaker = {
  /** In a row. */
  opensAfter: 5,
  openFor: Duration.seconds(60),
  /** In a row, once calls are let through again. */
  closesAfter: 3,
  /** Calls at once while half open, where no other deployment can take the request. */
  probes: 4
} as const

/** The first wait of a circuit that opens because its host cannot be reached; each further one is twice as long. */
export const unreachableFor = Duration.seconds(1)

/** How long a capability that an engine or a provider refused is held to be missing, unless it is loaded again before. */
export const missingFor = Duration.minutes(5)

/** Failures that take long, as time-outs do, are one event if they end within this time. */
export const slowEventFor = Duration.seconds(1)

/** How long a deployment whose restarts are used up is left alone before a request may try it. */
export const probeAfter = Duration.seconds(30)

/** Callers that may wait for one deployment, unless configured. */
export const queueLimit = 512

/** Waiting that counts as one priority more. */
export const queueAgeing = Duration.seconds(10)

/** How long a model stays at least, once loaded, before another that needs its memory may have it. */
export const memoryHold = Duration.seconds(5)

/** The share of the memory there is that models leave free. */
export const memoryReserve = 0.2

/** An engine that gives no sign for so long while a job waits for it counts as hung, unless configured. */
export const stallAfter = Duration.minutes(2)

/** How long a model may take to load, unless configured. */
export const loadTimeout = Duration.minutes(5)

/** How long an engine may take to end in order; a process that holds one is killed then, a thread left behind. */
export const closeGrace = Duration.seconds(5)

/** How long a cancelled job may go on before its engine process counts as hung and is killed. */
export const cancelGrace = Duration.seconds(30)

/** Tokens an engine may be ahead of its consumer. */
export const streamWindow = 256

/** Tokens a consumer takes before it tells the engine: one message for many tokens. */
export const streamGrant = 64

/** Records of decisions that are kept, the latest. */
export const keptDecisions = 1_000

/** Deployments that a kept record lists of each kind: candidates, ruled out, set behind, and fallbacks. */
export const listedInDecision = 20

/** What is kept of earlier answers, for models that have them as their last fallback. */
export const cachedResponses = {
  entries: 10_000,
  bytes: 64 * 2 ** 20,
  /** Of one answer. */
  largestBytes: 2 ** 20,
  timeToLive: Duration.hours(1)
}

/** Requests for embeddings that one job of an engine takes together. */
export const batchSize = 10

/** How long requests for embeddings gather while the engine is at work. */
export const batchWait = Duration.millis(100)

/** How often memory and queues are sampled for the metrics. */
export const sampleInterval = Duration.seconds(5)

/**
 * When a cut download goes on: after 0.5 s, doubling to at most 30 s, for 8 failures in a row. One that brought bytes
 * before it failed starts the count anew.
 */
export const pullRetry = Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("30 seconds")]).pipe(
  Schedule.upTo({ times: 8 })
)

/**
 * Retries of a download that has brought nothing while its host cannot be reached: 0.5, 1, 2 and 4 s after one another,
 * by `pullRetry`. A wrong name or port fails within 10 s.
 */
export const pullUnreachableRetries = 4

/** A download without a byte for so long counts as cut. */
export const pullStall = Duration.seconds(30)

/** How often a pull says that it still has its lock. */
export const pullLockHeartbeat = Duration.seconds(5)

/** A pull's lock that said nothing for so long is abandoned. */
export const pullLockExpiry = Duration.seconds(30)

/** How long a model file may take to load and to compute a token before it is put in quarantine: for a slow disk. */
export const inspectLimit = (fileBytes: number): Duration.Duration =>
  Duration.sum(Duration.minutes(2), Duration.seconds(fileBytes / 20e6))

/** How long the parts of a provider's answer may take, unless configured. */
export const upstream = {
  connect: Duration.seconds(10),
  firstByte: Duration.minutes(1),
  firstToken: Duration.minutes(2),
  stall: Duration.minutes(1),
  total: Duration.minutes(10)
}

/** The largest body that is taken of a provider, bytes, unless configured. */
export const maxResponseBytes = 16 * 2 ** 20

/** So much of a refusal's body is read, bytes: its words stand at its beginning. */
export const maxRefusalBytes = 64 * 2 ** 10

/** How long a refusal's body may take. */
export const refusalWait = Duration.seconds(2)

/** How long a connection is kept for the rest of a body whose answer is whole, so that it can serve again. */
export const drainWait = Duration.millis(250)

/** Images that requests name by URL. */
export const media = {
  connect: Duration.seconds(5),
  /** For one of them. */
  total: Duration.seconds(20),
  /** For all of one request. */
  all: Duration.minutes(1),
  redirects: 3,
  /** Of one request at once. */
  concurrency: 4,
  /** Of all images of one request, bytes. */
  mostBytes: 64 * 2 ** 20
}

/** Requests that one remote deployment is sent side by side, unless configured. */
export const maxConcurrent = 64

/** How long a provider's key is not used, ms: see `KeyPool.Cooldowns`. */
export const keyCooldowns = { limited: 1000, longest: 3_600_000, refused: 1000, longestRefused: 60_000 }

/** What of one turn of the event loop may go to work that comes in floods: how many, and ms. */
export const turns = {
  /** Requests that begin; more than so many that wait are refused. */
  arrivals: { limit: 2048, perTurn: 16, sliceMs: 25 },
  /** Answers to those that are refused. */
  refusals: { limit: Number.POSITIVE_INFINITY, perTurn: 64, sliceMs: 10 },
  /** Large bodies, to be parsed or decoded. */
  largeBodies: { limit: Number.POSITIVE_INFINITY, perTurn: 4, sliceMs: 25 }
}

/** Choices of one request (`n`) that are asked for side by side: one request takes no more places of a queue. */
export const choicesAtOnce = 4
