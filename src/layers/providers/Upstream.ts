/**
 * Exchanges with a provider: a call goes out with a key, and a body comes back, within bounds.
 *
 * **Details**
 *
 * The scope's end closes the connection unless the body was read to its end. A key that is limited or refused is
 * exchanged for another, within the same request, as long as there is one.
 */
import { Cause, Clock, Effect, Exit, Redacted, Result, Scope, Stream } from "effect"
import type { HttpClientError, HttpClientResponse } from "effect/http"
import { HttpClient, HttpClientRequest } from "effect/http"
import * as InferenceError from "../../services/InferenceError.ts"
import * as Policies from "../../services/Policies.ts"
import type { Call, Dialect, Target } from "./Dialect.ts"
import type { Held, KeyRing } from "./KeyRing.ts"
import { malformed, parse } from "./Refusals.ts"
import * as Watch from "./Watch.ts"

/** The body of a success. */
export interface Body {
  /** Fails for what went wrong with the exchange. */
  readonly bytes: Stream.Stream<Uint8Array, InferenceError.InferenceError>
  readonly watch: Watch.Watch
}

/** What is wanted of the answer. */
export type Wanted = "json" | Dialect["framing"]

const mediaTypes: Readonly<Record<Wanted, ReadonlyArray<string>>> = {
  json: ["application/json"],
  sse: ["text/event-stream"],
  ndjson: ["application/x-ndjson", "application/ndjson", "application/jsonl"]
}

const codeOf = ({ reason }: HttpClientError.HttpClientError): string => {
  const { cause } = reason as { readonly cause?: NodeJS.ErrnoException & { readonly errors?: unknown } }
  const inner = Array.isArray(cause?.errors) ? cause.errors[0] as NodeJS.ErrnoException : cause
  return inner?.code ?? inner?.name ?? reason._tag
}

/** What the network said, before the answer began and in its middle. */
const broken = (
  { deployment }: Target,
  limits: Watch.Limits,
  error: HttpClientError.HttpClientError,
  begun: boolean
): InferenceError.Reason => {
  const code = codeOf(error)
  if (code === "UND_ERR_CONNECT_TIMEOUT") {
    return new InferenceError.UpstreamTimeout({ deployment, phase: "connect", afterMs: limits.connect })
  }
  if (code.startsWith("HPE_")) {
    return new InferenceError.UpstreamFailed({ deployment, kind: "malformed", detail: `it speaks no HTTP (${code}).` })
  }
  return begun
    ? new InferenceError.UpstreamFailed({ deployment, kind: "cut", detail: `its answer broke off (${code}).` })
    : new InferenceError.UpstreamFailed({ deployment, kind: "network", detail: `the connection failed (${code}).` })
}

const tooLarge = ({ deployment }: Target, bytes: number): InferenceError.InferenceError =>
  InferenceError.make(
    new InferenceError.UpstreamFailed({ deployment, kind: "too_large", detail: `it sent more than ${bytes} bytes.` })
  )

/** Why a success's headers are none, if so. */
const wrongHeaders = (target: Target, response: HttpClientResponse.HttpClientResponse, wanted: Wanted) => {
  const type = response.headers["content-type"]?.split(";")[0]?.trim().toLowerCase()
  if (type === undefined) return malformed(target, "of no content type")
  if (!mediaTypes[wanted].includes(type)) {
    return malformed(target, `not of the content type ${mediaTypes[wanted][0]} that was asked for`)
  }
  const encoding = response.headers["content-encoding"]
  return encoding === undefined || encoding === "identity" ? undefined : malformed(target, "compressed unasked")
}

export interface Upstream {
  /** Sends the call, and waits for the headers of a success. The scope's end ends the exchange. */
  readonly open: (
    call: Call,
    wanted: Wanted
  ) => Effect.Effect<Body, InferenceError.InferenceError, Scope.Scope>
  /** The same for an answer that is read whole, as parsed JSON. */
  readonly read: (call: Call) => Effect.Effect<unknown, InferenceError.InferenceError, Scope.Scope>
  /** A reason without the keys. */
  readonly clean: (reason: InferenceError.Reason) => InferenceError.Reason
  /** Ends every exchange for this reason. */
  readonly stop: (reason: InferenceError.Reason) => Effect.Effect<void>
}

/** What one deployment's exchanges share. */
export interface Options {
  readonly target: Target
  readonly dialect: Dialect
  readonly client: HttpClient.HttpClient
  readonly ring: KeyRing
  readonly baseUrl: string
}

/** The body's bytes, counted, timed, and with errors of ours. */
const watched = (
  { dialect: _, target, ...rest }: Options & { readonly limits: Watch.Limits },
  response: HttpClientResponse.HttpClientResponse,
  watch: Watch.Watch
): Stream.Stream<Uint8Array, InferenceError.InferenceError> => {
  const most = target.options.maxResponseBytes ?? Policies.maxResponseBytes
  let bytes = 0
  return Stream.transformPull(response.stream, (pull) =>
    Effect.succeed(Effect.suspend(() => {
      watch.wait()
      return Effect.matchEffect(pull, {
        onSuccess: (pieces) => {
          watch.took()
          bytes += pieces.reduce((sum, { length }) => sum + length, 0)
          return bytes > most ? Effect.fail(tooLarge(target, most)) : Effect.succeed(pieces)
        },
        onFailure: (error): Effect.Effect<never, InferenceError.InferenceError | Cause.Done> =>
          Cause.isDone(error)
            ? Cause.done()
            : Effect.fail(InferenceError.make(watch.reason() ?? broken(target, rest.limits, error, true)))
      })
    })))
}

