/**
 * Requests to a provider: sends a call with a key, and returns the response's body, within limits.
 *
 * **Details**
 *
 * The end of the scope closes the connection unless the body was read completely. When a key is rate-limited or rejected,
 * the same request is retried with another key, if there is one.
 */
import type * as Undici from "@effect/platform-node/Undici"
import type { Pull, Scope } from "effect"
import { Cause, Clock, Effect, Redacted, Result } from "effect"
import { isUtf8 } from "node:buffer"
import { brief, malformed } from "../../dialects/shared/ErrorMapping.ts"
import { parse } from "../../dialects/shared/Json.ts"
import * as MissingEndpoint from "../../dialects/shared/MissingEndpoint.ts"
import type { Call, Dialect, Target } from "../../dialects/shared/ProviderDialect.ts"
import * as Caller from "../../domain/Caller.ts"
import type { Capability } from "../../domain/Capability.ts"
import * as Defaults from "../../domain/Defaults.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import { keyHeader, providerKindOf } from "../../domain/ProviderKind.ts"
import * as Text from "../../domain/Text.ts"
import * as Connection from "./Connection.ts"
import * as Decompression from "./Decompression.ts"
import type { DeploymentKeys, Held } from "./DeploymentKeys.ts"
import { broken } from "./NetworkErrors.ts"

/** The media type of a response. */
export type Media = "json" | Dialect["framing"]

/** The body of a success. */
export interface ResponseBody {
  /** Fails with the reason of a broken exchange. */
  readonly pull: Pull.Pull<Uint8Array, InferenceError.InferenceError>
  /** Whether the response is complete, read or not. */
  readonly isOver: () => boolean
  /** The received media type: JSON may arrive instead of events, as an error or a buffered answer. */
  readonly media: Media
  /** Records a failure in the body that concerns the key of the request. */
  readonly note: (reason: InferenceError.Reason) => Effect.Effect<void>
  readonly watch: Connection.ExchangeTimeout
}

export interface HttpExchange {
  /** Sends the call and waits for the headers of a success. The end of the scope ends the exchange. */
  readonly open: (
    call: Call,
    wanted: Media
  ) => Effect.Effect<ResponseBody, InferenceError.InferenceError, Scope.Scope>
  /** Reads a body completely and decodes its JSON. */
  readonly finish: <A>(
    body: ResponseBody,
    decode: (body: unknown) => Result.Result<A, InferenceError.Reason>
  ) => Effect.Effect<A, InferenceError.InferenceError>
  /**
   * Sends the call and reads its response completely.
   *
   * @param capability the only purpose of the endpoint, if it has one
   */
  readonly read: <A>(
    call: Call,
    decode: (body: unknown) => Result.Result<A, InferenceError.Reason>,
    capability?: Capability
  ) => Effect.Effect<A, InferenceError.InferenceError, Scope.Scope>
  /** A reason without the keys. */
  readonly clean: (reason: InferenceError.Reason) => InferenceError.Reason
  /** Ends every exchange for this reason. */
  readonly stop: (reason: InferenceError.Reason) => Effect.Effect<void>
}

/** The state that one deployment's exchanges share. */
export interface Options {
  readonly target: Target
  readonly dialect: Dialect
  readonly dispatcher: Undici.Dispatcher
  readonly keys: DeploymentKeys
  readonly baseUrl: string
}

/** Whether another key may succeed. */
const isOfKey = ({ _tag }: InferenceError.Reason): boolean => _tag === "RateLimited" || _tag === "AuthenticationFailed"

const mediaTypes: Readonly<Record<Media, ReadonlyArray<string>>> = {
  json: ["application/json"],
  sse: ["text/event-stream"],
  ndjson: ["application/x-ndjson", "application/ndjson", "application/jsonl"]
}

