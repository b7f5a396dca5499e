/** Sends a call with one key after another until the provider accepts one. An effect: the first try of most requests needs none. */
import { Cause, Clock, Effect, Result, Scope } from "effect"
import { parse } from "../../dialects/shared/Json.ts"
import * as MissingEndpoint from "../../dialects/shared/MissingEndpoint.ts"
import type { Call } from "../../dialects/shared/ProviderDialect.ts"
import * as Caller from "../../domain/Caller.ts"
import type { Capability } from "../../domain/Capability.ts"
import * as Defaults from "../../domain/Defaults.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { Meter } from "../../services/engines/Engine.ts"
import * as Connection from "./Connection.ts"
import * as Decompression from "./Decompression.ts"
import type { DeploymentKeys, Held } from "./DeploymentKeys.ts"
import type { ResponseBody } from "./HttpExchange.ts"
import type { makeWriter, Media, Options } from "./HttpMessage.ts"
import { isEncoded, isJson, isSuccess, mediaTypeOf, wrongHeaders } from "./HttpMessage.ts"
import { broken } from "./NetworkErrors.ts"

/** Whether another key may succeed. */
const isOfKey = ({ _tag }: InferenceError.Reason): boolean => _tag === "RateLimited" || _tag === "AuthenticationFailed"

/** The connection with its body decompressed; a body of an unknown encoding is not read. */
const decompressed = (connection: Connection.Connection, encoding: string, most: number): Connection.Connection =>
  Decompression.decoded(connection, encoding, most) ?? Decompression.withPull(connection, Cause.done())

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
export interface Begun {
  readonly call: Call
  readonly wanted: Media
  readonly watch: Connection.WatchedExchange
  readonly capability: Capability | undefined
  readonly meter: Meter | undefined
  /** The connection of the latest try, which the end of the exchange closes. */
  connection: Connection.Connection | undefined
}

/** A request that was sent with a key. */
export interface Sent {
  readonly held: Held
  readonly connection: Connection.Connection
}

/** If a probe of a key ends without a response, the next request may probe it. */
const releasing = <A, E, R>({ release }: DeploymentKeys, held: Held, attempt: Effect.Effect<A, E, R>) =>
  held.probes ? Effect.onError(attempt, () => Effect.sync(() => release(held))) : attempt

/** The reason of an unreadable success: of the error that it is, whatever its content type, else of its headers. */
const unreadableOf = (
  { dialect, target }: Options,
  connection: Connection.Connection,
  reason: InferenceError.Reason
): Effect.Effect<InferenceError.Reason> =>
  Effect.map(readRefusal(connection), (body) => dialect.errorIn(body, target) ?? reason)

/** Adds to the reason of an unknown address or model where the request was sent, and the settings to check. */
const withPlace = (reason: InferenceError.Reason, baseUrl: string, { path }: Call): InferenceError.Reason => {
  if (reason._tag !== "UpstreamFailed" || reason.status !== 404) return reason
  const { origin, pathname } = new URL(`${baseUrl}${path}`)
  const { deployment, detail, kind, retryAfterMs, status } = reason
  return new InferenceError.UpstreamFailed({
    deployment,
    kind,
    status,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    detail: `${
      detail.replace(/[^.]$/, "$&.")
    } It was sent to ${origin}${pathname}. Check \`provider\`, \`model\` and \`baseUrl\` of the deployment.`
  })
}

const refusalOf = Effect.fnUntraced(function*(
  { baseUrl, dialect, target }: Options,
  connection: Connection.Connection,
  head: Connection.Head,
  { call, capability }: Begun
) {
  const body = yield* readRefusal(connection)
  const now = yield* Clock.currentTimeMillis
  const refusal = { status: head.status, headers: Connection.headersOf(head), body, now }
  return (capability && MissingEndpoint.reasonOf(refusal, target, capability)) ??
    withPlace(dialect.failure(refusal, target), baseUrl, call)
})

