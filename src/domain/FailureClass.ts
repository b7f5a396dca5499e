/**
 * What an attempt's failure means for the next one. Pure, over every `Reason` there is.
 *
 * **Details**
 *
 * What passes by itself is tried again at the same deployment: HTTP 408, 500, 502, 503, 504, 520 to 524, 529, a broken
 * connection, a crashed engine. What says "not now" or took its time already is tried there again only where no other deployment is free. A
 * request that is wrong is wrong everywhere, so nobody else is asked.
 *
 * A circuit counts what is the deployment's own fault: never a caller's mistake, a full queue or a rate limit.
 */
import type { Reason } from "./InferenceError.ts"

/** Deployments that may follow, by what went wrong. */
export type List = "ordinary" | "context" | "content"

/** What to make of a failure. */
export interface Verdict {
  /** At the same deployment: after a short pause, only where nobody else is free, or not at all. */
  readonly again: "soon" | "last" | "never"
  /** Who is asked next; `nobody` is final. */
  readonly next: List | "nobody"
  /** It counts against the deployment's circuit. */
  readonly counts: boolean
  /** One such event ends every call in flight, each perhaps in another way: see `eventKey`. */
  readonly shared: boolean
  /** The request is what is wrong: no earlier answer takes the place of one. */
  readonly mistaken: boolean
  /** Not before, ms. */
  readonly retryAfterMs?: number
  /** What the next attempt asks otherwise: a shorter answer, or to go last among the waiting. */
  readonly adjust?: "shorter" | "low-priority"
}

const verdict = (given: Partial<Verdict>, retryAfterMs?: number): Verdict => ({
  again: "never",
  next: "ordinary",
  counts: false,
  shared: false,
  mistaken: false,
  ...given,
  ...(retryAfterMs === undefined ? {} : { retryAfterMs })
})

const final = verdict({ next: "nobody" })
const mistake = verdict({ next: "nobody", mistaken: true })

type Tag = Reason["_tag"]
type Of<T extends Tag> = Extract<Reason, { readonly _tag: T }>

/**
 * HTTP statuses that pass by themselves: 529 is Anthropic's "overloaded", 520 to 524 are Cloudflare's words for a provider
 * that it cannot reach or that does not answer it.
 */
const passing = new Set([408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529])

/** HTTP statuses that say that the request is wrong, whoever is asked. */
const mistakes = new Set([400, 413, 422])

const byStatus = (status: number, retryAfterMs: number | undefined): Verdict => {
  if (mistakes.has(status)) return mistake
  if (status === 401 || status === 403) return verdict({ counts: true })
  if (status === 429) return verdict({ again: "last", adjust: "low-priority" }, retryAfterMs)
  return passing.has(status)
    ? verdict({ again: "soon", counts: true }, retryAfterMs)
    : verdict({ counts: status >= 500 || status === 404 }, retryAfterMs)
}

const ofUpstream = ({ kind, retryAfterMs, status }: Of<"UpstreamFailed">): Verdict => {
  switch (kind) {
    case "status":
      return status === undefined ? verdict({ counts: true }, retryAfterMs) : byStatus(status, retryAfterMs)
    case "network":
      return verdict({ again: "soon", counts: true, shared: true }, retryAfterMs)
    case "cut":
      return verdict({ again: "last", counts: true, shared: true }, retryAfterMs)
    case "empty":
      return verdict({ again: "last", counts: true }, retryAfterMs)
    case "malformed":
    case "too_large":
    case "redirect":
      return verdict({ counts: true }, retryAfterMs)
  }
}

/** What cannot be done there can be done by another, and is not its fault. */
const another = verdict({})
const broken = verdict({ counts: true })

const verdicts: { readonly [T in Tag]: (reason: Of<T>) => Verdict } = {
  InvalidRequest: () => mistake,
  ModelNotFound: () => mistake,
  // A prompt that leaves room fits with a shorter answer; one that fills the window needs a larger window.
  ContextLengthExceeded: ({ contextWindow = 0, promptTokens = 0 }) =>
    verdict({ next: "context", mistaken: true, ...(promptTokens < contextWindow ? { adjust: "shorter" } : {}) }),
  QueueFull: ({ retryAfterMs }) => verdict({}, retryAfterMs),
  // The whole machine is short of memory.
  Overloaded: ({ retryAfterMs }) => verdict({ next: "nobody" }, retryAfterMs),
  DeploymentDown: ({ retryAfterMs }) => verdict({}, retryAfterMs),
  InsufficientMemory: () => another,
  EngineHung: () => verdict({ again: "last", counts: true, shared: true }),
  ModelLoadFailed: () => verdict({ counts: true, shared: true }),
  EngineMissing: () => broken,
  EngineCrashed: () => verdict({ again: "soon", counts: true, shared: true }),
  // Troupe is being closed.
  EngineStopped: () => final,
  EngineFailed: () => broken,
  UpstreamFailed: ofUpstream,
  // Waiting for a slot or a load says nothing of how a deployment answers.
  UpstreamTimeout: ({ byCaller = false, phase }) =>
    verdict({ again: "last", counts: !byCaller && phase !== "queue" && phase !== "load" }),
  RateLimited: ({ retryAfterMs }) => verdict({ again: "last", adjust: "low-priority" }, retryAfterMs),
  // The provider was not asked again: its rejection has counted already.
  AuthenticationFailed: ({ retryAfterMs }) => verdict({ counts: retryAfterMs === undefined }),
  ContentRefused: () => verdict({ next: "content", mistaken: true }),
  NotSupported: () => another,
  CircuitOpen: ({ retryAfterMs }) => verdict({}, retryAfterMs),
  NoDeployment: ({ retryAfterMs }) => verdict({ next: "nobody" }, retryAfterMs)
}

/** What to make of this failure. */
export const classify = (reason: Reason): Verdict => (verdicts[reason._tag] as (reason: Reason) => Verdict)(reason)

/**
 * Which failures may be one event: calls in flight together that fail with the same key. What ends every call in flight
 * (`Verdict.shared`) has one key, in whatever way each call learns of it.
 *
 * @param reason undefined for a defect
 */
export const eventKey = (reason: Reason | undefined): string => {
  if (reason === undefined) return "Defect"
  if (classify(reason).shared) return "shared"
  switch (reason._tag) {
    case "UpstreamFailed":
      return `${reason._tag} ${reason.kind} ${reason.status ?? ""}`
    case "UpstreamTimeout":
      return `${reason._tag} ${reason.phase}`
    default:
      return reason._tag
  }
}

/** HTTP statuses of servers that waited for another one. */
const slow = new Set([408, 504, 522, 524])

/** Whether the failure is that something took too long. Calls that time out together may have nothing else in common. */
export const isSlow = (reason: Reason | undefined): boolean =>
  reason?._tag === "UpstreamTimeout" ||
  (reason?._tag === "UpstreamFailed" && reason.status !== undefined && slow.has(reason.status))

const refusals: ReadonlySet<Tag> = new Set(["CircuitOpen", "DeploymentDown", "QueueFull", "NoDeployment"])

/** Nothing was tried: it was refused beforehand. */
export const isRefusal = (reason: Reason): boolean => refusals.has(reason._tag)