/** Writes requests. */
const makeWriter = ({ baseUrl, target }: Options) => {
  const own = Object.entries(target.options.headers ?? {})
    .map(([name, value]) => [name.toLowerCase(), Text.trimValue(Redacted.value(value))] as const)
  const kind = providerKindOf(target.options.provider)
  return (call: Call, wanted: Media, { key }: Held, hops: number): Connection.Request => ({
    url: `${baseUrl}${call.path}`,
    headers: {
      accept: mediaTypes[wanted][0]!,
      "accept-encoding": "identity",
      "user-agent": "troupe",
      ...call.headers,
      ...(key === undefined ? {} : keyHeader(kind, Redacted.value(key))),
      ...(kind.isTroupe === true ? { [Caller.hopHeader]: String(hops + 1) } : {}),
      ...Object.fromEntries(own),
      "content-type": "application/json"
    },
    body: JSON.stringify(call.body)
  })
}

const mediaTypeOf = ({ headers }: Connection.Head): string | undefined =>
  headers["content-type"]?.split(";")[0]?.trim().toLowerCase()

const isJson = (type = ""): boolean => /^(?:application|text)\/(?:[\w.-]+\+)?json$/.test(type)

/** Whether the body is compressed, although `identity` is requested. */
const isEncoded = (encoding: string | undefined): encoding is string =>
  encoding !== undefined && encoding !== "identity"

/** The problem with the headers of a success; undefined if there is none. */
const wrongHeaders = (target: Target, { headers }: Connection.Head, wanted: Media, type: string | undefined) => {
  if (type === undefined) return malformed(target, "no content type")
  if (!mediaTypes[wanted].includes(type) && !isJson(type)) {
    return malformed(target, `content type \`${brief(type)}\` instead of \`${mediaTypes[wanted][0]}\``)
  }
  const encoding = headers["content-encoding"]
  return isEncoded(encoding) && !Decompression.isKnown(encoding)
    ? malformed(target, `unknown content encoding "${brief(encoding)}"`)
    : undefined
}

/** The connection with its body decompressed; a body of an unknown encoding is not read. */
const decompressed = (connection: Connection.Connection, encoding: string, most: number): Connection.Connection =>
  Decompression.decoded(connection, encoding, most) ?? { ...connection, pull: Cause.done() }

/** The beginning of an error's body: parsed JSON, or text. */
const readRefusal = ({ pull }: Connection.Connection): Effect.Effect<unknown> => {
  const pieces: Array<Uint8Array> = []
  let bytes = 0
  const read: Effect.Effect<void, Error | Cause.Done> = Effect.flatMap(pull, (piece) => {
    pieces.push(piece)
    bytes += piece.length
    return bytes >= Defaults.maxRefusalBytes ? Effect.void : read
  })
  return read.pipe(
    Effect.timeout(Defaults.refusalWait),
    Effect.ignore,
    Effect.map(() => {
      const text = new TextDecoder().decode(Buffer.concat(pieces).subarray(0, Defaults.maxRefusalBytes))
      return parse(text) ?? text
    })
  )
}

/** An exchange that has begun. */
interface Begun {
  readonly call: Call
  readonly wanted: Media
  readonly watch: Connection.ExchangeTimeout
  readonly capability: Capability | undefined
  /** Sets the connection that the end of the exchange closes; each try has its own. */
  readonly hold: (connection: Connection.Connection) => void
}

/** If a probe of a key ends without a response, the next request may probe it. */
const releasing = <A, E, R>({ release }: DeploymentKeys, held: Held, attempt: Effect.Effect<A, E, R>) =>
  held.probes ? Effect.onError(attempt, () => release(held)) : attempt

const refusalOf = Effect.fnUntraced(function*(
  { dialect, target }: Options,
  connection: Connection.Connection,
  { headers, status }: Connection.Head,
  capability: Capability | undefined
) {
  const body = yield* readRefusal(connection)
  const now = yield* Clock.currentTimeMillis
  const refusal = { status, headers, body, now }
  return (capability && MissingEndpoint.reasonOf(refusal, target, capability)) ?? dialect.failure(refusal, target)
})