/** The outcome of one try: the body of a success, or the reason of the failure. */
type Try = Result.Result<ResponseBody, InferenceError.Reason>

/** What the exchanges of one deployment share. */
export interface Parts extends Options {
  readonly limits: Connection.Limits
  /** The most bytes of a body. */
  readonly most: number
  readonly write: ReturnType<typeof makeWriter>
}

/** The body of a success. */
export const bodyOf = (
  { keys, limits, target }: Parts,
  { watch }: Begun,
  { connection, held }: Sent,
  media: Media
): ResponseBody => ({
  watch,
  isOver: () => connection.isOver(),
  pull: Connection.pullWithin(target, limits, connection, watch),
  media,
  note: (reason) => keys.note(held, reason)
})

/** One try from its headers on. */
export const receive = Effect.fnUntraced(function*(
  parts: Parts,
  begun: Begun,
  { connection: plain, held }: Sent,
  head: Connection.Head
) {
  const { keys, most, target } = parts
  const { wanted, watch } = begun
  watch.headers()
  if (begun.meter !== undefined) begun.meter.isSent = isSuccess(head)
  const encoding = Connection.headerOf(head, "content-encoding")
  const connection = isEncoded(encoding) ? decompressed(plain, encoding, most) : plain
  begun.connection = connection
  const type = mediaTypeOf(head)
  const wrong = isSuccess(head) ? wrongHeaders(target, head, wanted, type) : undefined
  const reason = isSuccess(head)
    ? wrong && (yield* unreadableOf(parts, connection, wrong))
    : yield* refusalOf(parts, connection, head, begun)
  keys.note(held, reason === wrong ? undefined : reason)
  if (reason !== undefined) {
    if (begun.meter !== undefined) begun.meter.isSent = false
    connection.close()
    return Result.fail(keys.clean(reason))
  }
  return Result.succeed(bodyOf(parts, begun, { connection, held }, isJson(type) ? "json" : wanted))
})

/** One try with a key. */
export const attempt = Effect.fnUntraced(function*(parts: Parts, begun: Begun, held: Held) {
  const { limits, target } = parts
  const { watch } = begun
  const ended = watch.reason()
  if (ended !== undefined) return yield* InferenceError.make(ended)
  const connection = Connection.open(
    parts.dispatcher,
    parts.write(begun.call, begun.wanted, held, yield* Caller.HopCount, begun.meter?.trace),
    undefined,
    begun.meter
  )
  begun.connection = connection
  const head = yield* Effect.mapError(
    connection.head,
    (error) => InferenceError.make(watch.reason() ?? broken(target, limits.connect, error, false))
  )
  return yield* receive(parts, begun, { connection, held }, head)
})

/** Tries keys until the provider accepts one, or none is left. The first try may have begun already. */
export const tryKeys = Effect.fnUntraced(
  function*(parts: Parts, begun: Begun, first: Held, firstTry: Effect.Effect<Try, InferenceError.InferenceError>) {
    const { keys, target } = parts
    const tried = new Set<number>()
    let held = first
    let next = firstTry
    for (;;) {
      const answer = yield* releasing(keys, held, next)
      if (Result.isSuccess(answer)) return answer.success
      tried.add(held.index)
      const error = InferenceError.make(answer.failure)
      if (!isOfKey(answer.failure)) return yield* error
      held = yield* Effect.fromResult(Result.mapError(keys.take(target.deployment, tried), () => error))
      next = attempt(parts, begun, held)
    }
  }
)

/** Ends the exchange at the end of the scope. Not `Effect.acquireRelease`, which copies the context. */
export const endWithScope = (begun: Begun): Effect.Effect<void, never, Scope.Scope> =>
  Effect.flatMap(Effect.scope, (scope) =>
    Scope.addFinalizer(
      scope,
      Effect.sync(() => {
        begun.watch.remove()
        begun.connection?.close()
      })
    ))
