/**
 * Local engines: a pool of engine threads behind the Engine seam, in this process or in a child process.
 *
 * **Details**
 *
 * A job waits for a slot here, not in the pool, so that a caller who leaves gives up his place at once. Slots go back
 * when the engine has let go of the job, which may be a token after its caller has left.
 */
import { Cause, Effect, Layer, Queue, Semaphore, Stream } from "effect"
import type { Engine, Generation } from "../../services/Engine.ts"
import { Engines } from "../../services/Engine.ts"
import type {
  EngineDescription,
  EngineFailure,
  EngineHost,
  EngineSpec,
  JobEvent,
  SendCommand
} from "../../services/EngineProtocol.ts"
import type { Event } from "../../services/Inference.ts"
import * as InferenceError from "../../services/InferenceError.ts"
import type { Deployment, DeploymentOptions } from "../../services/Model.ts"
import { defaultSlots } from "../../services/Model.ts"
import * as Policies from "../../services/Policies.ts"
import { Settings } from "../../services/Settings.ts"
import { makeChildHost } from "./ChildHost.ts"
import { makePoolHost } from "./PoolHost.ts"

const specOf = (options: DeploymentOptions): EngineSpec => {
  const slots = options.slots ?? defaultSlots
  switch (options.engine) {
    case "llama":
      return {
        engine: "llama",
        file: options.file,
        contextSize: options.contextSize,
        slots,
        threads: options.threads ?? 1
      }
    case "fake":
      return {
        engine: "fake",
        slots,
        contextSize: options.contextSize ?? 4096,
        loadDelayMs: options.loadDelayMs ?? 0,
        promptDelayMs: options.promptDelayMs ?? 0,
        tokenDelayMs: options.tokenDelayMs ?? 0,
        reply: options.reply,
        fault: options.fault === undefined ? undefined : { afterTokens: 0, ...options.fault }
      }
  }
}

const errorOf = ({ id, model }: Deployment, failure: EngineFailure): InferenceError.InferenceError => {
  switch (failure.kind) {
    case "context_length_exceeded":
      return InferenceError.make(
        new InferenceError.ContextLengthExceeded({
          model,
          promptTokens: failure.promptTokens,
          contextWindow: failure.contextWindow
        })
      )
    case "package_missing":
      return InferenceError.make(
        new InferenceError.EngineMissing({ deployment: id, packageName: failure.packageName })
      )
    case "load_failed":
      return InferenceError.make(new InferenceError.ModelLoadFailed({ deployment: id, detail: failure.message }))
    case "crashed":
      return InferenceError.make(new InferenceError.EngineCrashed({ deployment: id, detail: failure.message }))
    case "failed":
      return InferenceError.make(new InferenceError.EngineFailed({ deployment: id, detail: failure.message }))
  }
}

const stopped: EngineFailure = { kind: "crashed", message: "The engine was stopped." }

const waitReady = (
  deployment: Deployment,
  host: EngineHost
): Effect.Effect<EngineDescription, InferenceError.InferenceError> =>
  Effect.tryPromise({
    try: () => host.ready,
    catch: (cause) => errorOf(deployment, cause as EngineFailure)
  })

const closeHost = (deployment: Deployment, host: EngineHost): Effect.Effect<void> =>
  Effect.promise(() => host.close()).pipe(
    Effect.timeoutOrElse({
      duration: Policies.closeGrace,
      orElse: () => Effect.logWarning(`The engine of ${deployment.id} did not stop in time and is left behind.`)
    })
  )

/** An engine over a host that is ready. */
const makeEngine = (
  deployment: Deployment,
  host: EngineHost,
  description: EngineDescription,
  slots: number
): Engine => {
  const semaphore = Semaphore.makeUnsafe(slots)
  let running = 0
  let queued = 0

  const takeSlot = Effect.suspend(() => {
    queued++
    return semaphore.take(1).pipe(Effect.ensuring(Effect.sync(() => queued--)))
  })
  const giveSlot = () => {
    running--
    Effect.runFork(semaphore.release(1))
  }

  /** Starts the job; the scope's end cancels it. */
  const run = Effect.fnUntraced(function*(generation: Generation) {
    const queue = yield* Queue.unbounded<Event, InferenceError.InferenceError | Cause.Done>()
    running++
    let live = true
    const last = () => {
      live = false
      giveSlot()
    }
    const onEvent = (event: JobEvent) => {
      switch (event.type) {
        case "tokens":
          return Queue.offerUnsafe(queue, { type: "text", text: event.text, tokens: event.count })
        case "finished":
          last()
          Queue.offerUnsafe(queue, { type: "finish", reason: event.reason, usage: event.usage })
          return Queue.endUnsafe(queue)
        case "failed":
          last()
          return Queue.failCauseUnsafe(queue, Cause.fail(errorOf(deployment, event.failure)))
        case "cancelled":
          last()
          // Not by this consumer, who would not be here to hear it.
          return Queue.failCauseUnsafe(queue, Cause.fail(errorOf(deployment, stopped)))
      }
    }
    const send = host.start({ ...generation, window: Policies.streamWindow }, (events) => events.forEach(onEvent))
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        if (live) send({ type: "cancel" })
      })
    )
    return { queue, send }
  })

  /** Tells the engine, once for many tokens, that the consumer has taken them. */
  const granting = (send: SendCommand) => {
    let taken = 0
    return <Events extends ReadonlyArray<Event>>(events: Events): Events => {
      for (const event of events) if (event.type === "text") taken += event.tokens
      if (taken >= Policies.streamGrant) {
        send({ type: "grant", tokens: taken })
        taken = 0
      }
      return events
    }
  }

  // Between the slot and the job's finalizer no interruption may come: the slot would be lost.
  const begin = (generation: Generation) =>
    Effect.uninterruptibleMask((restore) => Effect.andThen(restore(takeSlot), run(generation)))

  const generate: Engine["generate"] = (generation) =>
    Stream.unwrap(
      Effect.map(begin(generation), ({ queue, send }) => Stream.mapArray(Stream.fromQueue(queue), granting(send)))
    )

  return {
    describe: description,
    load: Effect.sync(() => ({ running, queued, memoryBytes: host.memoryBytes() })),
    generate,
    crashed: Effect.flatMap(Effect.promise(() => host.exited), (failure) => Effect.fail(errorOf(deployment, failure)))
  }
}

/** @param where `process`: a child process each; `thread`: this process */
export const make = (where: "process" | "thread") =>
  Engines.of({
    start: Effect.fnUntraced(function*(deployment) {
      const spec = specOf(deployment.options)
      const replicas = deployment.options.replicas ?? 1
      const host = yield* Effect.acquireRelease(
        Effect.sync(() => (where === "process" ? makeChildHost : makePoolHost)({ spec, replicas })),
        (host) => closeHost(deployment, host)
      )
      const description = yield* waitReady(deployment, host)
      return makeEngine(deployment, host, description, spec.slots * replicas)
    })
  })

/** Where the settings say. */
export const layer = Layer.effect(Engines, Effect.map(Settings, ({ engineHost }) => make(engineHost)))
