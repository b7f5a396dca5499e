/**
 * One HTTP exchange on a dispatcher's connection: sends a request, and buffers the response until it is read, within time and
 * size limits.
 *
 * **Details**
 *
 * Pieces that arrive together are read together. The socket is paused while `maxBuffered` bytes or more are buffered.
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
import type { Pull } from "effect"
import { Cause, Clock, Duration, Effect, Scope } from "effect"
import type { Target } from "../../dialects/shared/ProviderDialect.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { RemoteDeployment } from "../../domain/Deployment.ts"
import { orOff } from "../../domain/Fields.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import * as Time from "../../domain/Time.ts"
import { broken, tooLarge } from "./NetworkErrors.ts"

/** Bytes that may be buffered. */
const maxBuffered = 64 * 2 ** 10

/** Status and headers of a response. */
export interface Head {
  readonly status: number
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string | undefined>>
}

export interface Connection {
  /** Waits for status and headers; fails with the network's error. */
  readonly head: Effect.Effect<Head, Error>
  /** The bytes of the body since the last read; waits if there are none. */
  readonly pull: Pull.Pull<Uint8Array, Error>
  /** Whether the response is complete, read or not. */
  readonly isOver: () => boolean
  readonly close: () => void
}

/** A POST request. */
export interface Request {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

type Headers = Parameters<NonNullable<Undici.Dispatcher.DispatchHandler["onResponseStart"]>>[2]

const textsOf = (headers: Headers): Head["headers"] => {
  const texts: Record<string, string | undefined> = {}
  for (const name in headers) {
    const value = headers[name]
    texts[name] = Array.isArray(value) ? value.join(", ") : value
  }
  return texts
}

const closed = new Error("The exchange was closed")

/** The bytes that are received and not read. */
interface Inbox {
  controller: Undici.Dispatcher.DispatchController | undefined
  head: Head | undefined
  pieces: Array<Uint8Array>
  bytes: number
  end: Pull.Pull<never, Error> | undefined
  /** Resumes the pending read. */
  waiting: (() => void) | undefined
}

const wake = (inbox: Inbox): void => {
  if (inbox.waiting === undefined) return
  // Deferred, so that all data of one read of the socket is read together.
  queueMicrotask(inbox.waiting)
  inbox.waiting = undefined
}

const finish = (inbox: Inbox, end: Pull.Pull<never, Error>): void => {
  inbox.end ??= end
  wake(inbox)
}

const handlerOf = (inbox: Inbox): Undici.Dispatcher.DispatchHandler => ({
  onRequestStart: (controller) => {
    inbox.controller = controller
    if (inbox.end !== undefined) controller.abort(closed)
  },
  onResponseStart: (_, status, headers) => {
    // Informational responses precede the final one.
    if (status < 200) return
    inbox.head = { status, headers: textsOf(headers) }
    wake(inbox)
  },
  onResponseData: (controller, piece) => {
    inbox.pieces.push(piece)
    inbox.bytes += piece.length
    if (inbox.bytes >= maxBuffered) controller.pause()
    wake(inbox)
  },
  onResponseEnd: () => finish(inbox, Cause.done()),
  onResponseError: (_, error) => finish(inbox, Effect.fail(error))
})

const take = (inbox: Inbox): Uint8Array | undefined => {
  const { pieces } = inbox
  if (pieces.length === 0) return undefined
  inbox.pieces = []
  inbox.bytes = 0
  inbox.controller?.resume()
  return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces)
}

