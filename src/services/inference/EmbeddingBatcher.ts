/**
 * Batches embedding requests of several callers into one job of the engine.
 *
 * **Details**
 *
 * While the engine works on a batch, up to `Defaults.batchSize` requests are collected, for at most `Defaults.batchWait`. An
 * idle engine starts at once. Each request gets its own vectors or its own error.
 *
 * A batch holds requests of one tenant and one priority, all of texts or all of tokens, so that no request uses another tenant's turn in the queue or
 * another priority. The `keepAlive` of the last request holds, as without batches.
 */
import type { Duration } from "effect"
import { Context, Deferred, Effect, Exit, Layer, Request, RequestResolver, Result } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import { HopCount } from "../../domain/Caller.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InvalidRequest, make as makeError } from "../../domain/InferenceError.ts"
import type { Embedding, EmbedInput } from "../../domain/Job.ts"
import type { Meter } from "../engines/Engine.ts"
import { noteResults, TaskMeter } from "../engines/Engine.ts"
import type { Models } from "../models/Models.ts"
import { Settings } from "../settings/Settings.ts"

/** An attempt that takes part in a batch. */
export interface BatchedAttempt {
  readonly deployment: Deployment
  readonly caller: Caller
  /** Runs when the batch has a slot. An attempt that fails here leaves the batch. */
  readonly admit: Effect.Effect<unknown, InferenceError>
  readonly meter: Meter
  /** See `Models.lease`. */
  readonly movedOn: () => boolean
}

interface Embed extends Request.Request<ReadonlyArray<Embedding>, InferenceError> {
  readonly _tag: "Embed"
  readonly attempt: BatchedAttempt
  readonly inputs: ReadonlyArray<EmbedInput>
  /** Done when the caller has disconnected. */
  readonly left: Deferred.Deferred<void>
}
const Embed = Request.tagged<Embed>("Embed")

type Entry = Request.Entry<Embed>

/** The error of an invalid input, with the index in the caller's own request instead of the batch. */
const ownError = (error: InferenceError, index: number): InferenceError =>
  error.reason._tag === "InvalidRequest" && error.reason.path !== undefined
    ? makeError(new InvalidRequest({ detail: error.reason.detail, path: `inputs[${index}]` }))
    : error

/** All vectors, or the error of the first invalid input. */
const exitOf = (
  results: ReadonlyArray<Result.Result<Embedding, InferenceError>>
): Exit.Exit<ReadonlyArray<Embedding>, InferenceError> => {
  for (const [index, result] of results.entries()) {
    if (Result.isFailure(result)) return Exit.fail(ownError(result.failure, index))
  }
  return Exit.succeed(results.map((result) => Result.getOrThrow(result)))
}

/** The caller of a batch. All of its requests have the same tenant and priority. */
const callerOf = (entries: ReadonlyArray<Entry>): Caller => entries.at(-1)!.request.attempt.caller

/** Equal for requests that may share a batch. */
const groupOf = ({ request: { attempt: { caller: { priority = "normal", tenant = "" } }, inputs } }: Entry): string =>
  `${priority} ${typeof inputs[0]} ${tenant}`

/** Admits each attempt to the batch's slot; those that fail are complete. */
const admitted = (entries: ReadonlyArray<Entry>): Effect.Effect<ReadonlyArray<Entry>> =>
  Effect.filter(entries, (entry) =>
    Effect.match(entry.request.attempt.admit, {
      onSuccess: () => true,
      onFailure: (error) => {
        entry.completeUnsafe(Exit.fail(error))
        return false
      }
    }))

/** A batch that is sent is sent for each of its requests. What its provider reports is the sum of all. */
class BatchMeter implements Meter {
  readonly reporter = undefined
  readonly #meters: ReadonlyArray<Meter>
  #isSent = false

  constructor(meters: ReadonlyArray<Meter>) {
    this.#meters = meters
  }

  get isSent(): boolean {
    return this.#isSent
  }

