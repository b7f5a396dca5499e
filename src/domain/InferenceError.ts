/**
 * Everything that can go wrong with a request, as one error with a `reason`.
 *
 * **Details**
 *
 * Each reason carries what a caller needs to act on it, and its `message` says what was wrong, the limit where there
 * is one, and what to do. No message holds a stack trace.
 *
 * **Example**
 *
 * ```ts
 * inference.generate(request).pipe(
 *   Effect.catchReason("InferenceError", "ContextLengthExceeded", (reason) =>
 *     Effect.logWarning(`${reason.promptTokens} tokens do not fit in ${reason.contextWindow}`))
 * )
 * ```
 */
import { Schema } from "effect"
import type { EngineCapability } from "./EngineProtocol.ts"
import { capabilityNames, engineCapabilities } from "./EngineProtocol.ts"
import * as ReasonMessage from "./ReasonMessage.ts"
import * as Text from "./Text.ts"

/** The request itself is wrong. `path` is that of the value, as `messages[0].content`. */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", {
  detail: Schema.String,
  path: Schema.optionalKey(Schema.String),
  /** Paths of further values with the same problem. */
  alsoAt: Schema.optionalKey(Schema.Array(Schema.String)),
  /** Whether the paths are those of the caller's own body (`Source`); default false: those of the request. */
  inBody: Schema.optionalKey(Schema.Boolean),
  /** The rule of the input policy that rejects the request, if one does. */
  rule: Schema.optionalKey(Schema.String),
  /** The provider cannot read the signed reasoning of the request: another host has made it. */
  isForeignReasoning: Schema.optionalKey(Schema.Boolean)
}) {
  override get message(): string {
    return this.path === undefined ? this.detail : `${[this.path, ...this.alsoAt ?? []].join(", ")}: ${this.detail}`
  }

  /** The same problem with other paths, as those of a dialect. */
  renamed(rename: (path: string) => string, detail = this.detail): InvalidRequest {
    const { alsoAt, inBody, isForeignReasoning, path, rule } = this
    return new InvalidRequest({
      detail,
      ...(path === undefined ? {} : { path: rename(path) }),
      ...(alsoAt === undefined ? {} : { alsoAt: alsoAt.map(rename) }),
      ...(inBody === undefined ? {} : { inBody }),
      ...(rule === undefined ? {} : { rule }),
      ...(isForeignReasoning === undefined ? {} : { isForeignReasoning })
    })
  }
}

/** No model of this name is configured. */
export class ModelNotFound extends Schema.TaggedError<ModelNotFound>()("ModelNotFound", {
  model: Schema.String,
  available: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return ReasonMessage.modelNotFound(this)
  }
}

/** The prompt leaves no room for an answer in the model's context window; both are in tokens, where they are known. */
export class ContextLengthExceeded extends Schema.TaggedError<ContextLengthExceeded>()("ContextLengthExceeded", {
  model: Schema.String,
  promptTokens: Schema.optionalKey(Schema.Int),
  contextWindow: Schema.optionalKey(Schema.Int),
  /** `promptTokens` is a lower bound: a prompt that cannot fit is not counted to its end. */
  atLeast: Schema.optionalKey(Schema.Boolean),
  /** `promptTokens` includes the answer that was asked for: the provider states only the sum. */
  withAnswer: Schema.optionalKey(Schema.Literal(true))
}) {
  override get message(): string {
    return ReasonMessage.contextLengthExceeded(this)
  }
}

/** The queue of the deployment is full. */
export class QueueFull extends Schema.TaggedError<QueueFull>()("QueueFull", {
  deployment: Schema.String,
  limit: Schema.Int,
  retryAfterMs: Schema.Finite
}) {
  override get message(): string {
    return `The queue of "${this.deployment}" is full (limit: ${this.limit} request${this.limit === 1 ? "" : "s"}). ` +
      `Retry in ${Math.ceil(this.retryAfterMs / 1000)} s.`
  }
}

/** Memory is short: requests with low priority are rejected. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", {
  retryAfterMs: Schema.Finite,
  /** The budgets of the request cannot be read: their storage is lost. Left out, memory is short. */
  budgets: Schema.optionalKey(Schema.Literal("unknown"))
}) {
  override get message(): string {
    return ReasonMessage.overloaded(this)
  }
}

/** The engine crashed and all restarts have failed; the next attempt is after `retryAfterMs`. */
export class DeploymentDown extends Schema.TaggedError<DeploymentDown>()("DeploymentDown", {
  deployment: Schema.String,
  detail: Schema.String,
  retryAfterMs: Schema.Finite
}) {
  override get message(): string {
    return `"${this.deployment}" is down: ${this.detail} Retry in ${Math.ceil(this.retryAfterMs / 1000)} s.`
  }
}

