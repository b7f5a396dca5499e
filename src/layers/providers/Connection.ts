/**
 * One HTTP exchange on a dispatcher's connection: sends a request, and passes the response to a receiver, or buffers it until
 * it is read, within time and size limits.
 *
 * **Details**
 *
 * A receiver is called as the response arrives. Without one, or after `detach`, the response is buffered: pieces that arrive
 * together are read together, and the socket is paused while `maxBuffered` bytes or more are buffered.
 *
 * One fiber per deployment checks the time limits of all its exchanges. It does not interrupt the request's fiber: it closes
 * the exchange, so that the pending read fails, and `reason` then has the limit that was exceeded.
 *
 * **Gotchas**
 *
 * The opener of an exchange must close it. Closing fails pending reads, and closes the connection unless the response is
 * complete.
 */
import type * as Undici from "@effect/platform-node/Undici"
import type { Pull, Scope } from "effect"
import { Cause, Clock, Duration, Effect, Fiber } from "effect"
import type { Target } from "../../dialects/shared/ProviderDialect.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { RemoteDeployment } from "../../domain/Deployment.ts"
import { orOff } from "../../domain/Fields.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import * as Time from "../../domain/Time.ts"
import type { Meter } from "../../services/engines/Engine.ts"
import { broken, tooLarge } from "./NetworkErrors.ts"

/** Bytes that may be buffered. */
const maxBuffered = 64 * 2 ** 10

type Headers = Parameters<NonNullable<Undici.Dispatcher.DispatchHandler["onResponseStart"]>>[2]

/** Status and headers of a response. */
export interface Head {
  readonly status: number
  /** Names in lower case; a header that was sent several times is a list. */
  readonly headers: Headers
}

/** One header. */
export const headerOf = ({ headers }: Head, name: string): string | undefined => {
  const value = headers[name]
  return typeof value === "object" ? value.join(", ") : value
}

/** All headers. */
export const headersOf = (head: Head): Readonly<Record<string, string | undefined>> => {
  const texts: Record<string, string | undefined> = {}
  for (const name in head.headers) texts[name] = headerOf(head, name)
  return texts
}

/**
 * Receives a response as it arrives: `head`, any number of `data`, then `end` or `error`; `error` may come at any time. The
 * dispatcher calls `head` and `data` while it parses: what they throw would break the connection.
 */
export interface Receiver {
  readonly head: (head: Head) => void
  readonly data: (piece: Uint8Array) => void
  readonly end: () => void
  readonly error: (error: Error) => void
}

export interface Connection {
  /** Waits for status and headers; fails with the network's error. */
  readonly head: Effect.Effect<Head, Error>
  /** The bytes of the body since the last read; waits if there are none. */
  readonly pull: Pull.Pull<Uint8Array, Error>
  /** Whether the response is complete, read or not. */
  readonly isOver: () => boolean
  /**
   * The receiver is not called any more; the rest of the response is read with `pull`.
   *
   * @param unread what the receiver was given and `pull` reads first
   */
  readonly detach: (unread?: ReadonlyArray<Uint8Array>) => void
  /** Stops reading from the socket until `resume`. */
  readonly pause: () => void
  readonly resume: () => void
  readonly close: () => void
}

/** A POST request. */
export interface Request {
  readonly origin: string
  /** With the query. */
  readonly path: string
  /** Names and values in turn. */
  readonly headers: ReadonlyArray<string>
  readonly body: string
}

const closed = new Error("The exchange was closed")

type Handler = Undici.Dispatcher.DispatchHandler
type Controller = Undici.Dispatcher.DispatchController

/** A request that is sent, and its response: the dispatcher calls the methods of a handler. */
class Exchange implements Connection, Handler {
  /** Undefined: the response is buffered. */
  #receiver: Receiver | undefined
  readonly #meter: Pick<Meter, "isSent"> | undefined
  #controller: Controller | undefined
  #head: Head | undefined
  /** The bytes that are received and not read. */
  #pieces: Array<Uint8Array> = []
  #bytes = 0
  #end: Pull.Pull<never, Error> | undefined
  #isPaused = false
  /** Resumes the pending read. */
  #waiting: (() => void) | undefined

