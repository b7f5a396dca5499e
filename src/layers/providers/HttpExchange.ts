/**
 * Requests to a provider: sends a call with a key, and returns the response's body, within limits.
 *
 * **Details**
 *
 * The end of the scope closes the connection unless the body was read completely. When a key is rate-limited or rejected,
 * the same request is retried with another key, if there is one.
 */
import type { Pull } from "effect"
import { Cause, Clock, Effect, Result, Scope } from "effect"
import { isUtf8 } from "node:buffer"
import { brief, cut, malformed } from "../../dialects/shared/ErrorMapping.ts"
import { isCut, parse } from "../../dialects/shared/Json.ts"
import * as MissingEndpoint from "../../dialects/shared/MissingEndpoint.ts"
import type { Call, Target } from "../../dialects/shared/ProviderDialect.ts"
import * as Caller from "../../domain/Caller.ts"
import type { Capability } from "../../domain/Capability.ts"
import * as Defaults from "../../domain/Defaults.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import * as Connection from "./Connection.ts"
import * as Decompression from "./Decompression.ts"
import type { DeploymentKeys, Held } from "./DeploymentKeys.ts"
import type { Media, Options } from "./HttpRequest.ts"
import { makeWriter, mediaTypes } from "./HttpRequest.ts"
import { broken, tooLarge } from "./NetworkErrors.ts"

/** The body of a success. */
export interface ResponseBody {
  /** Fails with the reason of a broken exchange. */
  readonly pull: Pull.Pull<Uint8Array, InferenceError.InferenceError>
  /** Whether the response is complete, read or not. */
  readonly isOver: () => boolean
  /** The received media type: JSON may arrive instead of events, as an error or a buffered answer. */
  readonly media: Media
  /** Records a failure in the body that concerns the key of the request. */
  readonly note: (reason: InferenceError.Reason) => void
  readonly watch: Connection.ExchangeTimeout
}

/** Receives the body of a success as it arrives. */
export interface BodyReceiver {
  /** The headers of a success; called first, unless `rest` or `failed` is. */
  readonly body: (media: Media) => void
  /** What has arrived in one turn of the event loop; a body of JSON completely. */
  readonly data: (bytes: Uint8Array) => void
  readonly end: () => void
  readonly failed: (reason: InferenceError.Reason) => void
  /** The response is a refusal or compressed: the effect goes on with it, and with other keys. Nothing else is called. */
  readonly rest: (body: Effect.Effect<ResponseBody, InferenceError.InferenceError, Scope.Scope>) => void
}

/** An exchange that a receiver follows. */
export interface StartedExchange {
  /** The first content or reasoning has come. */
  readonly content: () => void
  /** Whether the response is complete, received or not. */
  readonly isOver: () => boolean
  /** Records a failure in the body that concerns the key of the request. */
  readonly note: (reason: InferenceError.Reason) => void
  /** Stops reading from the provider until `resume`; the pause is no stall. */
  readonly pause: () => void
  readonly resume: () => void
  /** The rest of the body, which the receiver does not get from this call on. */
  readonly rest: () => Effect.Effect<ResponseBody, never, Scope.Scope>
  /** Ends it; the receiver is not called any more. */
  readonly close: () => void
}

