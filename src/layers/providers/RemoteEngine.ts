/**
 * The Engine seam over a provider: a dialect's words, an upstream's bytes.
 *
 * **Details**
 *
 * A stream that is cut, stalls, is malformed or empty fails, before its first content and after it alike. Ending the
 * stream or the engine closes the connection at once; so does a slow reader that takes longer than the whole answer may.
 * A socket is read only as fast as the stream is.
 */
import { Cause, Effect, Pull, Result, Stream } from "effect"
import type { Engine, Generation, Hold } from "../../services/Engine.ts"
import type { Ability } from "../../services/EngineProtocol.ts"
import type { Event } from "../../services/Inference.ts"
import * as InferenceError from "../../services/InferenceError.ts"
import * as Policies from "../../services/Policies.ts"
import type { Dialect, Each, EventDecoder, Frame, Target, Task, Told } from "./Dialect.ts"
import * as Frames from "./Frames.ts"
import { empty, malformed } from "./Refusals.ts"
import type { Body, Upstream } from "./Upstream.ts"

/** Reads what a provider says until the finish. */
interface Reader {
  readonly push: (bytes: Uint8Array) => void
  readonly end: () => void
  /** Whether the finish was told. */
  readonly isOver: () => boolean
  /** The events since, and what is wrong after them. */
  readonly take: () => { readonly events: ReadonlyArray<Event>; readonly failure: InferenceError.Reason | undefined }
}

/** Sees that an answer has content and one finish, its last event. */
const makeCheck = (target: Target, { stop }: Generation) => {
  let hasContent = false
  return (events: ReadonlyArray<Event>): InferenceError.Reason | undefined => {
    const last = events.at(-1)
    hasContent ||= events.length > 1 || (last !== undefined && last.type !== "finish")
    // A stop sequence may well be the first thing that a model says, and thoughts may use up the length.
    return last?.type === "finish" && last.reason === "stop" && !hasContent && stop.length === 0
      ? empty(target)
      : undefined
  }
}

const makeReader = (dialect: Dialect, decoder: EventDecoder, target: Target, generation: Generation): Reader => {
  const framer = Frames.make(dialect.framing, target.options.maxResponseBytes ?? Policies.maxResponseBytes)
  const check = makeCheck(target, generation)
  let events: Array<Event> = []
  let failure: InferenceError.Reason | undefined
  let over = false

  const add = (told: Told) => {
    if (Result.isFailure(told)) {
      failure = told.failure
      return
    }
    failure = check(told.success)
    if (failure !== undefined) return
    events.push(...told.success)
    over = told.success.at(-1)?.type === "finish"
  }
  const addAll = (frames: () => ReadonlyArray<Frame>) => {
    try {
      for (const frame of frames()) {
        if (over || failure !== undefined) return
        add(decoder.push(frame))
      }
    } catch (error) {
      if (!(error instanceof Frames.Unreadable)) throw error
      failure = malformed(target, error.message)
    }
  }
  return {
    push: (bytes) => addAll(() => framer.push(bytes)),
    end: () => {
      addAll(() => framer.end())
      if (!over && failure === undefined) add(decoder.end())
    },
    isOver: () => over,
    take: () => {
      const taken = { events, failure }
      events = []
      return taken
    }
  }
}

/** What of the engine's abilities a generation needs. */
const neededBy = ({ format, logprobs, toolChoice, tools = [] }: Generation): ReadonlyArray<Ability> => [
  "generate",
  ...(tools.length > 0 && toolChoice !== "none" ? ["tools" as const] : []),
  ...(format === undefined ? [] : ["format" as const]),
  ...(logprobs === undefined ? [] : ["logprobs" as const])
]

type EventPull = Pull.Pull<readonly [Event, ...Array<Event>], InferenceError.InferenceError>

/** The events of a streamed body; what is wrong comes after the events before it. */
const eventsOf = (
  { bytes, clean, watch }: Body & Pick<Upstream, "clean">,
  reader: Reader
): Stream.Stream<Event, InferenceError.InferenceError> =>
  Stream.transformPull(bytes, (pull) => {
    let failure: InferenceError.Reason | undefined
    const settle = (): EventPull => {
      const taken = reader.take()
      failure = taken.failure
      const [first, ...others] = taken.events
      if (first === undefined) return next
      watch.content()
      return Effect.succeed([first, ...others])
    }
    /** The rest of a body whose answer is whole, so that its connection can serve again. */
    const drain = Effect.forever(pull).pipe(
      Effect.timeout(Policies.drainWait),
      Effect.ignore,
      Effect.andThen(Cause.done())
    )
    const next: EventPull = Effect.suspend(() => {
      if (failure !== undefined) return Effect.fail(InferenceError.make(clean(failure)))
      if (reader.isOver()) return drain
      return Effect.matchEffect(pull, {
        onSuccess: (pieces) => {
          pieces.forEach(reader.push)
          return settle()
        },
        onFailure: (error) => {
          if (!Cause.isDone(error)) return Effect.fail(error)
          reader.end()
          return settle()
        }
      })
    })
    return Effect.succeed(next)
  })