  constructor(receiver: Receiver | undefined, meter: Pick<Meter, "isSent"> | undefined) {
    this.#receiver = receiver
    this.#meter = meter
  }

  send(dispatcher: Undici.Dispatcher, { body, headers, origin, path }: Request): void {
    try {
      dispatcher.dispatch(
        { origin, path, method: "POST", headers: headers as Array<string>, body, headersTimeout: 0, bodyTimeout: 0 },
        this
      )
    } catch (error) {
      this.#finish(error as Error)
    }
  }

  onRequestStart(controller: Controller): void {
    this.#controller = controller
    if (this.#end !== undefined) controller.abort(closed)
    else if (this.#meter !== undefined) this.#meter.isSent = true
  }

  onResponseStart(_: Controller, status: number, headers: Headers): void {
    // Informational responses precede the final one.
    if (status < 200) return
    this.#head = { status, headers }
    if (this.#receiver === undefined) this.#wake()
    else this.#receiver.head(this.#head)
  }

  onResponseData(_: Controller, piece: Uint8Array): void {
    if (this.#receiver !== undefined) return this.#receiver.data(piece)
    this.#add(piece)
    if (this.#bytes >= maxBuffered) this.pause()
    this.#wake()
  }

  #add(piece: Uint8Array): void {
    this.#pieces.push(piece)
    this.#bytes += piece.length
  }

  onResponseEnd(): void {
    this.#finish(undefined)
  }

  onResponseError(_: Controller, error: Error): void {
    this.#finish(error)
  }

  get head(): Effect.Effect<Head, Error> {
    const head: Effect.Effect<Head, Error> = Effect.suspend(() => {
      if (this.#head !== undefined) return Effect.succeed(this.#head)
      return this.#end === undefined
        ? this.#after(head)
        : Effect.catchIf(this.#end, Cause.isDone, () => Effect.fail(closed))
    })
    return head
  }

  get pull(): Pull.Pull<Uint8Array, Error> {
    const pull: Pull.Pull<Uint8Array, Error> = Effect.suspend(() => {
      const bytes = this.#take()
      return bytes === undefined ? this.#end ?? this.#after(pull) : Effect.succeed(bytes)
    })
    return pull
  }

  isOver(): boolean {
    return this.#end !== undefined
  }

  detach(unread: ReadonlyArray<Uint8Array> = []): void {
    this.#receiver = undefined
    for (const piece of unread) this.#add(piece)
    // The receiver may have paused it.
    this.resume()
  }

  pause(): void {
    this.#isPaused = true
    this.#running?.pause()
  }

  /** Deferred: a receiver may call it while the dispatcher parses another response, when it can resume none. */
  resume(): void {
    if (!this.#isPaused) return
    this.#isPaused = false
    queueMicrotask(() => {
      if (!this.#isPaused) this.#running?.resume()
    })
  }

  close(): void {
    if (this.#end !== undefined) return
    this.#finish(closed)
    this.#controller?.abort(closed)
  }

  /** A controller that is over may hold a connection of another exchange. */
  get #running(): Controller | undefined {
    return this.#end === undefined ? this.#controller : undefined
  }

  /** @param error undefined: the response is complete */
  #finish(error: Error | undefined): void {
    if (this.#end !== undefined) return
    this.#end = error === undefined ? Cause.done() : Effect.fail(error)
    if (this.#receiver === undefined) this.#wake()
    else queueMicrotask(() => this.#passEnd(error))
  }

  /** Deferred: the dispatcher is not parsing, and `open` has returned. */
  #passEnd(error: Error | undefined): void {
    const receiver = this.#receiver
    if (receiver === undefined) this.#wake()
    else if (error === undefined) receiver.end()
    else receiver.error(error)
  }

  #take(): Uint8Array | undefined {
    const pieces = this.#pieces
    if (pieces.length === 0) return undefined
    this.#pieces = []
    this.#bytes = 0
    this.resume()
    return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces)
  }

  #wake(): void {
    if (this.#waiting === undefined) return
    // Deferred, so that all data of one read of the socket is read together.
    queueMicrotask(this.#waiting)
    this.#waiting = undefined
  }

  /** Runs `next` when more is received. */
  #after<A, E>(next: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.callback((resume) => {
      this.#waiting = () => resume(next)
    })
  }
}

/**
 * Sends a request.
 *
 * @param receiver called after `open` has returned
 * @param meter its `isSent` is set when the request is written to a connection
 */
export const open = (
  dispatcher: Undici.Dispatcher,
  request: Request,
  receiver?: Receiver,
  meter?: Pick<Meter, "isSent">
): Connection => {
  const exchange = new Exchange(receiver, meter)
  exchange.send(dispatcher, request)
  return exchange
}

type Phase = Exclude<InferenceError.UpstreamTimeout["phase"], "queue" | "load">

/** ms each. */
export type Limits = Readonly<Record<Phase, number>>

export const limitsOf = ({ timeouts = {} }: RemoteDeployment): Limits => {
  const { upstream } = Defaults
  return {
    connect: Duration.toMillis(orOff(timeouts.connect, upstream.connect, Duration.infinity)),
    first_byte: Duration.toMillis(orOff(timeouts.firstByte, upstream.firstByte, Duration.infinity)),
    first_token: Duration.toMillis(orOff(timeouts.firstToken, upstream.firstToken, Duration.infinity)),
    stall: Duration.toMillis(orOff(timeouts.stall, upstream.stall, Duration.infinity)),
    total: Duration.toMillis(orOff(timeouts.total, upstream.total, Duration.infinity))
  }
}

/** The time limits of one exchange. */
export interface ExchangeTimeout {
  /** The headers have arrived. */
  readonly headers: () => void
  /** The first content or reasoning has arrived. */
  readonly content: () => void
  /** A reader waits for the next piece of the body. */
  readonly wait: () => void
  /** The piece has arrived. */
  readonly took: () => void
  /** The limit that ended the exchange; undefined if none did. */
  readonly reason: () => InferenceError.Reason | undefined
}

/** The time limits of a deployment's exchanges. */
export interface ExchangeTimeouts {
  /**
   * Watches an exchange until `remove`.
   *
   * @param streamed whether the answer is streamed; then the limit of the first piece applies
   * @param close ends the exchange
   */
  readonly add: (streamed: boolean, close: () => void) => WatchedExchange
  /** Ends every exchange for this reason. */
  readonly stop: (reason: InferenceError.Reason) => void
}

export interface WatchedExchange extends ExchangeTimeout {
  /** Ends the watch. */
  readonly remove: () => void
}

/** What the exchanges of a deployment share. */
interface Watcher {
  readonly deployment: string
  readonly limits: Limits
  readonly now: () => number
  /** Not a `Set`: its old tables keep ended exchanges alive for the garbage collector. */
  readonly all: Array<Watched>
}

class Watched implements WatchedExchange {
  readonly #watcher: Watcher
  readonly #close: () => void
  readonly #start: number
  #phase: Phase
  /** Since when a reader waits. */
  #since: number | undefined
  #ended: InferenceError.Reason | undefined
  #position: number

  constructor(watcher: Watcher, streamed: boolean, close: () => void) {
    this.#watcher = watcher
    this.#close = close
    this.#start = watcher.now()
    this.#phase = streamed ? "first_byte" : "total"
    this.#position = watcher.all.length
    watcher.all.push(this)
  }

  remove(): void {
    const { all } = this.#watcher
    if (all[this.#position] !== this) return
    const last = all.pop()!
    if (last === this) return
    all[this.#position] = last
    last.#position = this.#position
  }

  headers(): void {
    if (this.#phase === "first_byte") this.#phase = "first_token"
  }

  content(): void {
    this.#phase = "stall"
  }

  wait(): void {
    this.#since = this.#watcher.now()
  }

  took(): void {
    this.#since = undefined
    // An answer that is not streamed has begun.
    if (this.#phase === "total") this.#phase = "stall"
  }

  reason(): InferenceError.Reason | undefined {
    return this.#ended
  }

  end(reason: InferenceError.Reason): void {
    if (this.#ended !== undefined) return
    this.#ended = reason
    this.#close()
  }

  /** The time at which the phase exceeds its limit. Without a waiting reader there is no stall. */
  #due(): number {
    const { limits } = this.#watcher
    return this.#phase === "stall"
      ? (this.#since ?? Number.POSITIVE_INFINITY) + limits.stall
      : this.#start + limits[this.#phase]
  }

  /** Ends the exchange if it exceeds a limit at `time`; returns the ms until the next check, at most. */
  look(time: number): number {
    if (this.#ended !== undefined) return Number.POSITIVE_INFINITY
    const { deployment, limits } = this.#watcher
    const total = this.#start + limits.total
    const late: Phase | undefined = time >= this.#due() ? this.#phase : time >= total ? "total" : undefined
    if (late !== undefined) {
      this.end(new InferenceError.UpstreamTimeout({ deployment, phase: late, afterMs: limits[late] }))
    }
    return Math.max(1, Math.min(this.#due(), total) - time)
  }
}

/** The time limits of a deployment, watched until the end of the scope. */
export const makeTimeouts = Effect.fnUntraced(function*(
  deployment: string,
  limits: Limits
): Effect.fn.Return<ExchangeTimeouts, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const clock = yield* Clock.Clock
  const fork = Effect.runForkWith(yield* Effect.context())
  const now = () => Time.nowOf(clock)
  const all: Array<Watched> = []
  const watcher: Watcher = { deployment, limits, now, all }
  // The next check: no later phase and no new exchange can exceed its limit before.
  const step = Math.min(limits.first_byte, limits.first_token, limits.stall, limits.total)
  let isAwake = false

  const loop: Effect.Effect<void> = Effect.suspend(() => {
    if (all.length === 0) {
      isAwake = false
      return Effect.void
    }
    const time = now()
    let pause = step
    // From the last one: an exchange that ends is replaced by the last one.
    for (let index = all.length - 1; index >= 0; index--) {
      // The end of one may end others at once.
      const watched = all[index]
      if (watched !== undefined) pause = Math.min(pause, watched.look(time))
    }
    return Effect.flatMap(Effect.sleep(pause), () => loop)
  })

  return {
    add: (streamed, close) => {
      const watched = new Watched(watcher, streamed, close)
      if (!isAwake) {
        isAwake = true
        Fiber.runIn(fork(loop), scope)
      }
      return watched
    },
    stop: (reason) => {
      for (const watched of all.toReversed()) watched.end(reason)
    }
  }
})

/** The bytes of a body within the limits, with typed errors. */
export const pullWithin = (
  target: Target,
  limits: Limits,
  connection: Connection,
  watch: ExchangeTimeout
): Pull.Pull<Uint8Array, InferenceError.InferenceError> => {
  const most = target.options.maxResponseBytes ?? Defaults.maxResponseBytes
  let bytes = 0
  return Effect.suspend(() => {
    watch.wait()
    return Effect.matchEffect(connection.pull, {
      onSuccess: (piece) => {
        watch.took()
        bytes += piece.length
        return bytes > most ? Effect.fail(tooLarge(target, most)) : Effect.succeed(piece)
      },
      onFailure: (error): Pull.Pull<never, InferenceError.InferenceError> =>
        Cause.isDone(error)
          ? Cause.done()
          : Effect.fail(InferenceError.make(watch.reason() ?? broken(target, limits.connect, error, true)))
    })
  })
}