export interface HttpExchange {
  /**
   * Sends the call at once; undefined if no key is usable now, or the receiver could not follow.
   *
   * @param hops instances of this service that the request has passed
   */
  readonly start: (call: Call, wanted: Media, hops: number, receiver: BodyReceiver) => StartedExchange | undefined
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

/** Whether another key may succeed. */
const isOfKey = ({ _tag }: InferenceError.Reason): boolean => _tag === "RateLimited" || _tag === "AuthenticationFailed"

const mediaTypeOf = (head: Connection.Head): string | undefined => {
  const type = Connection.headerOf(head, "content-type")
  return type === undefined || isUsualType.test(type) ? type : type.split(";")[0]?.trim().toLowerCase()
}

/** A media type without parameters. */
const isUsualType = /^[a-z/-]+$/

const isJson = (type = ""): boolean => /^(?:application|text)\/(?:[\w.-]+\+)?json$/.test(type)

/** Whether the body is compressed, although `identity` is requested. */
const isEncoded = (encoding: string | undefined): encoding is string =>
  encoding !== undefined && encoding !== "identity"

/** The problem with the headers of a success; undefined if there is none. */
const wrongHeaders = (target: Target, head: Connection.Head, wanted: Media, type: string | undefined) => {
  if (type === undefined) return malformed(target, "no content type")
  if (!mediaTypes[wanted].includes(type) && !isJson(type)) {
    return malformed(target, `content type \`${brief(type)}\` instead of \`${mediaTypes[wanted][0]}\``)
  }
  const encoding = Connection.headerOf(head, "content-encoding")
  return isEncoded(encoding) && !Decompression.isKnown(encoding)
    ? malformed(target, `unknown content encoding "${brief(encoding)}"`)
    : undefined
}

/** Whether a receiver can follow the response: a success that is not compressed, of the wanted media type. */
const isReadable = (target: Target, head: Connection.Head, wanted: Media, type: string | undefined): boolean =>
  isSuccess(head) && !isEncoded(Connection.headerOf(head, "content-encoding")) &&
  wrongHeaders(target, head, wanted, type) === undefined

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
interface Begun {
  readonly call: Call
  readonly wanted: Media
  readonly watch: Connection.WatchedExchange
  readonly capability: Capability | undefined
  /** The connection of the latest try, which the end of the exchange closes. */
  connection: Connection.Connection | undefined
}

/** A request that was sent with a key. */
interface Sent {
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

const noneTried: ReadonlySet<number> = new Set()

const isSuccess = ({ status }: Connection.Head): boolean => status >= 200 && status < 300

/** What the exchanges of one deployment share. */
interface Parts extends Options {
  readonly limits: Connection.Limits
  /** The most bytes of a body. */
  readonly most: number
  readonly write: ReturnType<typeof makeWriter>
}

const send = (
  { dispatcher, write }: Parts,
  { call, wanted }: Pick<Begun, "call" | "wanted">,
  held: Held,
  hops: number,
  receiver?: Connection.Receiver
) => Connection.open(dispatcher, write(call, wanted, held, hops), receiver)

/** The body of a success. */
const bodyOf = (
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
const receive = Effect.fnUntraced(function*(
  parts: Parts,
  begun: Begun,
  { connection: plain, held }: Sent,
  head: Connection.Head
) {
  const { keys, most, target } = parts
  const { wanted, watch } = begun
  watch.headers()
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
    connection.close()
    return Result.fail(keys.clean(reason))
  }
  return Result.succeed(bodyOf(parts, begun, { connection, held }, isJson(type) ? "json" : wanted))
})

/** One try with a key. */
const attempt = Effect.fnUntraced(function*(parts: Parts, begun: Begun, held: Held) {
  const { limits, target } = parts
  const { watch } = begun
  const ended = watch.reason()
  if (ended !== undefined) return yield* InferenceError.make(ended)
  const connection = send(parts, begun, held, yield* Caller.HopCount)
  begun.connection = connection
  const head = yield* Effect.mapError(
    connection.head,
    (error) => InferenceError.make(watch.reason() ?? broken(target, limits.connect, error, false))
  )
  return yield* receive(parts, begun, { connection, held }, head)
})

/** Tries keys until the provider accepts one, or none is left. The first try may have begun already. */
const tryKeys = Effect.fnUntraced(
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
const endWithScope = (begun: Begun): Effect.Effect<void, never, Scope.Scope> =>
  Effect.flatMap(Effect.scope, (scope) =>
    Scope.addFinalizer(
      scope,
      Effect.sync(() => {
        begun.watch.remove()
        begun.connection?.close()
      })
    ))

/** An exchange that a receiver follows. */
class Started implements StartedExchange, Connection.Receiver {
  readonly #parts: Parts
  readonly #begun: Begun
  readonly #held: Held
  readonly #receiver: BodyReceiver
  readonly #connection: Connection.Connection
  #bytes = 0
  /** Received and not passed on. */
  #pieces: Array<Uint8Array> = []
  /** Passes the pieces on; undefined until the body is known to be streamed. */
  #flush: (() => void) | undefined
  #hasHead = false
  #isPaused = false
  #isReleased = false

  constructor(parts: Parts, begun: Begun, held: Held, hops: number, receiver: BodyReceiver) {
    this.#parts = parts
    this.#begun = begun
    this.#held = held
    this.#receiver = receiver
    this.#connection = begun.connection = send(parts, begun, held, hops, this)
  }

  head(head: Connection.Head): void {
    const { keys, target } = this.#parts
    const { wanted, watch } = this.#begun
    this.#hasHead = true
    const type = mediaTypeOf(head)
    if (!isReadable(target, head, wanted, type)) return this.#detach(head)
    watch.headers()
    watch.wait()
    keys.note(this.#held, undefined)
    if (!isJson(type)) this.#flush = () => this.#pass()
    this.#receiver.body(isJson(type) ? "json" : wanted)
  }

  /** An effect goes on with the response. */
  #detach(head: Connection.Head): void {
    const sent = { connection: this.#connection, held: this.#held }
    this.#connection.detach()
    this.#receiver.rest(Effect.andThen(
      endWithScope(this.#begun),
      tryKeys(this.#parts, this.#begun, this.#held, receive(this.#parts, this.#begun, sent, head))
    ))
  }

  data(piece: Uint8Array): void {
    const { most, target } = this.#parts
    this.#bytes += piece.length
    if (this.#bytes > most) {
      this.#connection.detach()
      this.#connection.close()
      return this.#fail(tooLarge(target, most).reason)
    }
    const isFirst = this.#pieces.push(piece) === 1
    if (this.#flush === undefined) return this.#noteData()
    if (!isFirst) return
    this.#noteData()
    queueMicrotask(this.#flush)
  }

  #noteData(): void {
    const { watch } = this.#begun
    watch.took()
    // A pause takes effect after one more read; the reader does not wait for what follows.
    if (!this.#isPaused) watch.wait()
  }

  #pass(): void {
    const pieces = this.#pieces
    if (pieces.length === 0) return
    this.#pieces = []
    this.#receiver.data(pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces))
  }

  end(): void {
    this.#begun.watch.remove()
    this.#pass()
    this.#receiver.end()
  }

  error(error: Error): void {
    const { limits, target } = this.#parts
    this.#fail(this.#begun.watch.reason() ?? broken(target, limits.connect, error, this.#hasHead))
  }

  #fail(reason: InferenceError.Reason): void {
    this.#release()
    this.#pass()
    this.#receiver.failed(reason)
  }

  #release(): void {
    if (this.#isReleased) return
    this.#isReleased = true
    this.#begun.watch.remove()
    // The next request may probe the key.
    if (this.#held.probes && !this.#hasHead) this.#parts.keys.release(this.#held)
  }

  content(): void {
    this.#begun.watch.content()
  }

  isOver(): boolean {
    return this.#connection.isOver()
  }

  note(reason: InferenceError.Reason): void {
    this.#parts.keys.note(this.#held, reason)
  }

  pause(): void {
    this.#isPaused = true
    this.#begun.watch.took()
    this.#connection.pause()
  }

  resume(): void {
    this.#isPaused = false
    this.#begun.watch.wait()
    this.#connection.resume()
  }

  rest(): Effect.Effect<ResponseBody, never, Scope.Scope> {
    this.#connection.detach(this.#pieces)
    this.#pieces = []
    const sent = { connection: this.#connection, held: this.#held }
    return Effect.suspend(() =>
      Effect.as(endWithScope(this.#begun), bodyOf(this.#parts, this.#begun, sent, this.#begun.wanted))
    )
  }

  close(): void {
    this.#pieces = []
    this.#connection.detach()
    this.#release()
    this.#connection.close()
  }
}

const decoder = new TextDecoder()

/** The most bytes of a character of UTF-8. */
const mostOfCharacter = 4

/** The text of a body, without a character at its end that is cut; undefined if it is not UTF-8. */
const textOf = (bytes: Uint8Array): string | undefined => {
  for (let missing = 0; missing < mostOfCharacter; missing++) {
    const text = bytes.subarray(0, bytes.length - missing)
    if (isUtf8(text)) return decoder.decode(text)
  }
  return undefined
}

/** Decodes the body of a complete response. One that ends early was cut, although its connection ended in good order. */
export const decodeBody = <A>(
  target: Target,
  bytes: Uint8Array,
  decode: (body: unknown) => Result.Result<A, InferenceError.Reason>
): Result.Result<A, InferenceError.Reason> => {
  const text = textOf(bytes)
  if (text === undefined) return Result.fail(malformed(target, "the body is not UTF-8"))
  const body = parse(text)
  if (body !== undefined) return decode(body)
  return Result.fail(isCut(text) ? cut(target) : malformed(target, "the body is not JSON"))
}

/** Reads a body completely and decodes it. */
const makeFinish = ({ keys, target }: Options) =>
  Effect.fnUntraced(function*<A>(
    { note, pull }: ResponseBody,
    decode: (body: unknown) => Result.Result<A, InferenceError.Reason>
  ) {
    const pieces: Array<Uint8Array> = []
    const rest: Effect.Effect<never, InferenceError.InferenceError | Cause.Done> = Effect.flatMap(pull, (piece) => {
      pieces.push(piece)
      return rest
    })
    yield* Effect.catchIf(rest, Cause.isDone, () => Effect.void)
    const decoded = decodeBody(target, Buffer.concat(pieces), decode)
    if (Result.isSuccess(decoded)) return decoded.success
    note(decoded.failure)
    return yield* InferenceError.make(keys.clean(decoded.failure))
  })

/** The exchanges of one deployment; the end of the scope stops their timers. */
export const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<HttpExchange, never, Scope.Scope> {
  const { keys, target } = options
  const limits = Connection.limitsOf(target.options)
  const most = target.options.maxResponseBytes ?? Defaults.maxResponseBytes
  const parts: Parts = { ...options, limits, most, write: makeWriter(options) }
  const timeouts = yield* Connection.makeTimeouts(target.deployment, limits)

  const begin = (call: Call, wanted: Media, capability?: Capability): Begun => {
    const watch = timeouts.add(wanted !== "json", () => begun.connection?.close())
    const begun: Begun = { call, wanted, watch, capability, connection: undefined }
    return begun
  }
  const openFor = (call: Call, wanted: Media, capability?: Capability) => {
    const entered = Effect.suspend(() => {
      const begun = begin(call, wanted, capability)
      return Effect.as(endWithScope(begun), begun)
    })
    return Effect.flatMap(Effect.uninterruptible(entered), (begun) =>
      Effect.flatMap(
        Effect.fromResult(keys.take(target.deployment, noneTried)),
        (held) => tryKeys(parts, begun, held, attempt(parts, begun, held))
      ))
  }

  const finish = makeFinish(options)

  return {
    start: (call, wanted, hops, receiver) => {
      const taken = keys.take(target.deployment, noneTried)
      if (Result.isFailure(taken)) return undefined
      const held = taken.success
      const begun = begin(call, wanted)
      try {
        return new Started(parts, begun, held, hops, receiver)
      } catch (defect) {
        begun.watch.remove()
        if (held.probes) keys.release(held)
        throw defect
      }
    },
    open: (call, wanted) => openFor(call, wanted),
    finish,
    read: (call, decode, capability) =>
      Effect.flatMap(openFor(call, "json", capability), (body) => finish(body, decode)),
    clean: keys.clean,
    stop: (reason) => Effect.sync(() => timeouts.stop(reason))
  }
})
