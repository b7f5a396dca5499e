/** What an operator sees and does: the shapes of `/admin`. */
import { Schema } from "effect"
import { BudgetState } from "../../services/budgets/BudgetReport.ts"
import { Grant, VirtualKey } from "../../services/keys/VirtualKey.ts"
import { groups, UsageSum } from "../../services/ledger/Usage.ts"
import { UsageSelection } from "../../services/ledger/UsageSelection.ts"
import { OperatorEvent } from "../../services/observability/OperatorEvents.ts"
import { Record } from "../../services/routing/DecisionRecord.ts"
import { DecisionSummary } from "../../services/routing/DecisionSummary.ts"
import { names as statusNames } from "../../services/routing/RequestStatus.ts"
import { VersionView } from "./RolloutSchema.ts"

const State = Schema.Literals(["cold", "loading", "ready", "draining", "failed"])

const Phase = Schema.Literals(["closed", "open", "half-open"])

/** A deployment's circuit as it is now: see `Breaker`. */
export const Circuit = Schema.Struct({
  deployment: Schema.String,
  phase: Phase,
  /** ms until a call is let through; 0 where one is now. */
  retryAfterMs: Schema.Finite,
  /** Calls that have gone well since it was half open. */
  successes: Schema.Int
})
export type Circuit = typeof Circuit.Type

/** Of every deployment that exists and has been called. */
export const Circuits = Schema.Struct({ circuits: Schema.Array(Circuit) })
export type Circuits = typeof Circuits.Type

/** A change of a deployment's circuit. */
export const CircuitEvent = Schema.Struct({
  deployment: Schema.String,
  from: Phase,
  to: Phase,
  /** ms since 1970 */
  at: Schema.Finite
})

/** One deployment as it is now. */
export const Deployment = Schema.Struct({
  deployment: Schema.String,
  model: Schema.String,
  engine: Schema.String,
  /** Of a remote deployment: its provider. */
  provider: Schema.optionalKey(Schema.String),
  state: State,
  /** Jobs that hold a slot. */
  running: Schema.Int,
  /** Of a deployment with an adaptive limit of concurrency: how many may run now, in all processes. */
  limit: Schema.optionalKey(Schema.Int),
  /** Of a loaded deployment: how many jobs may hold a slot now. */
  slots: Schema.optionalKey(Schema.Int),
  /** Of a loaded deployment: the engines that share its jobs. */
  replicas: Schema.optionalKey(Schema.Int),
  /** Of a loaded llama deployment: the compute threads of each engine, for answers and for prompts. */
  threads: Schema.optionalKey(Schema.Struct({ answers: Schema.Int, prompts: Schema.Int })),
  /** Callers that wait. */
  queued: Schema.Int,
  /** How long the caller has waited that waits longest, ms; left out where none waits. */
  oldestWaitMs: Schema.optionalKey(Schema.Finite),
  /** Where an operator has drained it: whether it still has requests or an engine. It gets no new ones until it is resumed. */
  drain: Schema.optionalKey(Schema.Literals(["draining", "drained"])),
  /** How often its engine has ended without being asked to; left out, never. */
  restarts: Schema.optionalKey(Schema.Int),
  /** Of its engine's process, resident. */
  memoryBytes: Schema.Int,
  pinned: Schema.Boolean,
  /** Of a local model with several files (`variants`): the path of the one that is loaded. */
  variant: Schema.optionalKey(Schema.String),
  /** Of a local model with LoRA adapters. */
  lora: Schema.optionalKey(Schema.Array(Schema.Struct({ path: Schema.String, scale: Schema.Finite }))),
  /** Of a rollout or an A/B test, or where a rollout has ended with another deployment: its share of the requests. */
  version: Schema.optionalKey(VersionView),
  /** Why it failed last. */
  lastFailure: Schema.optionalKey(Schema.String),
  /** Of a local model, where `scaling` is configured: its replicas, how many it may have, and why it has as many. */
  scaling: Schema.optionalKey(Schema.Struct({
    /** That get jobs. */
    replicas: Schema.Int,
    minReplicas: Schema.Int,
    maxReplicas: Schema.Int,
    /** Of the last decision. */
    reason: Schema.String,
    /** The last change since the start. */
    changed: Schema.optionalKey(Schema.Struct({
      direction: Schema.Literals(["up", "down"]),
      reason: Schema.String,
      /** ms since 1970 */
      at: Schema.Finite
    }))
  })),
  /** Where it is not closed. */
  circuit: Schema.optionalKey(Schema.Struct({ phase: Phase, retryAfterMs: Schema.Finite })),
  /**
   * Where its provider has limited or rejected keys: how many of them wait, how many it has rejected and not accepted since,
   * and ms until one that waits is tried again.
   */
  keys: Schema.optionalKey(
    Schema.Struct({ waiting: Schema.Int, total: Schema.Int, rejected: Schema.Int, retryAfterMs: Schema.Finite })
  )
})
export type Deployment = typeof Deployment.Type