/** The model does not fit in memory; both figures are in bytes. */
export class InsufficientMemory extends Schema.TaggedError<InsufficientMemory>()("InsufficientMemory", {
  deployment: Schema.String,
  neededBytes: Schema.Finite,
  availableBytes: Schema.Finite
}) {
  override get message(): string {
    return ReasonMessage.insufficientMemory(this)
  }
}

/** The engine made no progress for `afterMs` and was stopped. */
export class EngineHung extends Schema.TaggedError<EngineHung>()("EngineHung", {
  deployment: Schema.String,
  afterMs: Schema.Finite
}) {
  override get message(): string {
    return `The engine of "${this.deployment}" made no progress for ${
      this.afterMs / 1000
    } s and was stopped. Retry the request.`
  }
}

/** The model file or the engine's library could not be loaded. */
export class ModelLoadFailed extends Schema.TaggedError<ModelLoadFailed>()("ModelLoadFailed", {
  deployment: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `The deployment "${this.deployment}" could not be loaded: ${this.detail}`
  }
}

/** The package that the engine needs is not installed. */
export class EngineMissing extends Schema.TaggedError<EngineMissing>()("EngineMissing", {
  deployment: Schema.String,
  packageName: Schema.String
}) {
  override get message(): string {
    return `The deployment "${this.deployment}" needs the package ${this.packageName}, which is not installed. ` +
      `Install it with: npm install ${this.packageName}`
  }
}

/** The engine's thread or process ended; the supervisor restarts it. */
export class EngineCrashed extends Schema.TaggedError<EngineCrashed>()("EngineCrashed", {
  deployment: Schema.String,
  detail: Schema.String,
  /** The process of the service that has all engines ended, not that of the deployment. */
  isService: Schema.optionalKey(Schema.Literal(true))
}) {
  override get message(): string {
    if (this.isService === true) return `${this.detail} Try again.`
    return `The engine of "${this.deployment}" crashed. ${this.detail} Try again.`
  }
}

/** Troupe shuts down, or an operator stopped the load. */
export class EngineStopped extends Schema.TaggedError<EngineStopped>()("EngineStopped", {
  deployment: Schema.String,
  /** What stopped the load that the caller waited for; left out, the answer had begun. */
  by: Schema.optionalKey(Schema.Literals(["unload", "replace", "scaling", "shutdown"]))
}) {
  override get message(): string {
    return ReasonMessage.engineStopped(this)
  }
}

/** The engine runs, but could not complete this request. */
export class EngineFailed extends Schema.TaggedError<EngineFailed>()("EngineFailed", {
  deployment: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `The engine of "${this.deployment}" failed: ${this.detail}`
  }
}

/** The provider failed: an error status, a broken connection, or an invalid answer. */
export class UpstreamFailed extends Schema.TaggedError<UpstreamFailed>()("UpstreamFailed", {
  deployment: Schema.String,
  /**
   * `network`: no connection, or it broke before the answer began. `status`: an HTTP error status. `cut`: the answer broke
   * off. `malformed`: not the provider's dialect. `empty`: an answer without content. `too_large`: more than the configured
   * limit. `redirect`: to another host. `diverged`: its text does not follow the answer that it was to continue.
   */
  kind: Schema.Literals(["network", "status", "cut", "malformed", "empty", "too_large", "redirect", "diverged"]),
  /** The HTTP status, where there was one. */
  status: Schema.optionalKey(Schema.Int),
  /** The wait that the provider requests. */
  retryAfterMs: Schema.optionalKey(Schema.Finite),
  detail: Schema.String
}) {
  override get message(): string {
    return `The provider of "${this.deployment}" failed: ${this.detail}`
  }
}

/** The deployment, local or remote, exceeded a time limit. */
export class UpstreamTimeout extends Schema.TaggedError<UpstreamTimeout>()("UpstreamTimeout", {
  deployment: Schema.String,
  /**
   * The phase whose limit was exceeded. `queue`: until a loaded engine granted a slot; `load`: the load of the model;
   * `stall`: between two pieces of an answer.
   */
  phase: Schema.Literals(["queue", "load", "connect", "first_byte", "first_token", "stall", "total"]),
  afterMs: Schema.Finite,
  /** The request set this limit: it does not count against the deployment. */
  byCaller: Schema.optionalKey(Schema.Boolean)
}) {
  override get message(): string {
    return `"${this.deployment}" took longer than ${this.afterMs} ms (${this.phase.replace("_", " ")}).`
  }
}

