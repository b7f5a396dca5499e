/**
 * The last link of a model's fallbacks, where it has it: keeps answers, and gives an earlier one where all else failed.
 *
 * **Details**
 *
 * What is given again is an attempt of the request like others, by `cached-responses`; no tokens count as generated.
 */
import { Effect, Stream } from "effect"
import type { Scope } from "effect"
import { classify } from "../../domain/FailureClass.ts"
import type { Answer, By, Event, Opened, Request } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as Monotonic from "../../domain/Monotonic.ts"
import type { Begun } from "../inference/AttemptScope.ts"
import * as Operation from "../inference/RequestTelemetry.ts"
import type { AttemptDraft } from "../routing/DecisionLog.ts"
import * as CachedResponses from "./CachedResponses.ts"

type Response = CachedResponses.Response

/** What makes a whole answer out of events. */
export interface Whole {
  readonly add: (event: Event) => void
  readonly end: () => Response
}

const cache: Operation.Server = { id: CachedResponses.name, provider: "troupe.cache" }

const none = { reason: "NotCached", message: "No earlier answer to this very request is kept." }

/** As an engine would tell it, all at once; nothing is generated. */
const eventsOf = ({ finishReason, logprobs, stop, text, toolCalls, usage }: Response): ReadonlyArray<Event> => [
  ...(text === "" ? [] : [{ type: "text" as const, text, tokens: 0, ...(logprobs === undefined ? {} : { logprobs }) }]),
  ...toolCalls.map((call, index) => ({ type: "tool_call" as const, index, ...call, tokens: 0 })),
  { type: "finish", reason: finishReason, usage, ...(stop === undefined ? {} : { stop }) }
]

/** Nothing of the prompt was computed. */
const again = ({ usage, ...rest }: Response): Response => ({
  ...rest,
  usage: { ...usage, cachedTokens: usage.promptTokens }
})

/** The request's books, as an answer that is there already leaves them. */
const settle = ({ progress }: Begun, { finishReason, usage }: Response) => {
  const tally = Operation.tally(cache)
  tally.promptTokens = usage.promptTokens
  tally.finish = { type: "finish", reason: finishReason, usage }
  tally.done = true
  progress.tally = tally
  progress.failure = undefined
  progress.record.answeredBy = cache.id
}

/** A request that has been routed. */
export interface Asked {
  readonly begun: Begun
  readonly request: Request
}

const makeRecall = (responses: CachedResponses.CachedResponses["Service"]) =>
  Effect.fnUntraced(function*({ begun, request }: Asked, error: InferenceError) {
    const { began, record } = begun.progress
    if (classify(error.reason).mistaken) return yield* error
    const startedMs = (yield* Monotonic.now) - began
    const found = yield* responses.recall(request)
    const draft: AttemptDraft = { deployment: cache.id, startedMs, tookMs: 0, outcome: "failed" }
    record.attempts.push(draft)
    if (found === undefined) {
      draft.error = none
      return yield* error
    }
    draft.outcome = "answered"
    draft.firstTokenMs = 0
    const response = again(found)
    settle(begun, response)
    return {
      response,
      by: { deployment: cache.id, attempts: record.attempts.length, decision: record.id } satisfies By
    }
  })

const sizeOf = (event: Event): number => {
  switch (event.type) {
    case "text":
      return 2 * (event.text.length + JSON.stringify(event.logprobs ?? "").length)
    case "tool_call":
      return 2 * event.arguments.length
    case "seam":
      // What two deployments have said is nobody's answer.
      return Number.POSITIVE_INFINITY
    case "native":
      // Only what text and function calls say is kept.
      return event.native.hasMore ? Number.POSITIVE_INFINITY : 0
    case "finish":
      return 0
  }
}

/** Passes events on, and keeps them as a whole answer when they have come to their end, unless they are too many. */
const collect = (
  events: Opened["events"],
  whole: Whole,
  keep: (response: Response) => Effect.Effect<void>
): Opened["events"] => {
  let bytes = 0
  return Stream.mapArrayEffect(events, (some) => {
    for (const event of some) {
      bytes += sizeOf(event)
      if (event.type !== "native" && CachedResponses.fits(bytes)) whole.add(event)
    }
    const isKept = some.at(-1)?.type === "finish" && CachedResponses.fits(bytes)
    return Effect.as(isKept ? keep(whole.end()) : Effect.void, some)
  })
}

export const make = (responses: CachedResponses.CachedResponses["Service"]) => {
  const recall = makeRecall(responses)
  const keep = ({ request }: Asked, response: Response) =>
    CachedResponses.isWhole(response, request) ? responses.keep(request, response) : Effect.void

  return {
    /** A whole answer, with the last link behind it. */
    whole: (asked: Asked, answer: Effect.Effect<Answer, InferenceError, Scope.Scope>) =>
      !asked.begun.route.cached ? answer : Effect.matchEffect(answer, {
        onSuccess: (given) => {
          const { attempts: _, decision: __, deployment: ___, native = [], ...response } = given
          const isComplete = !native.some(({ hasMore }) => hasMore)
          return Effect.as(isComplete ? keep(asked, response) : Effect.void, given)
        },
        onFailure: (error) => Effect.map(recall(asked, error), ({ by, response }): Answer => ({ ...response, ...by }))
      }),
    /** An answer that is streamed, likewise: once it has begun, a failure stands. */
    opened: (asked: Asked, makeWhole: () => Whole, opened: Effect.Effect<Opened, InferenceError, Scope.Scope>) =>
      !asked.begun.route.cached ? opened : Effect.matchEffect(opened, {
        onSuccess: ({ events, ...by }) =>
          Effect.succeed({ ...by, events: collect(events, makeWhole(), (response) => keep(asked, response)) }),
        onFailure: (error) =>
          Effect.map(
            recall(asked, error),
            ({ by, response }): Opened => ({ ...by, events: Stream.fromIterable(eventsOf(response)) })
          )
      })
  }
}
