/**
 * Default schedules, timeouts and limits, as data. Defaults of engine threads are where they are used, since threads do
 * not load `effect`.
 */
import { Duration, Schedule } from "effect"
import type { InferenceError } from "./InferenceError.ts"
import { streamDefaults } from "./StreamLimits.ts"

/** A crash after at least this uptime begins a new series of restarts. */
export const stableAfter = Duration.minutes(1)

/** Restarts of a crashed engine before its deployment counts as failed. */
export const restarts = 5

/** Time after the last failed restart until a request may try the deployment again. */
export const probeAfter = Duration.seconds(30)

/** When a crashed engine is started again. */
export interface EngineRestarts {
  readonly times: number
  readonly first: Duration.Duration
  readonly longest: Duration.Duration
  readonly stableAfter: Duration.Duration
  readonly retryAfter: Duration.Duration
}

/** After 0.1 s, doubling to at most 10 s. */
export const engineRestarts: EngineRestarts = {
  times: restarts,
  first: Duration.millis(100),
  longest: Duration.seconds(10),
  stableAfter,
  retryAfter: probeAfter
}

/** The schedule of restarts. Only crashes: a file that does not load fails again. */
export const restart = ({ first, longest, times }: EngineRestarts) =>
  Schedule.min([Schedule.exponential(first), Schedule.spaced(longest)]).pipe(
    Schedule.upTo({ times }),
    Schedule.setInputType<InferenceError>(),
    Schedule.while(({ input: { reason } }) => reason._tag === "EngineCrashed" || reason._tag === "EngineHung")
  )

/** When a service process that ended is started again: after 0.1 s, doubling to at most 10 s; at once after `stableAfter`. */
export const processRestart = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("10 seconds")])

/** How often a service process reports how many requests run there. */
export const runningReports = Duration.millis(500)

/** When a deployment's circuit opens, for how long, and when it closes again. */
export const breaker = {
  /** Consecutive failures. */
  opensAfter: 5,
  openFor: Duration.seconds(60),
  /** Consecutive successes while half open. */
  closesAfter: 3,
  /** Concurrent calls while half open, if no other deployment can take the request. */
  probes: 4
} as const

/** How long the configuration file must stay unchanged before it is read again. */
export const reloadWait = Duration.millis(250)

/**
 * How long a reload waits for a service process: one that starts, and one that makes itself ready, beside the time to load changed
 * models.
 */
export const reloadProcess = Duration.minutes(1)

/** A stream without a frame for this time gets one without content. Proxies often close connections after 30 or 60 s. */
export const streamKeepAlive = Duration.seconds(15)

/** Between two events that tell a caller who asks where its request waits. */
export const waitEvents = Duration.seconds(1)

/** The first wait of a circuit that opens because its host cannot be reached; each further one is twice as long. */
export const unreachableFor = Duration.seconds(1)

/** How long a capability counts as missing after an engine or a provider refused it. A new load ends this. */
export const missingFor = Duration.minutes(5)

/** Failures that take long, as time-outs do, are one event if they end within this time. */
export const slowEventFor = Duration.seconds(1)

/** Callers that may wait for one deployment, unless configured. */
export const queueLimit = 512

/** Time in the queue that raises the priority of a request by one. */
export const queueAgeing = Duration.seconds(10)

/** Minimum time that a loaded model stays before another model may take its memory. */
export const memoryHold = Duration.seconds(5)

/** Share of the machine's memory that models leave free. */
export const memoryReserve = 0.2

/** The share of memory in use at which each level of pressure begins, and what it unloads. */
export const memoryPressure = {
  every: Duration.seconds(30),
  warning: 0.7,
  critical: 0.85,
  emergency: 0.95,
  /** A level ends this far below its threshold. */
  hysteresis: 0.03,
  /** How long a model that is unloaded at the level has been idle. */
  warningIdle: Duration.minutes(1),
  criticalIdle: Duration.seconds(10)
}

