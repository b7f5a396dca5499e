/**
 * The Engine seam over a provider: its dialect encodes and decodes, `HttpExchange` transports, and the events of an answer
 * are checked for completeness.
 *
 * **Details**
 *
 * A stream that is cut, stalls, is malformed or empty fails, before and after its first content. The end of the stream
 * or of the engine closes the connection at once; so does the total limit, even if the reader is slow. The socket is
 * read only as fast as the stream.
 */
import type { Pull } from "effect"
import { Cause, Effect, Result, Scope, Stream } from "effect"
import { empty, malformed, notSupported } from "../../dialects/shared/ErrorMapping.ts"
import * as FrameDecoder from "../../dialects/shared/FrameDecoder.ts"
import { makePrefixStopMatcher } from "../../dialects/shared/PrefixStopMatcher.ts"
import type {
  Call,
  DecodeResult,
  Dialect,
  Each,
  FetchedImages,
  Frame,
  ImageTransport,
  Target,
  Task
} from "../../dialects/shared/ProviderDialect.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { RemoteDeployment } from "../../domain/Deployment.ts"
import type { EngineCapability } from "../../domain/EngineProtocol.ts"
import type { SpanOrOff } from "../../domain/Fields.ts"
import type { Counted, Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { FinishReason } from "../../domain/Job.ts"
import type { Message } from "../../domain/Message.ts"
import { providerKindOf } from "../../domain/ProviderKind.ts"
import { hostOf, isPrivateHost } from "../../domain/PublicAddress.ts"
import { hasImages } from "../../domain/RoutingRequest.ts"
import type { Source } from "../../domain/Source.ts"
import { bodyWith, dialectOf, isComplete, requiredPaths } from "../../domain/Source.ts"
import type { Engine, Retain } from "../../services/engines/Engine.ts"
import { capabilitiesOf } from "../../services/engines/EngineKinds.ts"
import type { HttpExchange, ResponseBody } from "./HttpExchange.ts"
import type { ImageFetcher } from "./ImageFetcher.ts"
import type { Begin } from "./RemoteTasks.ts"
import { makeTasks } from "./RemoteTasks.ts"

/** The capabilities that a generation needs. */
const neededBy = (
  { format, logprobs, messages, toolChoice, tools = [] }: Generation
): ReadonlyArray<EngineCapability> => [
  "generate",
  ...(tools.length > 0 && toolChoice !== "none" ? ["tools" as const] : []),
  ...(format === undefined ? [] : ["format" as const]),
  ...(logprobs === undefined ? [] : ["logprobs" as const]),
  ...(hasImages(messages) ? ["images" as const] : [])
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

/** The encoded request, or the caller's own if the caller uses this dialect. */
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

/** Runs a decoder; nesting that exhausts the stack is malformed. */
const readable = <A>(
  target: Target,
  decode: () => Result.Result<A, InferenceError.Reason>
): Result.Result<A, InferenceError.Reason> => {
  try {
    return decode()
  } catch (error) {
    if (error instanceof RangeError) return Result.fail(malformed(target, "nested too deeply"))
    throw error
  }
}

/** Decodes the bytes of a streamed answer up to its finish. */
export interface EventReader {
  readonly push: (bytes: Uint8Array) => void
  readonly end: () => void
  /** Whether the answer is complete. */
  readonly isOver: () => boolean
  /** Whether reasoning was received. */
  readonly hasThoughts: () => boolean
  /** The events since the last call, and the failure after them. */
  readonly take: () => { readonly events: ReadonlyArray<Event>; readonly failure: InferenceError.Reason | undefined }
}

/** Checks that an answer has content or reasoning, and the calls that it ends in. */
export const makeCheck = (target: Target, { assistantPrefix, stop }: Generation) => {
  let hasContent = false
  let hasCalls = false
  // A stop sequence may come first, and the assistant prefix may be the complete answer.
  const mayBeEmpty = stop.length > 0 || assistantPrefix !== undefined
  const atEnd = (reason: FinishReason): InferenceError.Reason | undefined => {
    if (reason === "tool_calls" && !hasCalls) return malformed(target, "finish reason `tool_calls` without a tool call")
    return reason === "stop" && !hasContent && !mayBeEmpty ? empty(target) : undefined
  }
  return (events: ReadonlyArray<Event>): InferenceError.Reason | undefined => {
    for (const event of events) {
      const maybeCalls = event.type === "native" ? event.content : event.type === "tool_call"
      hasCalls ||= maybeCalls
      hasContent ||= maybeCalls || event.type === "text" || event.type === "thoughts"
    }
    const last = events.at(-1)
    return last?.type === "finish" ? atEnd(last.reason) : undefined
  }
}

/** Encrypted reasoning is progress without a text to pass on. */
export const isEncrypted = (event: Event): boolean => event.type === "thoughts" && event.text === ""

const unchanged = (events: ReadonlyArray<Event>) => events

/** Ends an answer at a stop sequence that begins in the assistant prefix. */
const stopMatcherOf = (generation: Generation, { options }: Target) =>
  generation.assistantPrefix === undefined ? unchanged : makePrefixStopMatcher(generation, options)

export const makeEventReader = (dialect: Dialect, target: Target, generation: Generation): EventReader => {
  const decoder = dialect.generate.events(generation, target)
  const frameDecoder = FrameDecoder.make(dialect.framing, target.options.maxResponseBytes ?? Defaults.maxResponseBytes)
  const check = makeCheck(target, generation)
  const join = stopMatcherOf(generation, target)
  let events: Array<Event> = []
  let failure: InferenceError.Reason | undefined
  let over = false
  let hasThoughts = false

  const add = (decoded: DecodeResult) => {
    if (Result.isFailure(decoded)) {
      failure = decoded.failure
      return
    }
    failure = check(decoded.success)
    if (failure !== undefined) return
    const joined = join(decoded.success)
    for (const event of joined) {
      hasThoughts ||= event.type === "thoughts"
      if (!isEncrypted(event)) events.push(event)
    }
    over = joined.at(-1)?.type === "finish"
  }
  const addAll = (frames: () => ReadonlyArray<Frame>) => {
    try {
      for (const frame of frames()) {
        if (over || failure !== undefined) return
        add(readable(target, () => decoder.push(frame)))
      }
    } catch (error) {
      if (!(error instanceof FrameDecoder.Unreadable)) throw error
      failure = malformed(target, error.message)
    }
  }
  return {
    push: (bytes) => addAll(() => frameDecoder.push(bytes)),
    end: () => {
      addAll(() => frameDecoder.end())
      if (!over && failure === undefined) add(decoder.end())
    },
    isOver: () => over,
    hasThoughts: () => hasThoughts,
    take: () => {
      const taken = { events, failure }
      events = []
      return taken
    }
  }
}

type EventPull = Pull.Pull<readonly [Event, ...Array<Event>], InferenceError.InferenceError>

/** The events of a streamed body. A failure comes after the events before it. */
export const eventsOf = (
  { clean, isOver, note, pull, watch }: ResponseBody & Pick<HttpExchange, "clean">,
  reader: EventReader
): Stream.Stream<Event, InferenceError.InferenceError> => {
  let failure: InferenceError.Reason | undefined
  const settle = (): EventPull => {
    const taken = reader.take()
    failure = taken.failure
    const [first, ...others] = taken.events
    if (first !== undefined || reader.hasThoughts()) watch.content()
    if (first === undefined) return next
    return Effect.succeed([first, ...others])
  }
  /** Reads the rest of a body whose answer is complete, so that its connection can be reused. */
  const drain = Effect.forever(pull).pipe(
    Effect.timeout(Defaults.drainWait),
    Effect.ignore,
    Effect.andThen(Cause.done())
  )
  const next: EventPull = Effect.suspend(() => {
    if (failure !== undefined) return Effect.andThen(note(failure), InferenceError.make(clean(failure)))
    if (reader.isOver()) return isOver() ? Cause.done() : drain
    return Effect.matchEffect(pull, {
      onSuccess: (bytes) => {
        reader.push(bytes)
        return settle()
      },
      onFailure: (error) => {
        if (!Cause.isDone(error)) return Effect.fail(error)
        reader.end()
        return settle()
      }
    })
  })
  return Stream.fromPull(Effect.succeed(next))
}

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
 * How images by URL are sent. A provider in the private network gets bytes: a public name with a private address could
 * make it fetch from that network. Another instance of this service checks addresses itself.
 */
const imageTransportOf = ({ images }: Dialect, { options: { baseUrl = "", provider } }: Target): ImageTransport => {
  const url = providerKindOf(provider).isTroupe === true ? null : URL.parse(baseUrl)
  return url !== null && isPrivateHost(hostOf(url)) ? "bytes" : images
}

const makeGenerate = ({ dialect, exchange, media, target }: Parts) => {
  const { generate } = dialect
  const transport = imageTransportOf(dialect, target)
  const fromResult = makeFromResult(exchange)

  /** The call, with images as the dialect supports them. */
  const callOf = (generation: Generation, stream: boolean) => {
    if (!hasImages(generation.messages)) return fromResult(callFor(dialect, generation, target, stream))
    return Effect.flatMap(media.prepare(generation.messages, transport), (messages) => {
      const fetched = messages === generation.messages ? undefined : fetchedOf(generation.messages, messages)
      return fromResult(callFor(dialect, { ...generation, messages }, target, stream, fetched))
    })
  }

  /** The events of an answer that is not streamed. */
  const finish = Effect.fnUntraced(function*(body: ResponseBody, generation: Generation) {
    const events = yield* exchange.finish(
      body,
      (body) => readable(target, () => generate.buffered(body, generation, target))
    )
    const wrong = makeCheck(target, generation)(events)
    return wrong === undefined
      ? Stream.fromIterable(
        stopMatcherOf(generation, target)(events.filter((event) => !isEncrypted(event)))
      )
      : yield* InferenceError.make(wrong)
  })

  const buffered = Effect.fnUntraced(function*(generation: Generation) {
    const call = yield* callOf(generation, false)
    return yield* finish(yield* exchange.open(call, "json"), generation)
  })

  const streamed = Effect.fnUntraced(function*(generation: Generation) {
    const call = yield* callOf(generation, true)
    const body = yield* exchange.open(call, dialect.framing)
    // A gateway's errors are JSON even if a stream was requested.
    if (body.media === "json") return yield* finish(body, generation)
    return eventsOf({ ...body, clean: exchange.clean }, makeEventReader(dialect, target, generation))
  })

  const { stream } = target.options
  const isWatched = watchesPieces(target.options)
  return (generation: Generation) =>
    stream ?? (isWatched || generation.buffered !== true) ? streamed(generation) : buffered(generation)
}

/** Until the scope ends. Not `Effect.acquireRelease`, which copies the whole context for a release that needs none of it. */
const retainSlot = (retain: Retain | undefined): Effect.Effect<void, never, Scope.Scope> =>
  retain === undefined
    ? Effect.void
    : Effect.uninterruptible(Effect.flatMap(Effect.scope, (scope) => Scope.addFinalizer(scope, Effect.sync(retain()))))

export const make = (dialect: Dialect, target: Target, exchange: HttpExchange, media: ImageFetcher): Engine => {
  const { deployment, options } = target
  const capabilities = capabilitiesOf(options)
  const over = new InferenceError.EngineStopped({ deployment })
  let stopped = false

  /** Takes the slot until the connection is closed or reusable. */
  const begin: Begin = (needed, retain) =>
    Effect.suspend(() => {
      if (stopped) return Effect.fail(InferenceError.make(over))
      const missing = needed.find((capability) => !capabilities.includes(capability))
      return missing === undefined ? retainSlot(retain) : Effect.fail(InferenceError.notCapable(deployment, missing))
    })

  const generate = makeGenerate({ dialect, target, exchange, media })
  const { run, runEach } = makeTasks(exchange, target, begin)

  /** Without the capability the whole task fails, not its inputs. */
  const each = <A>(capability: EngineCapability, task: Task<ReadonlyArray<string>, Each<A>> | undefined) =>
    capabilities.includes(capability) && task !== undefined
      ? (inputs: ReadonlyArray<string>, retain?: Retain) => runEach(capability, task, inputs, retain)
      : () => Effect.fail(InferenceError.notCapable(deployment, capability))

  return {
    describe: {
      engine: "remote",
      contextWindow: options.contextSize ?? 0,
      slots: options.maxConcurrent ?? Defaults.maxConcurrent,
      capabilities,
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
