/**
 * Chat completions of models whose requests are copied: answers go to their callers as they are, and copies are sent after
 * them (`ShadowCopies`).
 *
 * **Details**
 *
 * This is below the input policy and the cache: a copy has what the policy lets out, and a request that the cache answers has
 * none. Requests of models without copies, and those that are not sampled, are passed on.
 */
import { Clock, Effect, Exit, Random, Stream } from "effect"
import { HopCount } from "../../domain/Caller.ts"
import type { Request } from "../../domain/Inference.ts"
import { Admission, CopyAdmission } from "../admission/Admission.ts"
import { none as noCache, ResponseCache } from "../cache/ResponseCache.ts"
import { Pressure } from "../models/MemoryPressure.ts"
import { Models } from "../models/Models.ts"
import type { Registry } from "../models/Registry.ts"
import * as AttemptLog from "../observability/AttemptLog.ts"
import { Metrics } from "../observability/Metrics.ts"
import { Shadows } from "../rollout/Shadows.ts"
import { sessionOf } from "../rollout/Split.ts"
import { DecisionLog, makeDraft } from "../routing/DecisionLog.ts"
import { Router } from "../routing/Router.ts"
import type { Chat } from "./Chat.ts"
import * as Chats from "./Chat.ts"
import { CollectedAnswer, ObservingSink } from "./CollectedAnswer.ts"
import * as Pipeline from "./Pipeline.ts"
import type { ReasoningMakers } from "./ReasoningMakers.ts"
import type { Original } from "./ShadowCopies.ts"
import * as ShadowCopies from "./ShadowCopies.ts"
import * as Tasks from "./Tasks.ts"

/** Records of copies are not kept: they would take the place of those of callers. */
const ownRecords = Effect.map(Random.nextIntBetween(0, Number.MAX_SAFE_INTEGER), (random) => {
  const run = random.toString(36)
  let count = 0
  return DecisionLog.of({
    begin: (operation, route, at) => makeDraft(`shadow-${run}-${(count++).toString(36)}`, operation, route, at),
    find: () => undefined,
    latest: () => []
  })
})

/** The pipeline of copies. A preview of a route is one that takes no turn and is compared by no rollout. */
const makePipeline = Effect.fnUntraced(function*({ makerIn }: Makers) {
  const { call: _, ...router } = yield* Router
  const admission = yield* yield* CopyAdmission
  // Callers do not get the reasoning of copies, and never send it back.
  const copies = {
    makers: { makerIn, note: () => {} },
    logFailed: AttemptLog.make("An attempt of a copied request")
  }
  return yield* Pipeline.make(copies).pipe(
    Effect.provideService(Router, { ...router, route: router.preview }),
    Effect.provideService(Admission, admission),
    Effect.provideService(Metrics, { begin: () => {}, end: () => {} }),
    Effect.provideService(DecisionLog, yield* ownRecords),
    Effect.provideService(ResponseCache, noCache)
  )
})

/** Knows who made the signed reasoning of callers. */
type Makers = Pick<ReasoningMakers, "makerIn">

/** Begins the comparison of a request; undefined if it has no copy. */
type Begin = (request: Request, hops: number, isStreamed: boolean) => Original | undefined

/** Chat completions that are compared. */
const observed = (chat: Chat, begin: Begin, send: (original: Original) => void): Chat => {
  /** Ends with what the effect ends with; then the copy is sent. */
  const sending = <A, E, R>(original: Original, effect: Effect.Effect<A, E, R>) =>
    Effect.onExitPrimitive(effect, (exit) => {
      if (Exit.isFailure(exit)) original.run.unanswered()
      else send(original)
      return undefined
    })
  return {
    generate: (request) =>
      Effect.withFiber((fiber) => {
        const original = begin(request, fiber.getRef(HopCount), false)
        return original === undefined ? chat.generate(request) : sending(
          original,
          Effect.tap(chat.generate(request), (answer) => Effect.sync(() => original.answer.whole(answer)))
        )
      }),
    deliver: (request, sink) =>
      Effect.withFiber((fiber) => {
        const original = begin(request, fiber.getRef(HopCount), true)
        return original === undefined
          ? chat.deliver(request, sink)
          : sending(original, chat.deliver(request, new ObservingSink(sink, original.answer)))
      }),
    open: (request) =>
      Effect.withFiber((fiber) => {
        const original = begin(request, fiber.getRef(HopCount), true)
        if (original === undefined) return chat.open(request)
        // The stream is read in the scope, whose end is that of the answer: it may have been left before.
        const opened = Effect.andThen(Effect.addFinalizer(() => Effect.sync(() => send(original))), chat.open(request))
        return Effect.map(opened, (answer) => {
          original.answer.deployment = answer.deployment
          const events = Stream.mapArray(answer.events, (some) => {
            original.answer.events(some)
            return some
          })
          return { ...answer, events }
        })
      })
  }
}

/**
 * Adds copies to chat completions.
 *
 * @param makers of the signed reasoning that callers send: a copy has no more of it than an attempt of the caller would
 */
export const make = Effect.fnUntraced(function*(chat: Chat, registry: Registry["Service"], makers: Makers) {
  const table = yield* Shadows
  if (table === undefined) return chat
  const pipeline = yield* makePipeline({ makerIn: (mark) => makers.makerIn(mark) })
  const clock = yield* Clock.Clock
  const copies = yield* ShadowCopies.makeGuarded({
    chat: Chats.make(pipeline),
    clock,
    compare: yield* ShadowCopies.CustomComparison,
    embed: Tasks.embedChecked(pipeline),
    fork: Effect.runForkWith(yield* Effect.context()),
    models: yield* Models,
    pressure: yield* Pressure,
    router: yield* Router,
    table
  })
  const begin: Begin = (request, hops, isStreamed) => {
    // A program without types may give no request at all.
    const found = table.of === undefined ? undefined : registry.find(request?.model)
    const run = found?._tag === "Success" ? table.of?.(found.success.name) : undefined
    if (run === undefined || !run.samples(sessionOf(request))) return undefined
    const obstacle = ShadowCopies.obstacleOf(request, run)
    if (obstacle === undefined) return { run, request, answer: new CollectedAnswer(clock), isStreamed, hops }
    run.skipped(obstacle)
    return undefined
  }
  return observed(chat, begin, (original) => copies.send(original))
})
