/**
 * Exchanges with a provider: a call goes out with a key, and a body comes back, within bounds.
 *
 * **Details**
 *
 * The scope's end closes the connection unless the body was read to its end. A key that is limited or refused is
 * exchanged for another, within the same request, as long as there is one.
 */
import { Clock, Effect, Exit, Redacted, Result, Scope, Stream } from "effect"
import type { HttpClientResponse } from "effect/http"
import { HttpClient, HttpClientRequest } from "effect/http"
import { isUtf8 } from "node:buffer"
import * as InferenceError from "../../services/InferenceError.ts"
import type { Body, Wanted } from "./Body.ts"
import { broken, mediaTypes, readRefusal, watched, wrongHeaders } from "./Body.ts"
import type { Call, Dialect, Target } from "./Dialect.ts"
import type { Held, KeyRing } from "./KeyRing.ts"
import { malformed, parse } from "./Refusals.ts"
import * as Watch from "./Watch.ts"

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

/** Whether another key may fare better. */
const isOfKey = ({ _tag }: InferenceError.Reason): boolean => _tag === "RateLimited" || _tag === "AuthenticationFailed"

/** Writes requests. */
const makeWriter = ({ baseUrl, dialect, target }: Options) => {
  const own = Object.entries(target.options.headers ?? {})
  return (call: Call, wanted: Wanted, { key }: Held) =>
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
}

/** An exchange that has begun: its end closes every connection of it. */
interface Begun {
  readonly call: Call
  readonly wanted: Wanted
  readonly watch: Watch.Watch
  readonly life: Scope.Scope
}

const makeExchange = (options: Options, limits: Watch.Limits) => {
  const { dialect, ring, target } = options
  const client = HttpClient.withScope(options.client)
  const requestOf = makeWriter(options)

  const refusalOf = Effect.fnUntraced(function*(response: HttpClientResponse.HttpClientResponse) {
    const body = yield* readRefusal(response)
    const now = yield* Clock.currentTimeMillis
    return dialect.failure({ status: response.status, headers: response.headers, body, now }, target)
  })

  /** One try: a success's response, or why there is none. */
  const attempt = Effect.fnUntraced(function*({ call, life, wanted, watch }: Begun, held: Held) {
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
    return Result.fail(ring.clean(reason))
  })

  /** Tries keys until one is taken, or there is none left. */
  return Effect.fnUntraced(function*(begun: Begun) {
    const tried = new Set<number>()
    let held = yield* ring.take(target.deployment, tried)
    for (;;) {
      const answer = yield* attempt(begun, held)
      if (Result.isSuccess(answer)) return answer.success
      tried.add(held.index)
      const error = InferenceError.make(answer.failure)
      if (!isOfKey(answer.failure)) return yield* error
      held = yield* Effect.mapError(ring.take(target.deployment, tried), () => error)
    }
  })
}

export const make = (options: Options): Upstream => {
  const { ring, target } = options
  const limits = Watch.limitsOf(target.options)
  const exchange = makeExchange(options, limits)
  const watches = new Set<Watch.Watch>()

  const open: Upstream["open"] = Effect.fnUntraced(function*(call, wanted) {
    const life = yield* Scope.fork(yield* Effect.scope)
    const watch = yield* Watch.make(target.deployment, limits, wanted !== "json", Scope.close(life, Exit.void))
    yield* Effect.acquireRelease(
      Effect.sync(() => watches.add(watch)),
      () => Effect.sync(() => watches.delete(watch))
    )
    const response = yield* exchange({ call, wanted, watch, life })
    return { watch, bytes: watched(target, limits, response, watch) }
  })

  const read: Upstream["read"] = Effect.fnUntraced(function*(call) {
    const { bytes: stream } = yield* open(call, "json")
    const bytes = Buffer.concat(yield* Stream.runCollect(stream))
    if (!isUtf8(bytes)) return yield* InferenceError.make(malformed(target, "not UTF-8"))
    const body = parse(new TextDecoder().decode(bytes))
    return body === undefined ? yield* InferenceError.make(malformed(target, "no JSON")) : body
  })

  return {
    open,
    read,
    clean: ring.clean,
    stop: (reason) => Effect.forEach([...watches], (watch) => watch.end(reason), { discard: true })
  }
}
