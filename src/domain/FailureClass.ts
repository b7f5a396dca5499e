/**
 * Classifies the failure of an attempt: whether to retry, which deployments are next, and whether the circuit counts it.
 * Pure, over every `Reason`.
 *
 * **Details**
 *
 * Transient failures are retried at the same deployment after a backoff: HTTP 408, 500, 502, 503, 504, 520 to 524, 529, a
 * broken connection, a crashed engine. Rate limits, timeouts and refusals by a circuit are retried there only if no other
 * deployment is free. An invalid request is invalid at every deployment, so it is not retried.
 *
 * A circuit counts failures that the deployment caused: not an invalid request, a full queue or a rate limit.
 */
import { Cause } from "effect"
import type { Reason } from "./InferenceError.ts"

/** The list of deployments that may follow, by the kind of failure. */
export type List = "ordinary" | "context" | "content"

/** How a failure is handled. */
export interface FailureClass {
  /** At the same deployment: after a backoff, only if no other deployment is free, or not at all. */
  readonly retry: "backoff" | "lastResort" | "no"
  /** The list of the next deployment; `none` ends the request. */
  readonly next: List | "none"
  /** Counts against the deployment's circuit. */
  readonly countsAgainstCircuit: boolean
  /** A single event fails every call in flight, possibly with different reasons: see `eventKey`. */
  readonly isShared: boolean
  /** The request is invalid: a cached response does not replace the error. */
  readonly isCallerMistake: boolean
  /** The earliest retry, ms from now. */
  readonly retryAfterMs?: number
  /** What the next attempt changes: a shorter answer, low priority, or no signed reasoning of earlier answers. */
  readonly adjust?: "shorter" | "low-priority" | "unsigned"
}

const failureClass = (given: Partial<FailureClass>, retryAfterMs?: number): FailureClass => ({
  retry: "no",
  next: "ordinary",
  countsAgainstCircuit: false,
  isShared: false,
  isCallerMistake: false,
  ...given,
  ...(retryAfterMs === undefined ? {} : { retryAfterMs })
})

const final = failureClass({ next: "none" })
const mistake = failureClass({ next: "none", isCallerMistake: true })

type Tag = Reason["_tag"]
type Of<T extends Tag> = Extract<Reason, { readonly _tag: T }>

/**
 * Transient HTTP statuses: 529 is Anthropic's "overloaded"; Cloudflare sends 520 to 524 for a provider that it cannot reach
 * or that does not answer.
 */
const transient = new Set([408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529])

/** HTTP statuses of a request that is invalid at every deployment. */
const invalid = new Set([400, 413, 422])

const byStatus = (status: number, retryAfterMs: number | undefined): FailureClass => {
  if (invalid.has(status)) return mistake
  if (status === 401 || status === 403) return failureClass({ countsAgainstCircuit: true })
  if (status === 429) return failureClass({ retry: "lastResort", adjust: "low-priority" }, retryAfterMs)
  return transient.has(status)
    ? failureClass({ retry: "backoff", countsAgainstCircuit: true }, retryAfterMs)
    : failureClass({ countsAgainstCircuit: status >= 500 || status === 404 }, retryAfterMs)
}

const ofUpstream = ({ kind, retryAfterMs, status }: Of<"UpstreamFailed">): FailureClass => {
  switch (kind) {
    case "status":
      return status === undefined
        ? failureClass({ countsAgainstCircuit: true }, retryAfterMs)
        : byStatus(status, retryAfterMs)
    case "network":
      return failureClass({ retry: "backoff", countsAgainstCircuit: true, isShared: true }, retryAfterMs)
    case "cut":
      return failureClass({ retry: "lastResort", countsAgainstCircuit: true, isShared: true }, retryAfterMs)
    case "empty":
      return failureClass({ retry: "lastResort", countsAgainstCircuit: true }, retryAfterMs)
    // Models differ: the deployment answers other requests.
    case "diverged":
      return failureClass({})
    case "malformed":
    case "too_large":
    case "redirect":
      return failureClass({ countsAgainstCircuit: true }, retryAfterMs)
  }
}

/** Another deployment may succeed; this one is not at fault. */
const another = failureClass({})
const broken = failureClass({ countsAgainstCircuit: true })

