/**
 * The Engine seam over a host: jobs as streams and effects, and their cancellation.
 *
 * **Details**
 *
 * A job's slot is released when the engine has ended the job, which may be a token after its caller has left.
 */
import type { Array as Arr, Clock } from "effect"
import { Cause, Effect, Queue, Random, Result, Scope, Stream } from "effect"
import { hash } from "node:crypto"
import type { EngineDescription, EngineHost, SendCommand } from "../../domain/EngineProtocol.ts"
import type { Countable, Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import { maxSeed } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type {
  Each,
  EngineFailure,
  GenerateJob,
  JobEvent,
  JobResult,
  TaskJob,
  Thinking,
  TokenizeJob
} from "../../domain/Job.ts"
import { firstImage, texts } from "../../domain/Message.ts"
import type { Reasoning } from "../../domain/Reasoning.ts"
import { budgetOf, effortOf, isOff, within } from "../../domain/Reasoning.ts"
import { requiredPaths } from "../../domain/Source.ts"
import type { PartLimits, StreamLimits } from "../../domain/StreamLimits.ts"
import { partsOf, streamDefaults } from "../../domain/StreamLimits.ts"
import * as Time from "../../domain/Time.ts"
import type { Engine, Retain } from "../../services/engines/Engine.ts"
import { contentOf, failureOf, LocalAnswer } from "./LocalAnswer.ts"
import { TokenGrants } from "./TokenGrants.ts"

type ErrorOf = (failure: EngineFailure) => InferenceError

const notSupported = (path: string, message: string): EngineFailure => ({ kind: "not_supported", path, message })

/** Refuses images and required fields of a dialect, which local engines do not support. */
const unsupported = ({ messages, source }: Generation): EngineFailure | undefined => {
  const image = firstImage(messages)
  if (image !== undefined) return notSupported(image, "local engines do not accept images.")
  const [field] = requiredPaths(source)
  return field === undefined ? undefined : notSupported(field, "local engines do not have this field. Omit it.")
}

/** Characters of an owner, enough to avoid collisions. */
const ownerLength = 20

/** The tenant as a hash: its name may be a secret, and engines do not need it. */
const ownerOf = ({ caller }: Generation): Pick<GenerateJob, "owner"> => {
  const { tenant = "" } = caller ?? {}
  return tenant === "" ? {} : { owner: hash("sha256", tenant, "base64url").slice(0, ownerLength) }
}

/** The efforts that chat templates have. */
const templateEfforts = ["low", "medium", "high"] as const

const thinkingOf = (reasoning: Reasoning): Thinking => {
  if (isOff(reasoning)) return { on: false }
  const effort = effortOf(reasoning)
  const budget = budgetOf(reasoning)
  return {
    on: true,
    ...(effort === undefined ? {} : { effort: within(effort, templateEfforts) }),
    ...(budget === undefined ? {} : { budget })
  }
}

/** The limits of streams, and those of parts where they are not the defaults. */
interface StreamedParts extends StreamLimits {
  readonly parts: PartLimits | undefined
}

/** The job of a generation: temperature and `topP` default to 1. */
const jobOf = (generation: Generation, randomSeed: number, { parts, window }: StreamedParts): GenerateJob => {
  const {
    messages,
    parallelToolCalls: __,
    resumed: ___,
    sampling: { seed = randomSeed, temperature = 1, topP = 1, ...sampling },
    source: ____,
    reasoning,
    caller: _____,
    buffered: ______,
    ...fields
  } = generation
  return {
    ...ownerOf(generation),
    ...fields,
    sampling: { ...sampling, temperature, topP, seed },
    messages: texts(messages),
    ...(reasoning === undefined ? {} : { thinking: thinkingOf(reasoning) }),
    kind: "generate",
    ...(parts === undefined ? {} : { parts }),
    window
  }
}

/** Puts a job's events into a queue; calls `onLast` at the last one. */
const listener =
  (queue: Queue.Queue<Event, InferenceError | Cause.Done>, errorOf: ErrorOf, onLast: () => void) =>
  (event: JobEvent): void => {
    if (event.type === "progress") return
    const content = contentOf(event)
    if (content !== undefined) Queue.offerUnsafe(queue, content)
    if (content !== undefined && content.type !== "finish") return
    onLast()
    if (content === undefined) Queue.failCauseUnsafe(queue, Cause.fail(errorOf(failureOf(event))))
    else Queue.endUnsafe(queue)
  }

/** What answers come from. */
interface Served {
  readonly host: EngineHost
  readonly errorOf: ErrorOf
  readonly limits: StreamedParts
  /** Monotonic ms. */
  readonly now: () => number
}

/** Starts a generation; the scope's end cancels it. */
const start = Effect.fnUntraced(
  function*({ errorOf, host, limits }: Served, generation: Generation, retain: Retain | undefined) {
    const failure = unsupported(generation)
    if (failure !== undefined) return yield* errorOf(failure)
    const seed = generation.sampling.seed ?? (yield* Random.nextIntBetween(0, maxSeed))
    const queue = yield* Queue.unbounded<Event, InferenceError | Cause.Done>()
    const release = retain?.()
    let live = true
    const onEvent = listener(queue, errorOf, () => {
      live = false
      release?.()
    })
    const send = host.start(jobOf(generation, seed, limits), (events) => events.forEach(onEvent))
    const cancel = Effect.sync(() => {
      if (live) send({ type: "cancel" })
    })
    // Not `Effect.addFinalizer`, which copies the whole context for a finalizer that needs none of it.
    yield* Scope.addFinalizer(yield* Effect.scope, cancel)
    return { queue, send }
  },
  // No interruption between the job's start and the finalizer that cancels it.
  Effect.uninterruptible
)

/** Takes the events of an answer, and grants as many tokens; the reader waits between two of them. */
const granting = <E>(
  take: Effect.Effect<Arr.NonEmptyReadonlyArray<Event>, E>,
  send: SendCommand,
  { limits, now }: Served
): Effect.Effect<Arr.NonEmptyReadonlyArray<Event>, E> => {
  const grants = new TokenGrants(send, limits)
  let givenAt: number | undefined
  const taken = Effect.map(take, (events) => {
    grants.take(events)
    grants.send()
    givenAt = now()
    return events
  })
  return Effect.suspend(() => {
    if (givenAt !== undefined) grants.waited(now() - givenAt)
    return taken
  })
}

/** See `Engine.start`. */
const makeStart =
  ({ errorOf, host, limits, now }: Served, random: Random.Random): NonNullable<Engine["start"]> =>
  (generation, _, receiver, retain) => {
    if (host.isOver() || unsupported(generation) !== undefined) return undefined
    const seed = generation.sampling.seed ?? Math.floor(random.nextDoubleUnsafe() * (maxSeed + 1))
    const answer = new LocalAnswer(receiver, errorOf, retain?.(), now)
    answer.follow(host.start(jobOf(generation, seed, limits), (events) => answer.onEvents(events)), limits)
    return answer
  }

/** Runs a task; interruption cancels it. */
const runTask = <Kind extends TaskJob["kind"]>(
  host: EngineHost,
  errorOf: ErrorOf,
  job: Extract<TaskJob, { kind: Kind }>,
  retain: Retain | undefined
): Effect.Effect<Extract<JobResult, { kind: Kind }>, InferenceError> =>
  Effect.callback((resume) => {
    const release = retain?.()
    const send = host.start(job, (events) => {
      for (const event of events) {
        if (event.type === "progress") continue
        release?.()
        resume(
          event.type === "result" && event.result.kind === job.kind
            ? Effect.succeed(event.result as Extract<JobResult, { kind: Kind }>)
            : Effect.fail(errorOf(failureOf(event)))
        )
      }
    })
    return Effect.sync(() => send({ type: "cancel" }))
  })

const tokenizeJob = (input: Countable): TokenizeJob => ({
  kind: "tokenize",
  input: typeof input === "string" ? input : { ...input, messages: texts(input.messages) }
})

const resultOf = (errorOf: ErrorOf) => <A>(each: Each<A>): Result.Result<A, InferenceError> =>
  each.ok ? Result.succeed(each.value) : Result.fail(errorOf(each.failure))

/** What the answers of an engine take from outside. */
export interface Surroundings {
  /** Of the seeds of answers that `start` begins. */
  readonly random: Random.Random
  readonly clock: Clock.Clock
}

/**
 * An engine over a host that is ready.
 *
 * @param streams how answers are streamed
 */
export const make = (
  host: EngineHost,
  description: EngineDescription,
  errorOf: ErrorOf,
  { clock, random }: Surroundings,
  streams: StreamLimits = streamDefaults
): Engine => {
  const limits = { ...streams, parts: partsOf(streams) }
  const served: Served = { errorOf, host, limits, now: () => Time.preciseOf(clock) }
  const rankEach: NonNullable<Engine["rankEach"]> = (requests, retain) =>
    Effect.map(
      runTask(host, errorOf, { kind: "rerank", requests }, retain),
      ({ rankings }) => rankings.map(resultOf(errorOf))
    )
  return {
    describe: description,
    memoryBytes: Effect.sync(() => host.memoryBytes()),
    gpuMemory: () => host.gpuMemory?.(),
    isOver: () => host.isOver(),
    generate: (generation, retain) =>
      Stream.unwrap(Effect.map(
        start(served, generation, retain),
        ({ queue, send }) => Stream.fromPull(Effect.succeed(granting(Queue.takeAll(queue), send, served)))
      )),
    start: makeStart(served, random),
    embed: (inputs, retain) =>
      Effect.map(
        runTask(host, errorOf, { kind: "embed", inputs }, retain),
        ({ embeddings }) => embeddings.map(resultOf(errorOf))
      ),
    rerank: (query, documents, retain) =>
      Effect.flatMap(rankEach([{ query, documents }], retain), ([ranking]) => Effect.fromResult(ranking!)),
    rankEach,
    classify: (inputs, retain) =>
      Effect.map(
        runTask(host, errorOf, { kind: "classify", inputs }, retain),
        ({ classifications }) => classifications.map(resultOf(errorOf))
      ),
    tokenize: (input, retain) => Effect.map(runTask(host, errorOf, tokenizeJob(input), retain), ({ tokens }) => tokens),
    stop: Effect.promise(() => host.close()),
    crashed: Effect.flatMap(Effect.promise(() => host.exited), (failure) => Effect.fail(errorOf(failure)))
  }
}