/** When replicas of local deployments are added and removed: see `ScalingPolicy`. */
export const scaling = {
  every: Duration.seconds(5),
  /** Shares in use that are aimed at: of a deployment's slots, and of the machine. */
  targets: { slots: 0.7, cpu: 0.7, memory: 0.8, gpu: 0.85 },
  /** Times the target. */
  up: 1.2,
  down: 0.5,
  smoothing: Duration.seconds(30),
  upAfter: Duration.seconds(30),
  downAfter: Duration.minutes(5),
  cooldown: Duration.minutes(5),
  /** Between two additions. */
  addition: Duration.minutes(1),
  /** Replicas of one deployment. */
  most: 2
}

/** The budgets, bytes, below which a variant of at most 4 or 8 bits a weight is preferred. */
export const quantization = { int4Below: 2 * 2 ** 30, int8Below: 4 * 2 ** 30 }

/** An engine counts as hung after this time without progress of a job, unless configured. */
export const stallAfter = Duration.minutes(2)

/** How long a model may take to load, unless configured. */
export const loadTimeout = Duration.minutes(5)

/** Time that an engine has to close; then its process is killed, or its thread abandoned. */
export const closeGrace = Duration.seconds(5)

/** Time until an engine process with a cancelled job that still runs counts as hung and is killed. */
export const cancelGrace = Duration.seconds(30)

/** Tokens an engine may be ahead of its consumer, unless configured. */
export const streamWindow = streamDefaults.window

/** Computed prompts that are kept in files. */
export const prefixFiles = {
  /** Of all models together. */
  maxBytes: 2 * 2 ** 30,
  /** A file that was not used for this time is deleted. */
  ttl: Duration.days(7),
  /** How long an engine runs no job before its prompts are saved. */
  idle: Duration.seconds(1)
}

/** Records of decisions that are kept, the latest. */
export const keptDecisions = 1_000

/** Records of requests that were refused before they were routed, the latest. They take no place of the others. */
export const keptRefusals = 200

/** Refused requests that the live tail gets in one second. */
export const toldRefusals = 5

/** Decision records that have ended in one group. */
export const collectedDecisions = 256

/** Events for operators that are kept, the latest. */
export const keptEvents = 1_000

/** Deployments of each list in a kept record: candidates, excluded, spilled, fallbacks. */
export const listedInDecision = 20

/** Limits of cached answers. */
export const cache = {
  /** Of the answers that are kept as events. */
  memoryBytes: 64 * 2 ** 20,
  /** Number of the answers that are kept as text. */
  compactEntries: 1_000,
  compactBytes: 64 * 2 ** 20,
  /** Number of the answers in the database. */
  storedEntries: 100_000,
  /** Of one answer. */
  largestBytes: 2 ** 20,
  timeToLive: Duration.hours(1),
  /** The longest time to live. */
  longestTimeToLive: Duration.days(30),
  /** How long a store keeps what has been cleared: longer than any answer. */
  marksKeptMs: Duration.toMillis(Duration.days(31))
}

/** Answers to similar requests. */
export const semanticCache = {
  threshold: 0.9,
  margin: 0.02,
  timeout: Duration.millis(500),
  /** Of each tenant and model. */
  entries: 1_000,
  bytes: 8 * 2 ** 20,
  /** Of all tenants and models. */
  totalBytes: 64 * 2 ** 20,
  /** Of a question, characters: an embedding of a longer text hides differences. */
  longestQuestion: 2_000
}

/** Rows on their way to storage: how many wait and are written together at most, and times in ms. */
export const writeBehind = {
  capacity: 10_000,
  groupSize: 500,
  delayMs: 5,
  /** Of the ledger: a transaction of few rows costs more than its rows. */
  ledgerDelayMs: 20,
  /** Between attempts, doubling. */
  pauseMs: 100,
  longestPauseMs: 5000,
  /** For the remaining rows at the end. */
  closeMs: 5000
}

/** Makers of signed reasoning. */
export const reasoningMakers = {
  /** Signatures that a process remembers: about 1 MB. */
  known: 10_000,
  /** How long a store remembers a signature. */
  keptMs: Duration.toMillis(Duration.days(7)),
  /** A store is asked for at most so many signatures of a request, the latest ones. */
  asked: 1_000,
  /** How long a request waits for the store. */
  timeoutMs: 500,
  /** After an answer that did not come, no request asks for so long. */
  pauseMs: 5_000
}