const classes: { readonly [T in Tag]: (reason: Of<T>) => FailureClass } = {
  InvalidRequest: ({ isForeignReasoning = false }) =>
    isForeignReasoning ? failureClass({ isCallerMistake: true, adjust: "unsigned" }) : mistake,
  ModelNotFound: () => mistake,
  // A prompt that is shorter than the window fits with a shorter answer; otherwise a larger window is needed.
  ContextLengthExceeded: ({ contextWindow = 0, promptTokens = 0, withAnswer = false }) =>
    failureClass({
      next: "context",
      isCallerMistake: true,
      ...(withAnswer || promptTokens < contextWindow ? { adjust: "shorter" } : {})
    }),
  QueueFull: ({ retryAfterMs }) => failureClass({}, retryAfterMs),
  // The memory of the whole machine is short.
  Overloaded: ({ retryAfterMs }) => failureClass({ next: "none" }, retryAfterMs),
  DeploymentDown: ({ retryAfterMs }) => failureClass({}, retryAfterMs),
  InsufficientMemory: () => another,
  EngineHung: () => failureClass({ retry: "lastResort", countsAgainstCircuit: true, isShared: true }),
  ModelLoadFailed: () => failureClass({ countsAgainstCircuit: true, isShared: true }),
  EngineMissing: () => broken,
  EngineCrashed: () => failureClass({ retry: "backoff", countsAgainstCircuit: true, isShared: true }),
  // Troupe shuts down.
  EngineStopped: () => final,
  EngineFailed: () => broken,
  UpstreamFailed: ofUpstream,
  // Queue and load time do not show how a deployment answers.
  UpstreamTimeout: ({ byCaller = false, phase }) =>
    failureClass({ retry: "lastResort", countsAgainstCircuit: !byCaller && phase !== "queue" && phase !== "load" }),
  RateLimited: ({ retryAfterMs }) => failureClass({ retry: "lastResort", adjust: "low-priority" }, retryAfterMs),
  Unauthenticated: () => mistake,
  Forbidden: () => mistake,
  LimitExceeded: () => mistake,
  BudgetExceeded: () => mistake,
  // With `retryAfterMs` the provider was not called: its earlier rejection has been counted.
  AuthenticationFailed: ({ retryAfterMs }) => failureClass({ countsAgainstCircuit: retryAfterMs === undefined }),
  ContentRefused: () => failureClass({ next: "content", isCallerMistake: true }),
  HookFailed: () => final,
  NotSupported: () => another,
  CircuitOpen: ({ retryAfterMs }) => failureClass({ retry: "lastResort" }, retryAfterMs),
  NoDeployment: ({ retryAfterMs }) => failureClass({ next: "none" }, retryAfterMs)
}

export const classify = (reason: Reason): FailureClass =>
  (classes[reason._tag] as (reason: Reason) => FailureClass)(reason)

/**
 * Concurrent calls that fail with the same key may have failed by one event. Events that end every call in flight
 * (`FailureClass.isShared`) have one key, whatever reason each call reports.
 *
 * @param reason undefined for a defect
 */
export const eventKey = (reason: Reason | undefined): string => {
  if (reason === undefined) return "Defect"
  if (classify(reason).isShared) return "shared"
  switch (reason._tag) {
    case "UpstreamFailed":
      return `${reason._tag} ${reason.kind} ${reason.status ?? ""}`
    case "UpstreamTimeout":
      return `${reason._tag} ${reason.phase}`
    default:
      return reason._tag
  }
}

/** HTTP statuses of gateway timeouts. */
const slow = new Set([408, 504, 522, 524])

/** Whether the failure is a timeout. Calls that time out together need not have one cause. */
export const isSlow = (reason: Reason | undefined): boolean =>
  reason?._tag === "UpstreamTimeout" ||
  (reason?._tag === "UpstreamFailed" && reason.status !== undefined && slow.has(reason.status))

const refusals: ReadonlySet<Tag> = new Set(["CircuitOpen", "DeploymentDown", "QueueFull", "NoDeployment"])

/** The deployment was not called: the attempt was rejected before. */
export const isRefusal = (reason: Reason): boolean => refusals.has(reason._tag)

/** The reasons whose cause is the request, or the caller's limits and rights: no failure of the service or of a provider. */
const ofCallers: ReadonlySet<string> = new Set<Tag>([
  "InvalidRequest",
  "ModelNotFound",
  "ContextLengthExceeded",
  "Unauthenticated",
  "Forbidden",
  "LimitExceeded",
  "BudgetExceeded",
  "ContentRefused",
  "NotSupported"
])

/** Whether the caller is the cause of a failure with this reason. */
export const isOfCaller = (tag: string): boolean => ofCallers.has(tag)

/**
 * Whether a cause is a cancellation: any cause that includes an interruption.
 *
 * **Details**
 *
 * An HTTP server interrupts the request of a caller that hangs up, and closes its scope with a defect beside the
 * interruption. Finalizers that fail meanwhile add their own causes.
 */
export const isCancellation = (cause: Cause.Cause<unknown>): boolean => Cause.hasInterrupts(cause)