export const Deployments = Schema.Struct({ deployments: Schema.Array(Deployment) })
export type Deployments = typeof Deployments.Type

const nextPage = {
  /** The `cursor` of the next page; left out on the last one. */
  next: Schema.optionalKey(Schema.String)
}

/** The latest first. */
export const Decisions = Schema.Struct({ decisions: Schema.Array(Record), ...nextPage })
export type Decisions = typeof Decisions.Type

/** The same in one line each. */
export const Requests = Schema.Struct({ requests: Schema.Array(DecisionSummary), ...nextPage })
export type Requests = typeof Requests.Type

/** Which requests are listed. */
export const DecisionQuery = Schema.Struct({
  limit: Schema.optionalKey(Schema.NumberFromString),
  model: Schema.optionalKey(Schema.String),
  deployment: Schema.optionalKey(Schema.String),
  status: Schema.optionalKey(
    Schema.String.annotate({ description: `One of ${statusNames.join(", ")}, or an HTTP status such as 429 or 5xx.` })
  ),
  tenant: Schema.optionalKey(Schema.String),
  key: Schema.optionalKey(Schema.String),
  since: Schema.optionalKey(Schema.NumberFromString),
  cursor: Schema.optionalKey(Schema.String)
})

/** A change of a deployment's state. */
export const Event = Schema.Struct({
  deployment: Schema.String,
  state: Schema.Literals(["loading", "ready", "draining", "gone", "failed"]),
  /** Why it loads again or has failed. */
  cause: Schema.optionalKey(Schema.String),
  /** Of a deployment at a provider. */
  isRemote: Schema.optionalKey(Schema.Boolean),
  /** ms since 1970 */
  at: Schema.Int
})

/** What operators act on, the latest first. */
export const Events = Schema.Struct({ events: Schema.Array(OperatorEvent) })

/** Which events. */
export const EventSelection = Schema.Struct({
  since: Schema.optionalKey(
    Schema.String.annotate({ description: "ms since 1970, or a date such as 2026-11-30T14:00:00Z. Default all." })
  ),
  kind: Schema.optionalKey(Schema.String.annotate({ description: "alert, circuit, engine, memory, model and so on." })),
  limit: Schema.optionalKey(Schema.NumberFromString)
})

const TierContents = Schema.Struct({ entries: Schema.Int, bytes: Schema.Int })

const questions = {
  ...TierContents.fields,
  /** Answers that were given to similar requests, since there are questions. */
  hits: Schema.Int
}

/** Of one tenant of a model. */
const QuestionContents = Schema.Struct({ model: Schema.String, tenant: Schema.String, ...questions })

const contents = {
  /** Answers that are ready to be sent. */
  memory: TierContents,
  /** Answers that are kept as text. */
  compact: TierContents,
  /** Whether a database or Redis keeps answers too. */
  store: Schema.Boolean,
  /** Questions of these answers, which similar requests are compared with. */
  semantic: Schema.Struct({ ...questions, questions: Schema.Array(QuestionContents) })
}

/** What the response cache holds. */
export const CacheContents = Schema.Struct(contents)
export type CacheContents = typeof CacheContents.Type