/** Embeddings, rankings or classifications of so many callers are one job of an engine. */
export const batchSize = 10

/** Maximum time that they are collected while the engine is busy. */
export const batchWait = Duration.millis(100)

/** Whether they are collected as long while the engine is idle. */
export const batchWaitIdle = false

/** How often memory and queues are sampled for the metrics. */
export const sampleInterval = Duration.seconds(5)

/** Failed attempts of one kind at one deployment are logged once in this time. */
export const attemptLogInterval = Duration.seconds(10)

/** How long an effect of the program's own metrics, cache or backoff may take. */
export const callbackLimit = Duration.seconds(5)

/**
 * When an interrupted download continues: after 0.5 s, doubling to at most 30 s, for 8 consecutive failures. A failure
 * after received bytes is the first of a new series.
 */
export const pullRetry = Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("30 seconds")]).pipe(
  Schedule.upTo({ times: 8 })
)

/**
 * Retries of a download that has received no bytes while its host cannot be reached: after 0.5, 1, 2 and 4 s, by
 * `pullRetry`. A wrong name or port fails within 10 s.
 */
export const pullUnreachableRetries = 4

/** A download without a byte for this time counts as interrupted. */
export const pullStall = Duration.seconds(30)

/** Interval at which a pull renews its lock. */
export const pullLockHeartbeat = Duration.seconds(5)

/** A lock that has not been renewed for this time is abandoned. */
export const pullLockExpiry = Duration.seconds(30)

/** Time limit for the first load of a model file and one token, after which the file is quarantined. */
export const inspectLimit = (fileBytes: number): Duration.Duration =>
  Duration.sum(Duration.minutes(2), Duration.seconds(fileBytes / 20e6))

/** How long the parts of a provider's answer may take, unless configured. */
export const upstream = {
  connect: Duration.seconds(10),
  idle: Duration.minutes(1),
  firstByte: Duration.minutes(1),
  firstToken: Duration.minutes(2),
  stall: Duration.minutes(1),
  total: Duration.minutes(10)
}

/** Maximum bytes of a provider's response body, unless configured. */
export const maxResponseBytes = 16 * 2 ** 20

/** Events of one stream that are not JSON and are left out; after one more, the stream has failed. */
export const skippedEvents = 3

/** Maximum bytes read of an error response; the message is at its start. */
export const maxRefusalBytes = 64 * 2 ** 10

/** Time limit for the body of an error response. */
export const refusalWait = Duration.seconds(2)

/** Time to wait for the rest of a body after a complete answer, so that its connection can be reused. */
export const drainWait = Duration.millis(250)

/** Time to wait for the usage after the finish reason of an answer. */
export const usageWait = Duration.seconds(1)

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

/** Concurrent requests to one remote deployment, unless configured. */
export const maxConcurrent = 64

/** Of a remote deployment with an adaptive limit. */
export const adaptiveConcurrency = { min: 1, max: 256, initial: 20 } as const

/** How long a provider's key is not used, ms: see `KeyPool.Cooldowns`. */
export const keyCooldowns = { limited: 1000, longest: 3_600_000, refused: 1000, longestRefused: 60_000 }

/**
 * Connections that wait until the service accepts them; the kernel has a limit too (`net.core.somaxconn`). With Node's 511,
 * thousands of connections at once are delayed by seconds or reset.
 */
export const connectionBacklog = 4096

/** Limits of burst work per turn of the event loop: count and ms. */
export const turns = {
  /** Requests that begin; with more than `limit` waiting, further ones are rejected. */
  arrivals: { limit: 2048, perTurn: 16, sliceMs: 25 },
  /** Responses to rejected requests. */
  refusals: { limit: Number.POSITIVE_INFINITY, perTurn: 64, sliceMs: 10 },
  /** Large bodies, to be parsed or decoded. */
  largeBodies: { limit: Number.POSITIVE_INFINITY, perTurn: 4, sliceMs: 25 }
}

/** Concurrent choices of one request (`n`), which limits its places in a queue. */
export const choicesAtOnce = 4