/** The beginning of a refusal's body: parsed JSON, or text. */
const readRefusal = (response: HttpClientResponse.HttpClientResponse): Effect.Effect<unknown> => {
  const pieces: Array<Uint8Array> = []
  let bytes = 0
  return response.stream.pipe(
    Stream.takeUntil((piece) => {
      pieces.push(piece)
      bytes += piece.length
      return bytes >= Policies.maxRefusalBytes
    }),
    Stream.runDrain,
    Effect.timeout(Policies.refusalWait),
    Effect.ignore,
    Effect.map(() => {
      const text = new TextDecoder().decode(Buffer.concat(pieces).subarray(0, Policies.maxRefusalBytes))
      return parse(text) ?? text
    })
  )
}

/** The same reason without the keys that a provider's words may hold. */
const withoutKeys = (reason: InferenceError.Reason, { hide }: KeyRing): InferenceError.Reason => {
  switch (reason._tag) {
    case "UpstreamFailed": {
      const { deployment, detail, kind, retryAfterMs, status } = reason
      return new InferenceError.UpstreamFailed({
        deployment,
        kind,
        detail: hide(detail),
        ...(status === undefined ? {} : { status }),
        ...(retryAfterMs === undefined ? {} : { retryAfterMs })
      })
    }
    case "ContentRefused":
      return new InferenceError.ContentRefused({ deployment: reason.deployment, detail: hide(reason.detail) })
    case "InvalidRequest": {
      const { detail, path } = reason
      return new InferenceError.InvalidRequest({ detail: hide(detail), ...(path === undefined ? {} : { path }) })
    }
    default:
      return reason
  }
}

/** Whether another key may fare better. */
const isOfKey = ({ _tag }: InferenceError.Reason): boolean => _tag === "RateLimited" || _tag === "AuthenticationFailed"

export const make = (options: Options): Upstream => {
  const { baseUrl, dialect, ring, target } = options
  const limits = Watch.limitsOf(target.options)
  const client = HttpClient.withScope(options.client)
  const watches = new Set<Watch.Watch>()
  const own = Object.entries(target.options.headers ?? {})

  const requestOf = (call: Call, wanted: Wanted, { key }: Held) =>
    HttpClientRequest.post(`${baseUrl}${call.path}`, {
      headers: {
        accept: mediaTypes[wanted][0],
        "accept-encoding": "identity",
        "user-agent": "troupe",
        ...call.headers,
        ...(key === undefined ? {} : dialect.authorize(Redacted.value(key))),
        ...Object.fromEntries(own.map(([name, value]) => [name.toLowerCase(), Redacted.value(value)]))
      }
    }).pipe(HttpClientRequest.bodyText(JSON.stringify(call.body), "application/json"))

  const refusalOf = Effect.fnUntraced(function*(response: HttpClientResponse.HttpClientResponse) {
    const body = yield* readRefusal(response)
    const now = yield* Clock.currentTimeMillis
    return dialect.failure({ status: response.status, headers: response.headers, body, now }, target)
  })

  /** One try: a success's response, or why there is none. */
  const attempt = Effect.fnUntraced(
    function*(call: Call, wanted: Wanted, held: Held, watch: Watch.Watch, life: Scope.Scope) {
      const scope = yield* Scope.fork(life)
      const response = yield* client.execute(requestOf(call, wanted, held)).pipe(
        Scope.provide(scope),
        Effect.mapError((error) => InferenceError.make(watch.reason() ?? broken(target, limits, error, false)))
      )
      watch.headers()
      const isSuccess = response.status >= 200 && response.status < 300
      const reason = isSuccess ? wrongHeaders(target, response, wanted) : yield* refusalOf(response)
      yield* ring.note(held.index, isSuccess ? undefined : reason)
      if (reason === undefined) return Result.succeed(response)
      yield* Scope.close(scope, Exit.void)
      return Result.fail(withoutKeys(reason, ring))
    }
  )

  /** Tries keys until one is taken, or there is none left. */
  const exchange = Effect.fnUntraced(function*(call: Call, wanted: Wanted, watch: Watch.Watch, life: Scope.Scope) {
    const tried = new Set<number>()
    let held = yield* ring.take(target.deployment, tried)
    for (;;) {
      const answer = yield* attempt(call, wanted, held, watch, life)
      if (Result.isSuccess(answer)) return answer.success
      tried.add(held.index)
      const error = InferenceError.make(answer.failure)
      if (!isOfKey(answer.failure)) return yield* error
      held = yield* Effect.mapError(ring.take(target.deployment, tried), () => error)
    }
  })

  const open: Upstream["open"] = Effect.fnUntraced(function*(call, wanted) {
    const life = yield* Scope.fork(yield* Effect.scope)
    const watch = yield* Watch.make(target.deployment, limits, wanted !== "json", Scope.close(life, Exit.void))
    yield* Effect.acquireRelease(
      Effect.sync(() => watches.add(watch)),
      () => Effect.sync(() => watches.delete(watch))
    )
    const response = yield* exchange(call, wanted, watch, life)
    return { watch, bytes: watched({ ...options, limits }, response, watch) }
  })

  const read: Upstream["read"] = Effect.fnUntraced(function*(call) {
    const { bytes } = yield* open(call, "json")
    const pieces = yield* Stream.runCollect(bytes)
    const body = parse(new TextDecoder().decode(Buffer.concat(pieces)))
    return body === undefined ? yield* InferenceError.make(malformed(target, "no JSON")) : body
  })

  return {
    open,
    read,
    clean: (reason) => withoutKeys(reason, ring),
    stop: (reason) => Effect.forEach([...watches], (watch) => watch.end(reason), { discard: true })
  }
}
