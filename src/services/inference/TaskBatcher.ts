/**
 * Batches embeddings, rankings and classifications of several callers into one job of the engine.
 *
 * **Details**
 *
 * While the engine works on a batch, up to `Batches.size` requests are collected, for at most `Batches.wait`. An idle engine
 * starts at once, unless `Batches.waitIdle`. Each request gets its own results or its own error.
 *
 * A batch holds requests of one task, one tenant and one priority, all of texts or all of tokens, so that no request uses another tenant's turn in the queue
 * or another priority. The `keepAlive` of the last request holds, as without batches.
 */
import type { Duration } from "effect"
import { Context, Deferred, Effect, Exit, Layer, Request, RequestResolver, Result } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import { HopCount } from "../../domain/Caller.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InvalidRequest, make as makeError } from "../../domain/InferenceError.ts"
import type { Classification, Embedding, EmbedInput, Ranking, RankingInput } from "../../domain/Job.ts"
import type { Engine, Meter } from "../engines/Engine.ts"
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

/** What every result of a task has. */
type Counted = Pick<Ranking, "isEstimated" | "promptTokens">

/** A task whose inputs can share a job. */
export interface Task<Input, Output extends Counted> {
  /** One result per input, in their order. */
  readonly run: (
    engine: Engine,
    inputs: ReadonlyArray<Input>
  ) => Effect.Effect<ReadonlyArray<Result.Result<Output, InferenceError>>, InferenceError>
  /** Inputs that share a job are of one kind; left out, there is one. */
  readonly kindOf?: (input: Input) => string
  /** The path of a caller's input in the errors of it; left out, the engine's path is the caller's own. */
  readonly pathOf?: (index: number) => string
}

const pathOf = (index: number): string => `inputs[${index}]`

export const embedding: Task<EmbedInput, Embedding> = {
  run: ({ embed }, inputs) => embed(inputs),
  kindOf: (input) => typeof input,
  pathOf
}

export const classification: Task<string, Classification> = { run: ({ classify }, inputs) => classify(inputs), pathOf }

/** Each input is a query with its documents. An engine that ranks for one query in a job gets one job after another. */
export const ranking: Task<RankingInput, Ranking> = {
  run: ({ rankEach, rerank }, inputs) =>
    rankEach === undefined
      ? Effect.forEach(inputs, ({ documents, query }) => Effect.result(rerank(query, documents)))
      : rankEach(inputs)
}

interface BatchedRequest<Input, Output>
  extends Request.Request<ReadonlyArray<Result.Result<Output, InferenceError>>, InferenceError>
{
  readonly _tag: "BatchedRequest"
  readonly attempt: BatchedAttempt
  readonly inputs: ReadonlyArray<Input>
  /** Done when the caller has disconnected. */
  readonly left: Deferred.Deferred<void>
}

type Entry<Input, Output> = Request.Entry<BatchedRequest<Input, Output>>

/** The error of an invalid input, with the index in the caller's own request instead of the batch. */
const ownError = (error: InferenceError, path: string): InferenceError =>
  error.reason._tag === "InvalidRequest" && error.reason.path !== undefined
    ? makeError(new InvalidRequest({ detail: error.reason.detail, path }))
    : error

/**
 * The results of each caller, in the order of the callers.
 *
 * @param counts the number of inputs of each caller
 * @param results one for each input of all callers
 */
export const sharesOf = <Output>(
  { pathOf: pathAt }: Pick<Task<never, never>, "pathOf">,
  counts: ReadonlyArray<number>,
  results: ReadonlyArray<Result.Result<Output, InferenceError>>
): ReadonlyArray<ReadonlyArray<Result.Result<Output, InferenceError>>> => {
  let from = 0
  return counts.map((count) => {
    const own = results.slice(from, from + count)
    from += count
    return pathAt === undefined
      ? own
      : own.map((result, index) => Result.mapError(result, (error) => ownError(error, pathAt(index))))
  })
}

/** The caller of a batch. All of its requests have the same tenant and priority. */
const callerOf = (attempts: ReadonlyArray<BatchedAttempt>): Caller => attempts.at(-1)!.caller

/** Equal for requests that may share a batch. */
export const groupOf = (
  { priority = "normal", tenant = "" }: Pick<Caller, "priority" | "tenant">,
  kind: string
): string => `${priority} ${kind} ${tenant}`

/** Admits each attempt to the batch's slot, unless its caller has disconnected; those that fail are complete. */
const admitted = <Input, Output>(
  entries: ReadonlyArray<Entry<Input, Output>>
): Effect.Effect<ReadonlyArray<Entry<Input, Output>>> =>
  Effect.filter(
    entries.filter(({ request: { left } }) => !Deferred.isDoneUnsafe(left)),
    (entry) =>
      Effect.match(entry.request.attempt.admit, {
        onSuccess: () => true,
        onFailure: (error) => {
          entry.completeUnsafe(Exit.fail(error))
          return false
        }
      })
  )

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

