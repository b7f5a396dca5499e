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
import { Effect, Result, Scope, Stream } from "effect"
import { notSupported } from "../../dialects/shared/ErrorMapping.ts"
import { withExactSchemas } from "../../dialects/shared/ExactSchemas.ts"
import type {
  Call,
  Dialect,
  Each,
  FetchedImages,
  ImageTransport,
  Target,
  Task
} from "../../dialects/shared/ProviderDialect.ts"
import { mostConcurrent } from "../../domain/AdaptiveConcurrency.ts"
import type { RemoteDeployment } from "../../domain/Deployment.ts"
import type { EngineCapability } from "../../domain/EngineProtocol.ts"
import type { SpanOrOff } from "../../domain/Fields.ts"
import type { Counted, Generation } from "../../domain/Generation.ts"
import { localOnly } from "../../domain/Generation.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { Message } from "../../domain/Message.ts"
import { providerKindOf } from "../../domain/ProviderKind.ts"
import { hostOf, isPrivateHost } from "../../domain/PublicAddress.ts"
import { hasImages } from "../../domain/RoutingRequest.ts"
import type { Source } from "../../domain/Source.ts"
import { bodyWith, dialectOf, hasResponses, isComplete, isResponse, requiredPaths } from "../../domain/Source.ts"
import type { Engine, EventReceiver, Meter, Retain, StartedAnswer } from "../../services/engines/Engine.ts"
import { capabilitiesOf } from "../../services/engines/EngineKinds.ts"
import { progressHeader } from "../../services/models/Waits.ts"
import { eventsOf } from "./AnswerEvents.ts"
import { BufferedAnswer, decodeBuffered, reportCut } from "./BufferedAnswer.ts"
import { makeEventReader } from "./EventReader.ts"
import type { HttpExchange, ResponseBody } from "./HttpExchange.ts"
import type { ImageFetcher } from "./ImageFetcher.ts"
import type { Begin } from "./RemoteTasks.ts"
import { makeTasks } from "./RemoteTasks.ts"
import { StreamedAnswer } from "./StreamedAnswer.ts"