const abilitiesOf = (dialect: Dialect, { options }: Target): ReadonlyArray<Ability> =>
  dialect.abilities.filter((ability) => options.abilities === undefined || options.abilities.includes(ability))

/** A wrong input is the request's own fault, and may spoil it for the others. */
const isOfInput = ({ reason }: InferenceError.InferenceError): boolean =>
  reason._tag === "InvalidRequest" || reason._tag === "ContextLengthExceeded" || reason._tag === "ContentRefused"

export const make = (dialect: Dialect, target: Target, upstream: Upstream): Engine => {
  const { deployment, options } = target
  const abilities = abilitiesOf(dialect, target)
  const isStreamed = options.stream ?? true
  let stopped = false

  const cannot = (ability: Ability) =>
    InferenceError.make(
      new InferenceError.InvalidRequest({ detail: `The model of "${deployment}" cannot do this: ${ability}.` })
    )
  const over = new InferenceError.EngineStopped({ deployment })

  /** Takes the slot until the connection is done with. */
  const begin = (needed: ReadonlyArray<Ability>, hold: Hold | undefined) => {
    const missing = needed.find((ability) => !abilities.includes(ability))
    return Effect.andThen(
      stopped
        ? Effect.fail(InferenceError.make(over))
        : missing === undefined
        ? Effect.void
        : Effect.fail(cannot(missing)),
      Effect.acquireRelease(Effect.sync(() => hold?.()), (release) => Effect.sync(() => release?.()))
    )
  }

  const spoken = <A>(result: Result.Result<A, InferenceError.Reason>) =>
    Effect.fromResult(Result.mapError(result, (reason) => InferenceError.make(upstream.clean(reason))))

  const whole = Effect.fnUntraced(function*(generation: Generation) {
    const call = yield* spoken(dialect.generate.request(generation, target, false))
    const events = yield* spoken(dialect.generate.whole(yield* upstream.read(call), generation, target))
    const wrong = makeCheck(target, generation)(events)
    return wrong === undefined ? Stream.fromIterable(events) : yield* InferenceError.make(wrong)
  })

  const streamed = Effect.fnUntraced(function*(generation: Generation) {
    const call = yield* spoken(dialect.generate.request(generation, target, true))
    const body = yield* upstream.open(call, dialect.framing)
    const decoder = dialect.generate.events(generation, target)
    return eventsOf({ ...body, clean: upstream.clean }, makeReader(dialect, decoder, target, generation))
  })

  const run = <Input, Output>(
    ability: Ability,
    task: Task<Input, Output> | undefined,
    input: Input,
    hold: Hold | undefined
  ): Effect.Effect<Output, InferenceError.InferenceError> =>
    Effect.scoped(Effect.gen(function*() {
      yield* begin([ability], hold)
      if (task === undefined) return yield* cannot(ability)
      const call = yield* spoken(task.request(input, target))
      return yield* spoken(task.answer(yield* upstream.read(call), input, target))
    }))

  /** All inputs at once; one by one, where one of them is wrong. */
  const runEach = <A>(
    ability: Ability,
    task: Task<ReadonlyArray<string>, Each<A>> | undefined,
    inputs: ReadonlyArray<string>,
    hold: Hold | undefined
  ): Effect.Effect<Each<A>, InferenceError.InferenceError> =>
    Effect.catchIf(
      run(ability, task, inputs, hold),
      (error) => isOfInput(error) && task !== undefined && abilities.includes(ability),
      (error): Effect.Effect<Each<A>, InferenceError.InferenceError> =>
        inputs.length < 2
          ? Effect.succeed(inputs.map(() => Result.fail(error)))
          : Effect.map(
            Effect.forEach(inputs, (input) => runEach(ability, task, [input], hold), { concurrency: 4 }),
            (results) => results.flat()
          )
    )

  return {
    describe: {
      engine: "remote",
      contextWindow: options.contextSize ?? 0,
      slots: options.maxConcurrent ?? Policies.maxConcurrent,
      abilities,
      details: { provider: options.provider, model: options.model }
    },
    generate: (generation, hold) =>
      Stream.unwrap(
        Effect.andThen(begin(neededBy(generation), hold), isStreamed ? streamed(generation) : whole(generation))
      ),
    embed: (inputs, hold) => runEach("embed", dialect.embed, inputs, hold),
    rerank: (query, documents, hold) => run("rerank", dialect.rerank, { query, documents }, hold),
    classify: (inputs, hold) => runEach("classify", dialect.classify, inputs, hold),
    tokenize: (input, hold) => run("tokenize", dialect.tokenize, input, hold),
    memoryBytes: Effect.succeed(0),
    isOver: () => stopped,
    stop: Effect.suspend(() => {
      stopped = true
      return upstream.stop(over)
    }),
    crashed: Effect.never
  }
}
