/**
 * One HTTP exchange on a dispatcher's connection: sends a request, and buffers the response until it is read.
 *
 * **Details**
 *
 * Pieces that arrive together are read together. The socket is paused when `most` bytes or more are buffered.
 *
 * **Gotchas**
 *
 * The opener of an exchange must close it. Closing fails pending reads, and closes the connection unless the response is
 * complete.
 */
import type * as Undici from "@effect/platform-node/Undici"
import type { Pull } from "effect"
import { Cause, Effect } from "effect"

/** Bytes that may be buffered. */
const most = 64 * 2 ** 10

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

/** What is received and not read yet. */
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
  // Deferred, so that everything from one read of the socket is taken at once.
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
    // Informational responses come first.
    if (status < 200) return
    inbox.head = { status, headers: textsOf(headers) }
    wake(inbox)
  },
  onResponseData: (controller, piece) => {
    inbox.pieces.push(piece)
    inbox.bytes += piece.length
    if (inbox.bytes >= most) controller.pause()
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