  set isSent(isSent: boolean) {
    this.#isSent = isSent
    for (const meter of this.#meters) meter.isSent = isSent
  }
}

const meterOf = (entries: ReadonlyArray<Entry>): Meter => {
  const [only, ...others] = entries.map(({ request: { attempt: { meter } } }) => meter)
  return only !== undefined && others.length === 0 ? only : new BatchMeter([only!, ...others])
}

const runBatch = (models: Models["Service"], entries: ReadonlyArray<Entry>) => {
  const { attempt: { deployment } } = entries[0]!.request
  const movedOn = () => entries.some(({ request: { attempt } }) => attempt.movedOn())
  const allDisconnected = Effect.forEach(entries, ({ request: { left } }) => Deferred.await(left), { discard: true })
  const answered = Effect.gen(function*() {
    const engine = yield* models.lease(deployment, callerOf(entries), movedOn)
    const embedded = yield* admitted(entries)
    if (embedded.length === 0) return
    // The batch continues with the largest hop count of its requests.
    const hops = Math.max(...embedded.map(({ context }) => Context.get(context, HopCount)))
    const results = yield* engine.embed(embedded.flatMap(({ request }) => request.inputs)).pipe(
      Effect.provideService(HopCount, hops),
      Effect.provideService(TaskMeter, meterOf(embedded))
    )
    let from = 0
    for (const entry of embedded) {
      const to = from + entry.request.inputs.length
      const own = results.slice(from, to)
      noteResults(entry.request.attempt.meter, own)
      entry.completeUnsafe(exitOf(own))
      from = to
    }
  })
  // `Effect.request` does not stop a running batch when its last caller disconnects.
  return Effect.raceFirst(Effect.scoped(answered), allDisconnected).pipe(
    // Entries that are complete ignore this.
    Effect.onError((cause) =>
      Effect.sync(() => {
        for (const entry of entries) entry.completeUnsafe(Exit.failCause(cause))
      })
    )
  )
}

/** How many requests share a batch, and how long they are collected while the engine works. */
export interface Batches {
  readonly size: number
  readonly wait: Duration.Duration
}

const defaults: Batches = { size: Defaults.batchSize, wait: Defaults.batchWait }

/** The options of the application. */
export const BatchOptions = Context.Reference<Batches>("troupe/services/inference/EmbeddingBatcher/BatchOptions", {
  defaultValue: () => defaults
})

/** The options of the settings. */
export const layerOptions = Layer.effect(BatchOptions, Effect.map(Settings, ({ embeddingBatches }) => embeddingBatches))

/** The batches of one deployment. */
const makeResolver = (models: Models["Service"], { size, wait }: Batches): RequestResolver.RequestResolver<Embed> => {
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
    running === 0 ? Effect.yieldNow : Effect.raceFirst(Effect.sleep(wait), Deferred.await(idle))
  )
  return RequestResolver.makeGrouped<Embed, string>({
    key: groupOf,
    resolver: (entries) => Effect.acquireUseRelease(started, () => runBatch(models, entries), () => ended)
  }).pipe(RequestResolver.setDelayEffect(gather), RequestResolver.batchN(size))
}

/** Embeds for all callers. */
export const make = (models: Models["Service"], batches = defaults) => {
  const resolvers = new Map<string, RequestResolver.RequestResolver<Embed>>()
  const resolverOf = (id: string) => {
    const known = resolvers.get(id)
    if (known !== undefined) return known
    const created = makeResolver(models, batches)
    resolvers.set(id, created)
    return created
  }
  return (
    attempt: BatchedAttempt,
    inputs: ReadonlyArray<EmbedInput>
  ): Effect.Effect<ReadonlyArray<Embedding>, InferenceError> =>
    Effect.suspend(() => {
      const left = Deferred.makeUnsafe<void>()
      return Effect.onInterrupt(
        Effect.request(Embed({ attempt, inputs, left }), resolverOf(attempt.deployment.id)),
        () => Deferred.succeed(left, undefined)
      )
    })
}
