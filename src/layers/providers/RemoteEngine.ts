/**
 * The Engine seam over a provider: its dialect encodes and decodes, `HttpExchange` transports.
 *
 * **Details**
 *
 * A stream that is cut, stalls, is malformed or empty fails, before and after its first content. Ending the stream or the
 * engine closes the connection at once, as does a reader that exceeds the total limit. The socket is read as fast as the
 * stream.
 */
import { Effect, Result, Scope, Stream } from "effect"
import { notSupported, readable } from "../../dialects/shared/ErrorMapping.ts"
import { makePrefixStopMatcher } from "../../dialects/shared/PrefixStopMatcher.ts"
import type {
  Call,
  Dialect,
  Each,
  FetchedImages,
  ImageTransport,
  Target,
  Task
} from "../../dialects/shared/ProviderDialect.ts"
import type * as Capability from "../../domain/Capability.ts"
import * as Policies from "../../domain/Defaults.ts"
import type { RemoteDeployment } from "../../domain/Deployment.ts"
import type { Ability } from "../../domain/EngineProtocol.ts"
import type { SpanOrOff } from "../../domain/Fields.ts"
import type { Counted, Generation } from "../../domain/Generation.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import { firstImage, type Message } from "../../domain/Message.ts"
import { providerKindOf } from "../../domain/ProviderKind.ts"
import { hostOf, isPrivateHost } from "../../domain/PublicAddress.ts"
import type { Source } from "../../domain/Source.ts"
import { bodyWith, dialectOf, isComplete, requiredPaths } from "../../domain/Source.ts"
import type { Engine, Retain } from "../../services/engines/Engine.ts"
import { capabilitiesOf } from "../../services/engines/EngineKinds.ts"
import { eventsOf, isEncrypted, makeCheck, makeEventReader } from "./AnswerEvents.ts"
import type { HttpExchange } from "./HttpExchange.ts"
import type { ImageFetcher } from "./ImageFetcher.ts"
import type { ResponseBody } from "./ResponseBody.ts"

/** The abilities that a generation needs. */
const neededBy = ({ format, logprobs, messages, toolChoice, tools = [] }: Generation): ReadonlyArray<Ability> => [
  "generate",
  ...(tools.length > 0 && toolChoice !== "none" ? ["tools" as const] : []),
  ...(format === undefined ? [] : ["format" as const]),
  ...(logprobs === undefined ? [] : ["logprobs" as const]),
  ...(firstImage(messages) === undefined ? [] : ["images" as const])
]

/** Adds the fields of a program's partial body to an encoded request of its dialect. */
const withFieldsOf = (source: Source, target: Target) => (call: Call): Result.Result<Call, InferenceError.Reason> => {
  if (dialectOf(target.options) === source.dialect) {
    return Result.succeed({ ...call, body: bodyWith(source, call.body as Source["body"]) })
  }
  const [field] = requiredPaths(source)
  return field === undefined
    ? Result.succeed(call)
    : Result.fail(notSupported(target, field, "its API has no such field. Remove it."))
}

/** The fetched images by their URLs. */
const fetchedOf = (before: ReadonlyArray<Message>, after: ReadonlyArray<Message>): FetchedImages => {
  const fetched: Array<readonly [string, NonNullable<ReturnType<FetchedImages["get"]>>]> = []
  for (const [index, { content }] of before.entries()) {
    if (typeof content === "string") continue
    for (const [at, part] of content.entries()) {
      const now = after[index]!.content[at]
      if (part.type !== "image" || part.source.type !== "url" || typeof now !== "object") continue
      if (now.type === "image" && now.source.type === "base64") fetched.push([part.source.url, now.source])
    }
  }
  return new Map(fetched)
}

/** The caller's own request, where the caller speaks this dialect. */
const callFor = (
  { generate: { passThrough, request } }: Dialect,
  generation: Generation,
  target: Target,
  stream: boolean,
  fetched?: FetchedImages
): Result.Result<Call, InferenceError.Reason> => {
  const { source } = generation
  if (source === undefined) return request(generation, target, stream)
  return passThrough !== undefined && isComplete(source) && dialectOf(target.options) === source.dialect
    ? passThrough(generation, source, target, stream, fetched)
    : Result.flatMap(request(generation, target, stream), withFieldsOf(source, target))
}

