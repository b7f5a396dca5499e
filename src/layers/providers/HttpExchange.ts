/**
 * Requests to a provider: sends a call with a key, and returns the response's body, within limits.
 *
 * **Details**
 *
 * The end of the scope closes the connection unless the body was read completely. When a key is rate-limited or rejected,
 * the same request is retried with another key, if there is one.
 */
import type { Pull, Scope } from "effect"
import { Cause, Effect, Result } from "effect"
import type { Call } from "../../dialects/shared/ProviderDialect.ts"
import type { Capability } from "../../domain/Capability.ts"
import * as Defaults from "../../domain/Defaults.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { Meter } from "../../services/engines/Engine.ts"
import { decodeBody } from "./BufferedAnswer.ts"
import * as Connection from "./Connection.ts"
import type { Held } from "./DeploymentKeys.ts"
import type { Media, Options } from "./HttpMessage.ts"
import { isReadable, makeWriter } from "./HttpMessage.ts"
import type { Begun, Parts } from "./KeyAttempts.ts"
import { attempt, bodyOf, endWithScope, receive, tryKeys } from "./KeyAttempts.ts"
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
  /** What has arrived in one turn of the event loop; a body of JSON completely. */
  readonly data: (bytes: Uint8Array) => void
  readonly end: () => void
  readonly failed: (reason: InferenceError.Reason) => void
  /**
   * The response is a refusal, compressed or not of the wanted media type: the effect goes on with it, and with other keys.
   * Nothing else is called.
   */
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
   * @param capability as for `read`
   */
  readonly start: (
    call: Call,
    wanted: Media,
    hops: number,
    receiver: BodyReceiver,
    meter?: Meter,
    capability?: Capability
  ) => StartedExchange | undefined
  /**
   * Sends the call and waits for the headers of a success. The end of the scope ends the exchange.
   *
   * @param capability as for `read`
   */
  readonly open: (
    call: Call,
    wanted: Media,
    capability?: Capability,
    meter?: Meter
  ) => Effect.Effect<ResponseBody, InferenceError.InferenceError, Scope.Scope>
  /** Reads a body completely and decodes its JSON. */
  readonly finish: <A>(
    body: ResponseBody,
    decode: (body: unknown, text: string) => Result.Result<A, InferenceError.Reason>
  ) => Effect.Effect<A, InferenceError.InferenceError>
  /**
   * Sends the call and reads its response completely.
   *
   * @param capability the only purpose of the endpoint, if it has one
   */
  readonly read: <A>(
    call: Call,
    decode: (body: unknown, text: string) => Result.Result<A, InferenceError.Reason>,
    capability?: Capability,
    meter?: Meter
  ) => Effect.Effect<A, InferenceError.InferenceError, Scope.Scope>
  /** A reason without the keys. */
  readonly clean: (reason: InferenceError.Reason) => InferenceError.Reason
  /** Ends every exchange for this reason. */
  readonly stop: (reason: InferenceError.Reason) => Effect.Effect<void>
}

const noneTried: ReadonlySet<number> = new Set()

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
  /** Passes the pieces on; undefined for a body of JSON, which is passed on completely. */
  readonly #flush: (() => void) | undefined
  #hasHead = false
  #isPaused = false
  #isReleased = false

  constructor(parts: Parts, begun: Begun, held: Held, hops: number, receiver: BodyReceiver) {
    this.#parts = parts
    this.#begun = begun
    this.#held = held
    this.#receiver = receiver
    this.#flush = begun.wanted === "json" ? undefined : () => this.#pass()
    this.#connection = begun.connection = Connection.open(
      parts.dispatcher,
      parts.write(begun.call, begun.wanted, held, hops, begun.meter?.trace),
      this,
      begun.meter
    )
  }

  head(head: Connection.Head): void {
    const { wanted, watch } = this.#begun
    this.#hasHead = true
    if (!isReadable(head, wanted)) return this.#detach(head)
    watch.headers()
    watch.wait()
    this.#parts.keys.note(this.#held, undefined)
  }

  /** An effect goes on with the response. */
  #detach(head: Connection.Head): void {
    const sent = { connection: this.#connection, held: this.#held }
    this.#connection.detach()
    this.#later(() =>
      this.#receiver.rest(Effect.andThen(
        endWithScope(this.#begun),
        tryKeys(this.#parts, this.#begun, this.#held, receive(this.#parts, this.#begun, sent, head))
      ))
    )
  }

  /** When the dispatcher is not parsing, unless the exchange is closed before. */
  #later(run: () => void): void {
    queueMicrotask(() => {
      if (!this.#isReleased) run()
    })
  }

  data(piece: Uint8Array): void {
    const { most, target } = this.#parts
    this.#bytes += piece.length
    if (this.#bytes > most) {
      this.#connection.detach()
      this.#connection.close()
      return this.#later(() => this.#fail(tooLarge(target, most).reason))
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

/** Reads a body completely and decodes it. */
const makeFinish = ({ keys, target }: Options) =>
  Effect.fnUntraced(function*<A>(
    { note, pull }: ResponseBody,
    decode: (body: unknown, text: string) => Result.Result<A, InferenceError.Reason>
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

  const begin = (call: Call, wanted: Media, capability?: Capability, meter?: Meter): Begun => {
    const watch = timeouts.add(wanted !== "json", () => begun.connection?.close())
    const begun: Begun = { call, wanted, watch, capability, meter, connection: undefined }
    return begun
  }
  const openFor = (call: Call, wanted: Media, capability?: Capability, meter?: Meter) => {
    const entered = Effect.suspend(() => {
      const begun = begin(call, wanted, capability, meter)
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
    start: (call, wanted, hops, receiver, meter, capability) => {
      const taken = keys.take(target.deployment, noneTried)
      if (Result.isFailure(taken)) return undefined
      const held = taken.success
      const begun = begin(call, wanted, capability, meter)
      try {
        return new Started(parts, begun, held, hops, receiver)
      } catch (defect) {
        begun.watch.remove()
        if (held.probes) keys.release(held)
        throw defect
      }
    },
    open: openFor,
    finish,
    read: (call, decode, capability, meter) =>
      Effect.flatMap(openFor(call, "json", capability, meter), (body) => finish(body, decode)),
    clean: keys.clean,
    stop: (reason) => Effect.sync(() => timeouts.stop(reason))
  }
})