/** Which cached answers: those that have the model, tenant and key. */
export const CacheSelection = Schema.Struct({
  all: Schema.optionalKey(Schema.String.annotate({ description: "true, without other parameters: all answers." })),
  model: Schema.optionalKey(Schema.String),
  tenant: Schema.optionalKey(Schema.String),
  key: Schema.optionalKey(Schema.String)
})

/** What is left of the cache, and the number of answers that memory no longer has. */
export const CacheCleared = Schema.Struct({ cleared: Schema.Int, ...contents })
export type CacheCleared = typeof CacheCleared.Type

/** Whether a request can be sent again, and why not. */
const ReplayState = Schema.Struct({ possible: Schema.Boolean, reason: Schema.optionalKey(Schema.String) })
export type ReplayState = typeof ReplayState.Type

/** The record of one request. */
export const DecisionDetail = Schema.Struct({ ...Record.fields, replay: Schema.optionalKey(ReplayState) })
export type DecisionDetail = typeof DecisionDetail.Type

/** A request whose body is kept. */
export const KeptBody = Schema.Struct({
  path: Schema.String,
  /** Those that change how it is answered; none has a key. */
  headers: Schema.Record(Schema.String, Schema.String),
  /** As it arrived. */
  body: Schema.Unknown
})
export type KeptBody = typeof KeptBody.Type

/** A request that was sent again. */
export const Replay = Schema.Struct({
  /** The record of the request before it. */
  replayOf: Schema.String,
  /** The status of its answer. */
  status: Schema.Int,
  /** Its record; left out where it was refused before it was routed. */
  decision: Schema.optionalKey(Record),
  /** The body of its answer, in the dialect of the request. */
  answer: Schema.Unknown
})
export type Replay = typeof Replay.Type

/** What can be done to a model's deployments. */
export const actions = ["load", "unload", "reload", "pin", "unpin", "drain", "resume"] as const
export type Action = typeof actions[number]

export const isAction = (text: string): text is Action => (actions as ReadonlyArray<string>).includes(text)

/** An action in a path. Any text, so that one that there is not is answered as a path that there is not. */
export const ActionName = Schema.String.annotate({ description: `One of ${actions.join(", ")}`, examples: actions })

/** Virtual keys, newest first; those of the configuration last. */
export const Keys = Schema.Struct({ keys: Schema.Array(VirtualKey) })

/** A time that calendars have, ms since 1970. */
const Moment = Schema.Int.check(
  Schema.isBetween({ minimum: 0, maximum: 8_640_000_000_000_000 }, {
    message: "Expected whole milliseconds since 1970, at most 8640000000000000"
  })
)

/** What a new key may do. */
export const NewKey = Schema.Struct({
  ...Grant.fields,
  /** Left out, never. */
  expiresAt: Schema.optionalKey(Moment)
}).annotate({ identifier: "NewKey" })

/** A key and its new secret. */
export const IssuedKey = Schema.Struct({
  key: VirtualKey,
  /** It is not kept, and cannot be shown again. */
  secret: Schema.String,
  /**
   * Until when the secret before the last one would have been accepted, ms since 1970: it ends with this rotation. Left out
   * where there was none.
   */
  endedEarly: Schema.optionalKey(Schema.Finite)
})

/** When a key ends. */
export const Extension = Schema.Struct({
  /** ms since 1970, in the future; null for never. */
  expiresAt: Schema.NullOr(Moment)
})

/** How a key is rotated. */
export const Rotation = Schema.Struct({
  /** How long the secret before it is accepted, ms. */
  overlapMs: Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 365 * 86_400_000 }))
})

/** Which usage is reported, and how. */
export const UsageRequest = Schema.Struct({
  ...UsageSelection.fields,
  format: Schema.optionalKey(Schema.String.annotate({ description: "json or csv. Default by `Accept`, else json." }))
})

/** Sums of the ledger, one for each group. */
export const Usage = Schema.Struct({ by: Schema.Array(Schema.Literals(groups)), usage: Schema.Array(UsageSum) })

/** What is left of each budget that has been used: budgets of the settings first, then those of keys. */
export const Budgets = Schema.Struct({ budgets: Schema.Array(BudgetState) })