/** Runs `next` when more is received. */
const after = <A, E>(inbox: Inbox, next: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.callback((resume) => {
    inbox.waiting = () => resume(next)
  })

/** Sends a request. */
export const open = (dispatcher: Undici.Dispatcher, { body, headers, url }: Request): Connection => {
  const inbox: Inbox = {
    controller: undefined,
    head: undefined,
    pieces: [],
    bytes: 0,
    end: undefined,
    waiting: undefined
  }
  const head: Connection["head"] = Effect.suspend(() => {
    if (inbox.head !== undefined) return Effect.succeed(inbox.head)
    return inbox.end === undefined
      ? after(inbox, head)
      : Effect.catchIf(inbox.end, Cause.isDone, () => Effect.fail(closed))
  })
  const pull: Connection["pull"] = Effect.suspend(() => {
    const bytes = take(inbox)
    return bytes === undefined ? inbox.end ?? after(inbox, pull) : Effect.succeed(bytes)
  })
  try {
    const { origin, pathname, search } = new URL(url)
    const timeouts = { headersTimeout: 0, bodyTimeout: 0 }
    const request = { ...timeouts, origin, path: pathname + search, method: "POST", headers, body }
    dispatcher.dispatch(request, handlerOf(inbox))
  } catch (error) {
    finish(inbox, Effect.fail(error as Error))
  }
  return {
    head,
    pull,
    isOver: () => inbox.end !== undefined,
    close: () => {
      if (inbox.end !== undefined) return
      finish(inbox, Effect.fail(closed))
      inbox.controller?.abort(closed)
    }
  }
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
   * Watches an exchange until the end of the scope.
   *
   * @param streamed whether the answer is streamed; then the limit of the first piece applies
   * @param close ends the exchange; also called at the end of the scope
   */
  readonly watch: (streamed: boolean, close: () => void) => Effect.Effect<ExchangeTimeout, never, Scope.Scope>
  /** Ends every exchange for this reason. */
  readonly stop: (reason: InferenceError.Reason) => void
}

interface Watched extends ExchangeTimeout {
  readonly end: (reason: InferenceError.Reason) => void
  /** Ends the exchange if it exceeds a limit at `time`; returns the ms until the next check, at most. */
  readonly look: (time: number) => number
  /** Its index among all exchanges. */
  position: number
}

const makeWatched = (
  deployment: string,
  limits: Limits,
  streamed: boolean,
  now: () => number,
  close: () => void
): Watched => {
  const start = now()
  const total = start + limits.total
  let phase: Phase = streamed ? "first_byte" : "total"
  let since: number | undefined
  let ended: InferenceError.Reason | undefined

  const end = (reason: InferenceError.Reason) => {
    if (ended !== undefined) return
    ended = reason
    close()
  }
  /** The time at which the phase exceeds its limit. Without a waiting reader there is no stall. */
  const due = (): number =>
    phase === "stall" ? (since ?? Number.POSITIVE_INFINITY) + limits.stall : start + limits[phase]

  return {
    position: 0,
    headers: () => {
      if (phase === "first_byte") phase = "first_token"
    },
    content: () => {
      phase = "stall"
    },
    wait: () => {
      since = now()
    },
    took: () => {
      since = undefined
      // An answer that is not streamed has begun.
      if (phase === "total") phase = "stall"
    },
    reason: () => ended,
    end,
    look: (time) => {
      if (ended !== undefined) return Number.POSITIVE_INFINITY
      const late: Phase | undefined = time >= due() ? phase : time >= total ? "total" : undefined
      if (late !== undefined) {
        end(new InferenceError.UpstreamTimeout({ deployment, phase: late, afterMs: limits[late] }))
      }
      return Math.max(1, Math.min(due(), total) - time)
    }
  }
}

/** The time limits of a deployment, watched until the end of the scope. */
export const makeTimeouts = Effect.fnUntraced(function*(
  deployment: string,
  limits: Limits
): Effect.fn.Return<ExchangeTimeouts, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const clock = yield* Clock.Clock
  const now = () => Time.nowOf(clock)
  // Not a `Set`: its old tables keep ended exchanges alive for the garbage collector.
  const all: Array<Watched> = []
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
    for (const watched of all) pause = Math.min(pause, watched.look(time))
    return Effect.flatMap(Effect.sleep(pause), () => loop)
  })

  /** Starts the loop if it is not running. */
  const wake = Effect.suspend(() => {
    if (isAwake) return Effect.void
    isAwake = true
    return Effect.forkIn(loop, scope)
  })

  return {
    watch: (streamed, close) =>
      Effect.uninterruptible(Effect.flatMap(Effect.scope, (own) => {
        const watched = makeWatched(deployment, limits, streamed, now, close)
        const over = Effect.sync(() => {
          const last = all.pop()!
          if (last !== watched) {
            all[watched.position] = last
            last.position = watched.position
          }
          close()
        })
        watched.position = all.length
        all.push(watched)
        // Not `Effect.acquireRelease`, which copies the whole context for a release that needs none of it.
        return Effect.as(Effect.andThen(Scope.addFinalizer(own, over), wake), watched)
      })),
    stop: (reason) => {
      for (const watched of all) watched.end(reason)
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