/** Whether one wrong input can fail the whole batch. */
const isInputError = ({ reason }: InferenceError.InferenceError): boolean =>
  reason._tag === "InvalidRequest" || reason._tag === "ContextLengthExceeded" || reason._tag === "ContentRefused"

interface Parts {
  readonly dialect: Dialect
  readonly target: Target
  readonly exchange: HttpExchange
  readonly media: ImageFetcher
}

const makeFromResult = ({ clean }: HttpExchange) => <A>(result: Result.Result<A, InferenceError.Reason>) =>
  Effect.fromResult(Result.mapError(result, (reason) => InferenceError.make(clean(reason))))

const isLimited = (limit: SpanOrOff | undefined): boolean => limit !== undefined && limit !== false

/** Whether a configured limit requires a streamed response. */
const watchesPieces = ({ timeouts = {} }: RemoteDeployment): boolean =>
  isLimited(timeouts.firstByte) || isLimited(timeouts.firstToken) || isLimited(timeouts.stall)

/**
 * How images by URL are sent. A provider in the private network gets bytes: it could be made to fetch from that network by a
 * public name with a private address. Another instance of this service checks addresses itself.
 */
const imageTransportOf = ({ images }: Dialect, { options: { baseUrl = "", provider } }: Target): ImageTransport => {
  const url = providerKindOf(provider).isTroupe === true ? null : URL.parse(baseUrl)
  return url !== null && isPrivateHost(hostOf(url)) ? "bytes" : images
}

const makeGenerate = ({ dialect, exchange, media, target }: Parts) => {
  const { generate } = dialect
  const transport = imageTransportOf(dialect, target)
  const fromResult = makeFromResult(exchange)

  /** The call, with images as the dialect takes them. */
  const callOf = (generation: Generation, stream: boolean) => {
    if (firstImage(generation.messages) === undefined) return fromResult(callFor(dialect, generation, target, stream))
    return Effect.flatMap(media.prepare(generation.messages, transport), (messages) => {
      const fetched = messages === generation.messages ? undefined : fetchedOf(generation.messages, messages)
      return fromResult(callFor(dialect, { ...generation, messages }, target, stream, fetched))
    })
  }

  /** The events of an answer that is not streamed. */
  const finish = Effect.fnUntraced(function*(body: ResponseBody, generation: Generation) {
    const events = yield* exchange.finish(
      body,
      (body) => readable(target, () => generate.whole(body, generation, target))
    )
    const wrong = makeCheck(target, generation)(events)
    return wrong === undefined
      ? Stream.fromIterable(
        makePrefixStopMatcher(generation, target.options)(events.filter((event) => !isEncrypted(event)))
      )
      : yield* InferenceError.make(wrong)
  })

  const whole = Effect.fnUntraced(function*(generation: Generation) {
    const call = yield* callOf(generation, false)
    return yield* finish(yield* exchange.open(call, "json"), generation)
  })

  const streamed = Effect.fnUntraced(function*(generation: Generation) {
    const call = yield* callOf(generation, true)
    const body = yield* exchange.open(call, dialect.framing)
    // A gateway's errors are JSON also where a stream is asked for.
    if (body.media === "json") return yield* finish(body, generation)
    return eventsOf({ ...body, clean: exchange.clean }, makeEventReader(dialect, target, generation))
  })

  const { stream } = target.options
  const isWatched = watchesPieces(target.options)
  return (generation: Generation) =>
    stream ?? (isWatched || generation.buffered !== true) ? streamed(generation) : whole(generation)
}

/** Until the scope ends. Not `Effect.acquireRelease`, which copies the whole context for a release that needs none of it. */
const retainSlot = (retain: Retain | undefined): Effect.Effect<void, never, Scope.Scope> =>
  retain === undefined
    ? Effect.void
    : Effect.uninterruptible(Effect.flatMap(Effect.scope, (scope) => Scope.addFinalizer(scope, Effect.sync(retain()))))

