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
 *     Effect.logWarning(`${reason.promptTokens} tokens do not fit ${reason.contextWindow}`))
 * )
 * ```
 */
import { Schema } from "effect"

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`

/** The request itself is wrong. `path` names the value, as `messages[0].content`. */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", {
  detail: Schema.String,
  path: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    return this.path === undefined ? this.detail : `${this.path}: ${this.detail}`
  }
}

/** No model of this name is configured. */
export class ModelNotFound extends Schema.TaggedError<ModelNotFound>()("ModelNotFound", {
  model: Schema.String,
  available: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const available = this.available.length === 0
      ? "No model is configured."
      : `There is: ${this.available.join(", ")}.`
    return `The model "${this.model}" does not exist. ${available}`
  }
}

/** The prompt leaves no room for an answer in the model's context window; both are in tokens. */
export class ContextLengthExceeded extends Schema.TaggedError<ContextLengthExceeded>()("ContextLengthExceeded", {
  model: Schema.String,
  promptTokens: Schema.Int,
  contextWindow: Schema.Int,
  /** `promptTokens` is a lower bound: a prompt that cannot fit is not counted to its end. */
  atLeast: Schema.optionalKey(Schema.Boolean)
}) {
  override get message(): string {
    return `The prompt has ${
      this.atLeast === true ? "at least " : ""
    }${this.promptTokens} tokens, and the context window of "${this.model}" is ` +
      `${this.contextWindow} tokens for prompt and answer together. Shorten the prompt.`
  }
}

/** Too many wait already; `retryAfterMs` is when a place may be free. */
export class QueueFull extends Schema.TaggedError<QueueFull>()("QueueFull", {
  deployment: Schema.String,
  limit: Schema.Int,
  retryAfterMs: Schema.Finite
}) {
  override get message(): string {
    return `${this.limit} requests wait for "${this.deployment}" already, which is the limit. ` +
      `Try again in ${Math.ceil(this.retryAfterMs / 1000)} s.`
  }
}

/** Memory is short, and requests of low priority are refused until it is not. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", {
  retryAfterMs: Schema.Finite
}) {
  override get message(): string {
    return `Memory is short, and requests of low priority are refused meanwhile. ` +
      `Try again in ${Math.ceil(this.retryAfterMs / 1000)} s, or with another priority.`
  }
}

/** The engine crashed more often than it is started again; nobody tries it before `retryAfterMs`. */
export class DeploymentDown extends Schema.TaggedError<DeploymentDown>()("DeploymentDown", {
  deployment: Schema.String,
  detail: Schema.String,
  retryAfterMs: Schema.Finite
}) {
  override get message(): string {
    return `"${this.deployment}" is down: ${this.detail} It is tried again in ${Math.ceil(this.retryAfterMs / 1000)} s.`
  }
}

/** The model does not fit the memory there is; both are in bytes. */
export class InsufficientMemory extends Schema.TaggedError<InsufficientMemory>()("InsufficientMemory", {
  deployment: Schema.String,
  neededBytes: Schema.Finite,
  availableBytes: Schema.Finite
}) {
  override get message(): string {
    return `"${this.deployment}" needs ${mebibytes(this.neededBytes)} of memory, and at most ` +
      `${mebibytes(this.availableBytes)} can be free for it: memory.budget less what pinned models use. ` +
      "Use a smaller variant, fewer slots or a shorter contextSize, or raise memory.budget."
  }
}

/** The engine gave no sign for so long that it was given up. */
export class EngineHung extends Schema.TaggedError<EngineHung>()("EngineHung", {
  deployment: Schema.String,
  afterMs: Schema.Finite
}) {
  override get message(): string {
    return `The engine of "${this.deployment}" made no progress for ${this.afterMs / 1000} s and was ended. Try again.`
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

/** The package an engine needs is not installed. */
export class EngineMissing extends Schema.TaggedError<EngineMissing>()("EngineMissing", {
  deployment: Schema.String,
  packageName: Schema.String
}) {
  override get message(): string {
    return `The deployment "${this.deployment}" needs the package ${this.packageName}, which is not installed. ` +
      `Install it with: npm install ${this.packageName}`
  }
}

/** The engine's thread or process died; the supervisor starts another. */
export class EngineCrashed extends Schema.TaggedError<EngineCrashed>()("EngineCrashed", {
  deployment: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `The engine of "${this.deployment}" crashed. ${this.detail} Try again.`
  }
}

/** Troupe is being closed, and the request's engine with it. */
export class EngineStopped extends Schema.TaggedError<EngineStopped>()("EngineStopped", {
  deployment: Schema.String
}) {
  override get message(): string {
    return `The engine of "${this.deployment}" was stopped before the answer was whole.`
  }
}

/** The engine lives and could not finish this request. */
export class EngineFailed extends Schema.TaggedError<EngineFailed>()("EngineFailed", {
  deployment: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `The engine of "${this.deployment}" failed: ${this.detail}`
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
  EngineFailed
])
export type Reason = typeof Reason.Type

/** The one error of inference. */
export class InferenceError extends Schema.TaggedError<InferenceError>()("InferenceError", {
  reason: Reason
}) {
  override get message(): string {
    return this.reason.message
  }
}

/** An `InferenceError` of this reason. */
export const make = (reason: Reason): InferenceError => new InferenceError({ reason })