/** The capabilities that a generation needs. */
const neededBy = (
  { completion, format, logprobs, messages, toolChoice, tools = [] }: Generation
): ReadonlyArray<EngineCapability> => [
  completion === undefined ? "generate" : "complete",
  ...(tools.length > 0 && toolChoice !== "none" ? ["tools" as const] : []),
  ...(format === undefined ? [] : ["format" as const]),
  ...(logprobs === undefined ? [] : ["logprobs" as const]),
  ...(completion?.echo === true ? ["echo" as const] : []),
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

/** A request of another dialect than the caller's, in which fields of one provider have no place. */
const translated = (
  request: Dialect["generate"]["request"],
  generation: Generation,
  target: Target,
  stream: boolean
): Result.Result<Call, InferenceError.Reason> => {
  const path = localOnly(generation)
  return path === undefined
    ? request(generation, target, stream)
    : Result.fail(notSupported(target, path, "its API has no such field, or Troupe does not know it. Remove it."))
}

/** The encoded request, or the caller's own if the caller uses this dialect. */
const callFor = (
  { generate: { passThrough, request, whole } }: Dialect,
  generation: Generation,
  target: Target,
  stream: boolean,
  fetched?: FetchedImages
): Result.Result<Call, InferenceError.Reason> => {
  const { source } = generation
  if (whole !== undefined) return whole(generation, target, stream, fetched)
  if (source === undefined) return translated(request, generation, target, stream)
  return passThrough !== undefined && isComplete(source) && dialectOf(target.options) === source.dialect
    ? passThrough(generation, source, target, stream, fetched)
    : Result.flatMap(
      translated(request, withExactSchemas(generation, source), target, stream),
      withFieldsOf(source, target)
    )
}

/** The call of a stream that asks another instance of this service where it waits, if the caller does. */
const asking = (call: Call, stream: boolean, meter: Meter | undefined): Call =>
  stream && meter?.waits !== undefined ? { ...call, headers: { ...call.headers, [progressHeader]: "true" } } : call

interface Parts {
  readonly dialect: Dialect
  readonly target: Target
  readonly exchange: HttpExchange
  readonly media: ImageFetcher
  /** The only purpose of the endpoint, if it has one. */
  readonly capability?: EngineCapability
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

/** Whether a generation is requested as a stream. */
const makeIsStreamed = ({ target: { options } }: Parts) => {
  const isWatched = watchesPieces(options)
  return ({ buffered }: Generation): boolean => options.stream ?? (isWatched || buffered !== true)
}

const makeGenerate = (parts: Parts) => {
  const { capability, dialect, exchange, media, target } = parts
  const transport = imageTransportOf(dialect, target)
  const fromResult = makeFromResult(exchange)
  const isStreamed = makeIsStreamed(parts)

  /** The call, with images as the dialect supports them. */
  const callOf = (generation: Generation, stream: boolean) => {
    if (!hasImages(generation.messages)) return fromResult(callFor(dialect, generation, target, stream))
    return Effect.flatMap(media.prepare(generation.messages, transport), (messages) => {
      const fetched = messages === generation.messages ? undefined : fetchedOf(generation.messages, messages)
      return fromResult(callFor(dialect, { ...generation, messages }, target, stream, fetched))
    })
  }

  const finish = (body: ResponseBody, generation: Generation, meter: Meter | undefined) =>
    Effect.suspend(() => {
      let received = 0
      const pull = Effect.tap(body.pull, ({ length }) => Effect.sync(() => void (received += length)))
      return exchange.finish({ ...body, pull }, decodeBuffered(dialect, target, generation, meter)).pipe(
        Effect.tapError(({ reason }) => Effect.sync(() => reportCut(meter, reason, received))),
        Effect.map(Stream.fromIterable)
      )
    })

  const streamed = (body: ResponseBody, generation: Generation, meter: Meter | undefined) =>
    eventsOf({ ...body, clean: exchange.clean }, makeEventReader(dialect, target, generation, meter))

  /** The events of a body. A gateway's errors are JSON even if a stream was requested. */
  const eventsIn = (body: ResponseBody, generation: Generation, meter: Meter | undefined) =>
    body.media === "json" ? finish(body, generation, meter) : Effect.succeed(streamed(body, generation, meter))

  const generate = (generation: Generation, meter: Meter | undefined) => {
    const stream = isStreamed(generation)
    return Effect.flatMap(
      Effect.flatMap(
        callOf(generation, stream),
        (call) => exchange.open(asking(call, stream, meter), stream ? dialect.framing : "json", capability, meter)
      ),
      (body) => eventsIn(body, generation, meter)
    )
  }
  return { generate, eventsIn, isStreamed }
}

/** See `Engine.start`. */
const makeStart = (parts: Parts, { eventsIn, isStreamed }: ReturnType<typeof makeGenerate>) => {
  const { capability, dialect, exchange, target } = parts
  return (
    generation: Generation,
    hops: number,
    receiver: EventReceiver,
    meter: Meter | undefined
  ): StartedAnswer | undefined => {
    if (hasImages(generation.messages)) return undefined
    const stream = isStreamed(generation)
    const call = callFor(dialect, generation, target, stream)
    if (Result.isFailure(call)) return undefined
    const answer = new (stream ? StreamedAnswer : BufferedAnswer)(
      { dialect, target, exchange, generation, meter },
      receiver,
      (body) => eventsIn(body, generation, meter)
    )
    const started = exchange.start(
      asking(call.success, stream, meter),
      stream ? dialect.framing : "json",
      hops,
      answer,
      meter,
      capability
    )
    if (started === undefined) return undefined
    answer.follow(started)
    return answer
  }
}

/** Until the scope ends. Not `Effect.acquireRelease`, which copies the whole context for a release that needs none of it. */
const retainSlot = (retain: Retain | undefined): Effect.Effect<void, never, Scope.Scope> =>
  retain === undefined
    ? Effect.void
    : Effect.uninterruptible(Effect.flatMap(Effect.scope, (scope) => Scope.addFinalizer(scope, Effect.sync(retain()))))

const makeGenerator = (parts: Parts) => {
  const generating = makeGenerate(parts)
  return { generate: generating.generate, start: makeStart(parts, generating) }
}

/** Chooses the endpoint of a generation. */
const makeGenerators = (parts: Parts) => {
  const { dialect, target: { options } } = parts
  const { complete, respond } = dialect
  const generator = makeGenerator(parts)
  const completer = complete &&
    makeGenerator({ ...parts, dialect: { ...dialect, generate: complete }, capability: "complete" })
  const responder = respond && hasResponses(options)
    ? makeGenerator({ ...parts, dialect: { ...dialect, generate: respond } })
    : undefined
  return (generation: Generation) => {
    // A deployment without text completions has not the capability.
    if (generation.completion !== undefined) return completer ?? generator
    return responder !== undefined && isResponse(generation) ? responder : generator
  }
}

const describe = (options: RemoteDeployment): Engine["describe"] => ({
  engine: "remote",
  contextWindow: options.contextSize ?? 0,
  slots: mostConcurrent(options.maxConcurrent),
  capabilities: capabilitiesOf(options),
  details: { provider: options.provider, model: options.model }
})

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

  const parts: Parts = { dialect, target, exchange, media }
  const generatorFor = makeGenerators(parts)
  const { run, runEach } = makeTasks(dialect, exchange, target, begin)

  /** Without the capability the whole task fails, not its inputs. */
  const each = <A>(capability: EngineCapability, task: Task<ReadonlyArray<string>, Each<A>> | undefined) =>
    capabilities.includes(capability) && task !== undefined
      ? (inputs: ReadonlyArray<string>, retain?: Retain) => runEach(capability, task, inputs, retain)
      : () => Effect.fail(InferenceError.notCapable(deployment, capability))

  return {
    describe: describe(options),
    generate: (generation, retain, meter) =>
      Stream.unwrap(
        Effect.andThen(begin(neededBy(generation), retain), generatorFor(generation).generate(generation, meter))
      ),
    start: (generation, hops, receiver, _, meter) =>
      stopped || neededBy(generation).some((one) => !capabilities.includes(one))
        ? undefined
        : generatorFor(generation).start(generation, hops, receiver, meter),
    // Only dialects that write inputs as they are have the capability to embed tokens.
    embed: each("embed", dialect.embed) as Engine["embed"],
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