type Begin = (
  needed: ReadonlyArray<Ability>,
  retain: Retain | undefined
) => Effect.Effect<unknown, InferenceError.InferenceError, Scope.Scope>

/** The tasks that are not streamed, by ability. */
const makeTasks = ({ exchange, target }: Parts, begin: Begin) => {
  const fromResult = makeFromResult(exchange)
  const { deployment } = target

  const run = <Input, Output>(
    ability: Ability,
    task: Task<Input, Output> | undefined,
    input: Input,
    retain: Retain | undefined,
    capability: Capability.Capability = ability
  ): Effect.Effect<Output, InferenceError.InferenceError> =>
    Effect.scoped(Effect.gen(function*() {
      yield* begin([ability], retain)
      if (task === undefined) return yield* InferenceError.notCapable(deployment, ability)
      const call = yield* fromResult(task.request(input, target))
      return yield* exchange.read(call, (body) => task.answer(body, input, target), capability)
    }))

  /** All inputs in one request; one by one if one of them is wrong. */
  const runEach = <A>(
    ability: Ability,
    task: Task<ReadonlyArray<string>, Each<A>> | undefined,
    inputs: ReadonlyArray<string>,
    retain: Retain | undefined
  ): Effect.Effect<Each<A>, InferenceError.InferenceError> =>
    Effect.catchIf(
      run(ability, task, inputs, retain),
      isInputError,
      (error): Effect.Effect<Each<A>, InferenceError.InferenceError> =>
        inputs.length < 2
          ? Effect.succeed(inputs.map(() => Result.fail(error)))
          : Effect.map(
            Effect.forEach(inputs, (input) => runEach(ability, task, [input], retain)),
            (results) => results.flat()
          )
    )

  return { run, runEach }
}

export const make = (dialect: Dialect, target: Target, exchange: HttpExchange, media: ImageFetcher): Engine => {
  const { deployment, options } = target
  const parts = { dialect, target, exchange, media }
  const abilities = capabilitiesOf(options)
  const over = new InferenceError.EngineStopped({ deployment })
  let stopped = false

  /** Takes the slot until the connection is closed or reusable. */
  const begin: Begin = (needed, retain) =>
    Effect.suspend(() => {
      if (stopped) return Effect.fail(InferenceError.make(over))
      const missing = needed.find((ability) => !abilities.includes(ability))
      return missing === undefined ? retainSlot(retain) : Effect.fail(InferenceError.notCapable(deployment, missing))
    })

  const generate = makeGenerate(parts)
  const { run, runEach } = makeTasks(parts, begin)

  /** Without the ability the whole task fails, not its inputs. */
  const each = <A>(ability: Ability, task: Task<ReadonlyArray<string>, Each<A>> | undefined) =>
    abilities.includes(ability) && task !== undefined
      ? (inputs: ReadonlyArray<string>, retain?: Retain) => runEach(ability, task, inputs, retain)
      : () => Effect.fail(InferenceError.notCapable(deployment, ability))

  return {
    describe: {
      engine: "remote",
      contextWindow: options.contextSize ?? 0,
      slots: options.maxConcurrent ?? Policies.maxConcurrent,
      abilities,
      details: { provider: options.provider, model: options.model }
    },
    generate: (generation, retain) =>
      Stream.unwrap(Effect.andThen(begin(neededBy(generation), retain), generate(generation))),
    embed: each("embed", dialect.embed),
    ...(dialect.embedNative === undefined
      ? {}
      : { embedNative: (source: Source, retain?: Retain) => run("embed", dialect.embedNative, source, retain) }),
    rerank: (query, documents, retain) => run("rerank", dialect.rerank, { query, documents }, retain),
    classify: each("classify", dialect.classify),
    tokenize: (input, retain) => run("tokenize", dialect.tokenize, input, retain),
    ...(dialect.count === undefined
      ? {}
      : { count: (input: Counted, retain?: Retain) => run("generate", dialect.count, input, retain, "count") }),
    memoryBytes: Effect.succeed(0),
    isOver: () => stopped,
    stop: Effect.suspend(() => {
      stopped = true
      return exchange.stop(over)
    }),
    crashed: Effect.never
  }
}
