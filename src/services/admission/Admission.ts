/**
 * Whether a request may run now: its limits and budgets. One call when it is routed, one after each attempt, one at its end.
 *
 * **Details**
 *
 * `admit` counts a request in its limits and reserves the most that it can cost, or rejects it and counts nothing. The
 * ticket that it returns is charged by each attempt that used tokens, and ended once, however the request ends. A request
 * without limits, budgets and a key gets the same ticket as every other, which does nothing.
 *
 * All are calls in memory, unless several processes or instances share the counters: then `admit` and `again` can answer
 * `Later`.
 */
import { Context, Effect } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import type { Admitted } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import type { TokenUsage } from "../../domain/Job.ts"
import type { Nano } from "../../domain/Money.ts"
import type { Operation } from "../observability/Metrics.ts"
import type { Grant } from "./AdmissionRules.ts"
import type { Siblings } from "./Subject.ts"

/** What a request asks for. */
export interface Demand {
  readonly grant: Grant | undefined
  readonly tenant: string
  readonly model: string
  readonly operation: Operation
  /** Those that may answer. None if the answer is kept or shared: it costs nothing. */
  readonly deployments: ReadonlyArray<Deployment>
  /** The context windows that loaded engines or model files have, tokens, by deployment; they replace the configured ones. */
  readonly windows?: ReadonlyMap<string, number> | undefined
  /** Tokens of the prompt, estimated. */
  readonly promptTokens: number
  /** The most tokens that the prompt can have. */
  readonly mostPromptTokens: () => number
  /** The requests of its call, where that has several prompts or choices; left out, this one alone. */
  readonly siblings?: (() => Siblings | undefined) | undefined
  /** Answers that it asks for at once. */
  readonly choices: number
  /** The most tokens of an answer, if the request says so. */
  readonly maxTokens: number | undefined
  /** Whether the answer has tokens of its own. */
  readonly generates: boolean
  /** Whether a second attempt may run beside the first. */
  readonly hedges: boolean
}

/** An answer that something has to be waited for. */
export class Later<A> {
  readonly _tag = "Later"
  /** Runs once, to its end: what it has admitted must be ended. */
  readonly outcome: Effect.Effect<A>

  constructor(outcome: Effect.Effect<A>) {
    this.outcome = outcome
  }
}

/** The tokens of an attempt. */
export interface UsedTokens {
  /** `promptTokens` is undefined where they were not counted: then the estimate of the request is charged. */
  readonly usage: Omit<TokenUsage, "promptTokens"> & { readonly promptTokens: number | undefined }
  /** The provider has not counted all tokens. */
  readonly isEstimated: boolean
}

/** What an attempt has used. */
export interface Used extends UsedTokens {
  readonly deployment: Deployment
  readonly decision: string
  /** The number of the attempt. */
  readonly attempt: number
  readonly tookMs: number
}

/** An admitted request. */
export interface Ticket extends Admitted {
  /** The most tokens of the answer, for a request with a budget that does not say; undefined, no limit. */
  readonly maxTokens: number | undefined
  /** The id of the key that pays; left out, none does. */
  readonly payer?: string
  /** @returns what it costs; undefined: its price is unknown */
  readonly charge: (used: Used) => Nano | undefined
  /** Why no other attempt may run after those that were charged; undefined if one may. */
  readonly again: () => Reason | undefined | Later<Reason | undefined>
  /** Whether a second attempt may run beside the first. */
  readonly another: () => boolean
  /** The caller has left, and others wait for the answer: it does not count any more among those that run at the same time. */
  readonly leave: () => void
  /** Ends the request and refunds what it did not use. Further calls do nothing. */
  readonly end: () => void
}

/** The ticket of requests without limits, budgets and a ledger. */
export const free: Ticket = {
  maxTokens: undefined,
  standings: () => undefined,
  cost: undefined,
  charge: () => undefined,
  again: () => undefined,
  another: () => true,
  leave: () => {},
  end: () => {}
}

/** Is given the ticket of a request whose answer several callers share. */
export const TicketReceiver = Context.Reference<((ticket: Ticket) => void) | undefined>(
  "troupe/services/admission/Admission/TicketReceiver",
  { defaultValue: () => undefined }
)

/** Decides whether requests run. Without a layer that provides it, every request does. */
export interface Admitting {
  /** Whether it decides for requests without a key, too. */
  readonly isForAll: boolean
  /** The ticket, or why the request is rejected. */
  readonly admit: (demand: Demand) => Ticket | Reason | Later<Ticket | Reason>
}

export const Admission = Context.Reference<Admitting>("troupe/services/admission/Admission", {
  defaultValue: () => ({ isForAll: false, admit: () => free })
})

/** Makes the admission of copies of requests, for which no caller pays. Without a layer that provides it, every copy runs. */
export const CopyAdmission = Context.Reference<Effect.Effect<Admitting>>(
  "troupe/services/admission/Admission/CopyAdmission",
  { defaultValue: () => Effect.succeed({ isForAll: false, admit: () => free }) }
)
