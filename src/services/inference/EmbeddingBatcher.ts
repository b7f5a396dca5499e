/**
 * Embeddings of many callers in one job of the engine.
 *
 * **Details**
 *
 * While the engine is at work on a batch, requests gather: up to 10, or for 100 ms. An engine that has nothing to do
 * begins at once. Each caller gets his own vectors or his own error.
 *
 * A batch holds requests of one tenant and one priority, so that a job waits in the queue by the rights of every request
 * in it: no request uses another tenant's turn or another's priority. As without batches, the `keepAlive` of the last
 * request counts.
 */
import { Context, Deferred, Effect, Exit, Request, RequestResolver, Result } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import * as Policies from "../../domain/Defaults.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import { HopCount } from "../../domain/HopLimit.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InvalidRequest, make as makeError } from "../../domain/InferenceError.ts"
import type { Embedding } from "../../domain/Job.ts"
import type { Models } from "../models/Models.ts"

/** What a batch needs to know of each request in it. */
export interface Asking {
  readonly deployment: Deployment
  readonly standing: Caller
  /** Called when the batch has a slot. */
  readonly granted: () => void
  /** See `Models.lease`. */
  readonly movedOn: () => boolean
}

interface Embed extends Request.Request<ReadonlyArray<Embedding>, InferenceError> {
  readonly _tag: "Embed"
  readonly asking: Asking
  readonly inputs: ReadonlyArray<string>
  /** Done when its caller has left. */
  readonly left: Deferred.Deferred<void>
}
const Embed = Request.tagged<Embed>("Embed")

type Entry = Request.Entry<Embed>

/** A wrong input's error, which counts in the batch, with the caller's own count. */
const ownError = (error: InferenceError, index: number): InferenceError =>
  error.reason._tag === "InvalidRequest" && error.reason.path !== undefined
    ? makeError(new InvalidRequest({ detail: error.reason.detail, path: `inputs[${index}]` }))
    : error

/** All vectors, or the first input's error. */
const exitOf = (
  results: ReadonlyArray<Result.Result<Embedding, InferenceError>>
): Exit.Exit<ReadonlyArray<Embedding>, InferenceError> => {
  for (const [index, result] of results.entries()) {
    if (Result.isFailure(result)) return Exit.fail(ownError(result.failure, index))
  }
  return Exit.succeed(results.map((result) => Result.getOrThrow(result)))
}

/** How a batch stands in the queue. All of its requests have the same tenant and priority. */
const standingOf = (entries: ReadonlyArray<Entry>): Caller => entries.at(-1)!.request.asking.standing

/** Requests that may share a batch have the same. */
const groupOf = ({ request: { asking: { standing: { priority = "normal", tenant = "" } } } }: Entry): string =>
  `${priority} ${tenant}`

const runBatch = (models: Models["Service"], entries: ReadonlyArray<Entry>) => {
  const { asking: { deployment } } = entries[0]!.request
  const movedOn = () => entries.some(({ request: { asking } }) => asking.movedOn())
  const allLeft = Effect.forEach(entries, ({ request: { left } }) => Deferred.await(left), { discard: true })
  const answered = Effect.gen(function*() {
    const engine = yield* models.lease(deployment, standingOf(entries), movedOn)
    for (const { request: { asking } } of entries) asking.granted()
    // They go on together, as far as the one that has come the farthest.
    const hops = Math.max(...entries.map(({ context }) => Context.get(context, HopCount)))
    const results = yield* Effect.provideService(
      engine.embed(entries.flatMap(({ request }) => request.inputs)),
      HopCount,
      hops
    )
    let from = 0
    for (const entry of entries) {
      const to = from + entry.request.inputs.length
      entry.completeUnsafe(exitOf(results.slice(from, to)))
      from = to
    }
  })
  // A batch that has begun is not stopped by `Effect.request` when the last of its callers leaves.
  return Effect.raceFirst(Effect.scoped(answered), allLeft).pipe(
    // Who has his answer already does not hear of this.
    Effect.onError((cause) =>
      Effect.sync(() => {
        for (const entry of entries) entry.completeUnsafe(Exit.failCause(cause))
      })
    )
  )
}

/** One deployment's batches. */
const makeResolver = (models: Models["Service"]): RequestResolver.RequestResolver<Embed> => {
  let running = 0
  let idle = Deferred.makeUnsafe<void>()
  const started = Effect.sync(() => running++)
  const ended = Effect.sync(() => {
    running--
    const waiting = idle
    idle = Deferred.makeUnsafe()
    Deferred.doneUnsafe(waiting, Effect.void)
  })
  const gather = Effect.suspend(() =>
    running === 0 ? Effect.yieldNow : Effect.raceFirst(Effect.sleep(Policies.batchWait), Deferred.await(idle))
  )
  return RequestResolver.makeGrouped<Embed, string>({
    key: groupOf,
    resolver: (entries) => Effect.acquireUseRelease(started, () => runBatch(models, entries), () => ended)
  }).pipe(RequestResolver.setDelayEffect(gather), RequestResolver.batchN(Policies.batchSize))
}

/** Embeds for all callers of these models. */
export const make = (models: Models["Service"]) => {
  const resolvers = new Map<string, RequestResolver.RequestResolver<Embed>>()
  const resolverOf = (id: string) => {
    const known = resolvers.get(id)
    if (known !== undefined) return known
    const made = makeResolver(models)
    resolvers.set(id, made)
    return made
  }
  return (asking: Asking, inputs: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<Embedding>, InferenceError> =>
    Effect.suspend(() => {
      const left = Deferred.makeUnsafe<void>()
      return Effect.onInterrupt(
        Effect.request(Embed({ asking, inputs, left }), resolverOf(asking.deployment.id)),
        () => Deferred.succeed(left, undefined)
      )
    })
}