/** The provider limits the rate of requests (429). */
export class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", {
  deployment: Schema.String,
  /** The wait that the provider requests. */
  retryAfterMs: Schema.optionalKey(Schema.Finite),
  /** The provider was not called: the rate limit of every key is still in effect. */
  cached: Schema.optionalKey(Schema.Literal(true))
}) {
  override get message(): string {
    return ReasonMessage.rateLimited(this)
  }
}

/** The caller has no virtual key of this service that is valid now. */
export class Unauthenticated extends Schema.TaggedError<Unauthenticated>()("Unauthenticated", {
  problem: Schema.Literals(["missing", "unknown", "expired", "revoked"])
}) {
  override get message(): string {
    return ReasonMessage.unauthenticated(this)
  }
}

/** The caller's virtual key does not allow this. */
export class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", {
  detail: Schema.String,
  /** The model that the key does not allow, if it is that. */
  model: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    return this.model === undefined
      ? this.detail
      : `The API key does not have access to the model "${Text.cutName(this.model)}". ${this.detail}`
  }
}

/** All requests of a call with several prompts or choices. One of them is rejected. */
const Together = Schema.Struct({
  requests: Schema.Int,
  /** The most that all may cost. */
  needed: Schema.Finite
})

/** A limit of this service is reached: a rate, or requests at the same time. */
export class LimitExceeded extends Schema.TaggedError<LimitExceeded>()("LimitExceeded", {
  /** The name of the limit, as `requestsPerHour` or `parallel`. */
  limit: Schema.String,
  /** What shares it, as `user ada, endpoint chat`. */
  counter: Schema.String,
  most: Schema.Int,
  remaining: Schema.Int,
  /** Of the request; left out, 1. */
  needed: Schema.optionalKey(Schema.Int),
  /** The largest `max_tokens` with which it, and its whole call, would fit; left out, none, or it has no answer of tokens. */
  mostTokens: Schema.optionalKey(Schema.Int),
  /** Left out: the call is this request alone. */
  together: Schema.optionalKey(Together),
  /** ms until it begins again; left out, it does not help to wait, or a running request has to end. */
  retryAfterMs: Schema.optionalKey(Schema.Finite)
}) {
  override get message(): string {
    return ReasonMessage.limitExceeded(this)
  }
}

/** What the request may cost does not fit into a budget. */
export class BudgetExceeded extends Schema.TaggedError<BudgetExceeded>()("BudgetExceeded", {
  /** What shares the budget, as `user ada`. */
  counter: Schema.String,
  period: Schema.Literals(["day", "week", "month", "total"]),
  measure: Schema.Literals(["usd", "tokens"]),
  most: Schema.Finite,
  spent: Schema.Finite,
  /** By requests that run. */
  reserved: Schema.Finite,
  /** The most that the request may cost. */
  needed: Schema.Finite,
  /** The largest `max_tokens` with which it, and its whole call, would fit; left out, none, or it has no answer of tokens. */
  mostTokens: Schema.optionalKey(Schema.Int),
  /** Left out: the call is this request alone. */
  together: Schema.optionalKey(Together),
  /** ms until the period ends; left out, it does not. */
  retryAfterMs: Schema.optionalKey(Schema.Finite),
  /** A deployment whose price is unknown: the cost of the request is not known. */
  unpriced: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    return ReasonMessage.budgetExceeded(this)
  }
}

/** The provider rejects the key (401, 403), its account has no credit left (402, `quota`), or no key is left. */
export class AuthenticationFailed extends Schema.TaggedError<AuthenticationFailed>()("AuthenticationFailed", {
  deployment: Schema.String,
  status: Schema.optionalKey(Schema.Int),
  /**
   * ms until a request tries the key again; only if the provider was not called because it has rejected the key before.
   */
  retryAfterMs: Schema.optionalKey(Schema.Finite),
  /** The quota or credit of the account is used up: the key is right, and waiting does not help. */
  quota: Schema.optionalKey(Schema.Literal(true))
}) {
  override get message(): string {
    return ReasonMessage.authenticationFailed(this)
  }
}

/** The provider rejected the content by its policy. */
export class ContentRefused extends Schema.TaggedError<ContentRefused>()("ContentRefused", {
  deployment: Schema.String,
  detail: Schema.String,
  /** The provider's refusal, in parts, as a provider of the caller's dialect sent it: see `Source.Native`. */
  answer: Schema.optionalKey(Schema.Array(Schema.Unknown))
}) {
  override get message(): string {
    return `The provider of "${this.deployment}" rejected the content: ${this.detail}`
  }
}