const makeExchange = (options: Options, limits: Connection.Limits) => {
  const { dispatcher, keys, target } = options
  const requestOf = makeWriter(options)
  const most = target.options.maxResponseBytes ?? Defaults.maxResponseBytes

  /** One try: the body of a success, or the reason of the failure. */
  const attempt = Effect.fnUntraced(function*({ call, capability, hold, wanted, watch }: Begun, held: Held) {
    const ended = watch.reason()
    if (ended !== undefined) return yield* InferenceError.make(ended)
    const plain = Connection.open(dispatcher, requestOf(call, wanted, held, yield* Caller.HopCount))
    hold(plain)
    const head = yield* Effect.mapError(
      plain.head,
      (error) => InferenceError.make(watch.reason() ?? broken(target, limits.connect, error, false))
    )
    watch.headers()
    const encoding = head.headers["content-encoding"]
    const connection = isEncoded(encoding) ? decompressed(plain, encoding, most) : plain
    hold(connection)
    const isSuccess = head.status >= 200 && head.status < 300
    const type = mediaTypeOf(head)
    const reason = isSuccess
      ? wrongHeaders(target, head, wanted, type)
      : yield* refusalOf(options, connection, head, capability)
    yield* keys.note(held, isSuccess ? undefined : reason)
    if (reason === undefined) {
      const body: ResponseBody = {
        watch,
        isOver: connection.isOver,
        pull: Connection.pullWithin(target, limits, connection, watch),
        media: isJson(type) ? "json" : wanted,
        note: (reason) => keys.note(held, reason)
      }
      return Result.succeed(body)
    }
    connection.close()
    return Result.fail(keys.clean(reason))
  })

  /** Tries keys until the provider accepts one, or none is left. */
  return Effect.fnUntraced(function*(begun: Begun) {
    const tried = new Set<number>()
    let held = yield* keys.take(target.deployment, tried)
    for (;;) {
      const answer = yield* releasing(keys, held, attempt(begun, held))
      if (Result.isSuccess(answer)) return answer.success
      tried.add(held.index)
      const error = InferenceError.make(answer.failure)
      if (!isOfKey(answer.failure)) return yield* error
      held = yield* Effect.mapError(keys.take(target.deployment, tried), () => error)
    }
  })
}

const decoder = new TextDecoder()

/** The exchanges of one deployment; the end of the scope stops their timers. */
export const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<HttpExchange, never, Scope.Scope> {
  const { keys, target } = options
  const limits = Connection.limitsOf(target.options)
  const exchange = makeExchange(options, limits)
  const watcher = yield* Connection.makeTimeouts(target.deployment, limits)

  const openFor = Effect.fnUntraced(function*(call: Call, wanted: Media, capability: Capability | undefined) {
    let held: Connection.Connection | undefined
    const watch = yield* watcher.watch(wanted !== "json", () => held?.close())
    const hold = (connection: Connection.Connection) => {
      held = connection
    }
    return yield* exchange({ call, wanted, watch, capability, hold })
  })

  const finish = Effect.fnUntraced(function*<A>(
    { note, pull }: ResponseBody,
    decode: (body: unknown) => Result.Result<A, InferenceError.Reason>
  ) {
    const pieces: Array<Uint8Array> = []
    const rest: Effect.Effect<never, InferenceError.InferenceError | Cause.Done> = Effect.flatMap(pull, (piece) => {
      pieces.push(piece)
      return rest
    })
    yield* Effect.catchIf(rest, Cause.isDone, () => Effect.void)
    const bytes = Buffer.concat(pieces)
    if (!isUtf8(bytes)) return yield* InferenceError.make(malformed(target, "the body is not UTF-8"))
    const body = parse(decoder.decode(bytes))
    if (body === undefined) return yield* InferenceError.make(malformed(target, "the body is not JSON"))
    const decoded = decode(body)
    if (Result.isSuccess(decoded)) return decoded.success
    yield* note(decoded.failure)
    return yield* InferenceError.make(keys.clean(decoded.failure))
  })

  const read: HttpExchange["read"] = (call, decode, capability) =>
    Effect.flatMap(openFor(call, "json", capability), (body) => finish(body, decode))

  return {
    open: (call, wanted) => openFor(call, wanted, undefined),
    finish,
    read,
    clean: keys.clean,
    stop: (reason) => Effect.sync(() => watcher.stop(reason))
  }
})
