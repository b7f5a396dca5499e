/**
 * A model, which is the name a caller asks for, and its deployments, which are concrete ways to serve it. Plain data.
 */
import { Duration, Schema } from "effect"

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))
const Milliseconds = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

/** Words for a span of time, as `10 minutes` or `500 millis`; also a number of milliseconds. */
export const Span = Schema.Union([Schema.DurationFromString, Schema.DurationFromMillis])

const shared = {
  /** Requests that run side by side in one engine thread; default 4. */
  slots: Schema.optionalKey(Count),
  /** Engine threads, each with its own copy of the model's context; default 1. */
  replicas: Schema.optionalKey(Count)
}

/** A GGUF file on llama.cpp. */
export const LlamaDeployment = Schema.Struct({
  engine: Schema.Literal("llama"),
  /** The GGUF file, relative to the configuration file's folder. */
  file: Schema.NonEmptyString,
  /** Tokens that prompt and answer share, per slot; default the model's own window, at most 4,096. */
  contextSize: Schema.optionalKey(Count),
  /** Compute threads of each engine thread; default 1. */
  threads: Schema.optionalKey(Count),
  ...shared
})

/** No weights: deterministic tokens, delays and faults, for tests and benches. */
export const FakeDeployment = Schema.Struct({
  engine: Schema.Literal("fake"),
  /** What it answers; default `fake: ` and the last message. */
  reply: Schema.optionalKey(Schema.String),
  /** Tokens (of three bytes) that prompt and answer share; default 4,096. */
  contextSize: Schema.optionalKey(Count),
  loadDelayMs: Schema.optionalKey(Milliseconds),
  promptDelayMs: Schema.optionalKey(Milliseconds),
  tokenDelayMs: Schema.optionalKey(Milliseconds),
  /** What goes wrong: see `FakeFault` in `services/EngineProtocol`. */
  fault: Schema.optionalKey(Schema.Struct({
    kind: Schema.Literals(["error", "abort", "hang", "load", "load-abort"]),
    /** Tokens that come first; default 0. */
    afterTokens: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))),
    /** Only when the last message holds this text; default always. */
    trigger: Schema.optionalKey(Schema.NonEmptyString)
  })),
  ...shared
})

/** How a deployment is served. */
export const DeploymentOptions = Schema.Union([LlamaDeployment, FakeDeployment])
export type DeploymentOptions = typeof DeploymentOptions.Type

/** One concrete way to serve a model. */
export interface Deployment {
  /** Unique: the model's name and the place in its list, as `tiny-chat#0`. */
  readonly id: string
  readonly model: string
  readonly options: DeploymentOptions
  readonly idleUnload: Duration.Duration
  /** The service loads it at start. */
  readonly preload: boolean
}

/** A name to ask for, and who can answer. */
export interface Model {
  readonly name: string
  readonly deployments: readonly [Deployment, ...Array<Deployment>]
}

/** A loaded model that nobody uses is unloaded after this. */
export const defaultIdleUnload = Duration.minutes(10)

/** Requests that run side by side in one engine thread, unless configured. */
export const defaultSlots = 4