const meterOf = (attempts: ReadonlyArray<BatchedAttempt>): Meter => {
  const [only, ...others] = attempts.map(({ meter }) => meter)
  return only !== undefined && others.length === 0 ? only : new BatchMeter([only!, ...others])
}

const runBatch = <Input, Output extends Counted>(
  models: Models["Service"],
  task: Task<Input, Output>,
  entries: ReadonlyArray<Entry<Input, Output>>
) => {
  const attempts = entries.map(({ request }) => request.attempt)
  const { deployment } = attempts[0]!
  const movedOn = () => attempts.some((attempt) => attempt.movedOn())
  const allDisconnected = Effect.forEach(entries, ({ request: { left } }) => Deferred.await(left), { discard: true })
  const answered = Effect.gen(function*() {
    const engine = yield* models.lease(deployment, callerOf(attempts), movedOn)
    const started = yield* admitted(entries)
    if (started.length === 0) return
    // The batch continues with the largest hop count of its requests.
    const hops = Math.max(...started.map(({ context }) => Context.get(context, HopCount)))
    const results = yield* task.run(engine, started.flatMap(({ request }) => request.inputs)).pipe(
      Effect.provideService(HopCount, hops),
      Effect.provideService(TaskMeter, meterOf(started.map(({ request }) => request.attempt)))
    )
    const shares = sharesOf(task, started.map(({ request }) => request.inputs.length), results)
    for (const [index, entry] of started.entries()) {
      noteResults(entry.request.attempt.meter, shares[index]!)
      entry.completeUnsafe(Exit.succeed(shares[index]!))
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

/** How many requests share a batch, and how long they are collected. */
export interface Batches {
  readonly size: number
  /** How long requests are collected while the engine works. */
  readonly wait: Duration.Duration
  /** Whether requests are collected as long while the engine is idle. */
  readonly waitIdle: boolean
}

const defaults: Batches = { size: Defaults.batchSize, wait: Defaults.batchWait, waitIdle: Defaults.batchWaitIdle }

/** The options of the application. */
export const BatchOptions = Context.Reference<Batches>("troupe/services/inference/TaskBatcher/BatchOptions", {
  defaultValue: () => defaults
})

/** The options of the settings. */
export const layerOptions = Layer.effect(BatchOptions, Effect.map(Settings, ({ embeddingBatches }) => embeddingBatches))

type Resolver<Input, Output> = RequestResolver.RequestResolver<BatchedRequest<Input, Output>>

/** The batches of one deployment. */
const makeResolver = <Input, Output extends Counted>(
  models: Models["Service"],
  task: Task<Input, Output>,
  { size, wait, waitIdle }: Batches
): Resolver<Input, Output> => {
  let running = 0
  let idle = Deferred.makeUnsafe<void>()
  const started = Effect.sync(() => running++)
  const ended = Effect.sync(() => {
    running--
    const waiting = idle
    idle = Deferred.makeUnsafe()
    Deferred.doneUnsafe(waiting, Effect.void)
  })
  const gather = waitIdle
    ? Effect.sleep(wait)
    : Effect.suspend(() => running === 0 ? Effect.yieldNow : Effect.raceFirst(Effect.sleep(wait), Deferred.await(idle)))
  return RequestResolver.makeGrouped<BatchedRequest<Input, Output>, string>({
    key: ({ request: { attempt, inputs } }) => groupOf(attempt.caller, task.kindOf?.(inputs[0]!) ?? ""),
    resolver: (entries) => Effect.acquireUseRelease(started, () => runBatch(models, task, entries), () => ended)
  }).pipe(RequestResolver.setDelayEffect(gather), RequestResolver.batchN(size))
}

/** The batches of a deployment: its own options before those of the application. */
const batchesOf = ({ options }: Deployment, batches: Batches): Batches => ({ ...batches, ...options.batches })

/** Runs a task for all callers. Each gets one result per input, in their order. */
export const make = <Input, Output extends Counted>(
  models: Models["Service"],
  task: Task<Input, Output>,
  batches = defaults
) => {
  const resolvers = new Map<string, { readonly own: unknown; readonly resolver: Resolver<Input, Output> }>()
  const resolverOf = (deployment: Deployment) => {
    const own = deployment.options.batches
    const known = resolvers.get(deployment.id)
    if (known !== undefined && known.own === own) return known.resolver
    const resolver = makeResolver(models, task, batchesOf(deployment, batches))
    resolvers.set(deployment.id, { own, resolver })
    return resolver
  }
  const requestOf = Request.tagged<BatchedRequest<Input, Output>>("BatchedRequest")
  return (
    attempt: BatchedAttempt,
    inputs: ReadonlyArray<Input>
  ): Effect.Effect<ReadonlyArray<Result.Result<Output, InferenceError>>, InferenceError> =>
    Effect.suspend(() => {
      const left = Deferred.makeUnsafe<void>()
      return Effect.onInterrupt(
        Effect.request(requestOf({ attempt, inputs, left }), resolverOf(attempt.deployment)),
        () => Deferred.succeed(left, undefined)
      )
    })
}