/** A hook of the input policy failed or took too long: the operator's outage, not what the caller sent. */
export class HookFailed extends Schema.TaggedError<HookFailed>()("HookFailed", {
  subject: Schema.Literals(["request", "answer"])
}) {
  override get message(): string {
    return `The input policy of this service could not check the ${this.subject}. Try again, or ask the operator of the ` +
      "service."
  }
}

/** The deployment cannot do what the request needs; another may. `path` names it, as `logprobs`. */
export class NotSupported extends Schema.TaggedError<NotSupported>()("NotSupported", {
  deployment: Schema.String,
  path: Schema.String,
  detail: Schema.String,
  /**
   * The capability that it does not have for any request; left out, only this request is not supported. `count`: token
   * counting.
   */
  capability: Schema.optionalKey(Schema.Literals([...engineCapabilities, "count"]))
}) {
  override get message(): string {
    return `${this.path}: not supported by "${this.deployment}": ${this.detail}`
  }
}

/** The deployment's circuit is open after consecutive failures, or a probe of it runs: no call before `retryAfterMs`. */
export class CircuitOpen extends Schema.TaggedError<CircuitOpen>()("CircuitOpen", {
  deployment: Schema.String,
  /** Consecutive failures; left out while a probe runs. */
  failures: Schema.optionalKey(Schema.Int),
  retryAfterMs: Schema.Finite
}) {
  override get message(): string {
    return `"${this.deployment}" was not called: ${ReasonMessage.circuitState(this.failures)}. Retry in ${
      Math.ceil(this.retryAfterMs / 1000)
    } s.`
  }
}

/** A deployment that cannot take a request. */
export const Exclusion = Schema.Struct({
  deployment: Schema.String,
  reason: Schema.String,
  /** ms until it may be called, where it is excluded for a time; `reason` names the wait. */
  retryAfterMs: Schema.optionalKey(Schema.Finite)
})
export type Exclusion = typeof Exclusion.Type

/** No deployment of the model can take the request; each is listed with the reason of its exclusion. */
export class NoDeployment extends Schema.TaggedError<NoDeployment>()("NoDeployment", {
  model: Schema.String,
  excluded: Schema.Array(Exclusion),
  /** ms until one of them may take it. */
  retryAfterMs: Schema.optionalKey(Schema.Finite)
}) {
  override get message(): string {
    return ReasonMessage.noDeployment(this)
  }
}

/** What went wrong. */
export const Reason = Schema.Union([
  InvalidRequest,
  ModelNotFound,
  ContextLengthExceeded,
  QueueFull,
  Overloaded,
  DeploymentDown,
  InsufficientMemory,
  EngineHung,
  ModelLoadFailed,
  EngineMissing,
  EngineCrashed,
  EngineStopped,
  EngineFailed,
  UpstreamFailed,
  UpstreamTimeout,
  RateLimited,
  Unauthenticated,
  Forbidden,
  LimitExceeded,
  BudgetExceeded,
  AuthenticationFailed,
  ContentRefused,
  HookFailed,
  NotSupported,
  CircuitOpen,
  NoDeployment
])
export type Reason = typeof Reason.Type

/** A failed attempt at one deployment. */
export const Attempt = Schema.Struct({
  deployment: Schema.String,
  reason: Reason,
  /** How long it took, ms. */
  tookMs: Schema.Finite
})
export type Attempt = typeof Attempt.Type

/** The one error of inference. */
export class InferenceError extends Schema.TaggedError<InferenceError>()("InferenceError", {
  /** Of several attempts, the last call's reason, or the most useful one for the caller. */
  reason: Reason,
  /** All failed attempts in order, if there were several. */
  attempts: Schema.optionalKey(Schema.Array(Attempt)),
  /** The number of started attempts, if some were cancelled, as those of a hedged request. */
  started: Schema.optionalKey(Schema.Int),
  /** The id of the decision record, if the request was routed: see `DecisionLog`. */
  decision: Schema.optionalKey(Schema.String),
  /** The id of the decision record, if the request was refused before it was routed. */
  refusal: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    return this.reason.message
  }
}

/** An `InferenceError` of this reason. */
export const make = (reason: Reason): InferenceError => new InferenceError({ reason })

/** The deployment lacks a capability. */
export const notCapable = (deployment: string, capability: EngineCapability, path = "model"): InferenceError =>
  make(
    new NotSupported({
      deployment,
      path,
      capability,
      detail: `the model does not support ${capabilityNames[capability]}`
    })
  )
