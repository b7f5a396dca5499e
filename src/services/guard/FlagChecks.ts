/**
 * Checks the rules of mode `flag` beside the requests, so that no request waits for them.
 *
 * **Details**
 *
 * The check of 1,000 characters takes about 14 µs, as long as a third of a proxied request. Checks therefore wait for
 * `interval`, take the texts in slices between which other work runs, and are limited: while `mostQueued` requests or
 * `mostWaiting` characters wait, requests are not checked, and count as the event `unchecked`. Checks take at most about 1 %
 * of a core.
 */
import { Effect } from "effect"
import type { Rule } from "../../domain/GuardRule.ts"
import type { Message, Request } from "../../domain/Inference.ts"
import type { Chat } from "../inference/Chat.ts"
import type { InputPolicy } from "./InputPolicy.ts"
import type { Origin, SecurityEvents } from "./SecurityEvents.ts"
import type { Author } from "./TextWalk.ts"

/** Between two rounds of checks. */
const interval = "100 millis"

/** Characters that are checked in a round. */
const mostInRound = 65_536

/** Characters that wait for a check. */
const mostWaiting = 131_072

/** Requests that wait for a check. What waits outlives the request, and collections of garbage copy it. */
const mostQueued = 64

/** Characters that are checked at a time: about 0.2 ms. */
const slice = 16_384

/** What two slices have in common, so that a match at their border is found. */
const overlap = 512

/** A request that waits for its check. */
interface Waiting {
  readonly texts: ReadonlyArray<string>
  readonly authors: ReadonlyArray<Author>
  readonly origin: Origin
}

/** The texts of messages, without images; undefined for what a program without types gave, which validation refuses. */
const waitingOf = (messages: ReadonlyArray<Message>, origin: Origin): Waiting | undefined => {
  try {
    return textsOf(messages, origin)
  } catch {
    return undefined
  }
}

const textsOf = (messages: ReadonlyArray<Message>, origin: Origin): Waiting => {
  const texts: Array<string> = []
  const authors: Array<Author> = []
  for (const { content, role, toolCalls = [] } of messages) {
    const author = role === "user" || role === "tool" ? "caller" : "other"
    const add = (text: string) => {
      texts.push(text)
      authors.push(author)
    }
    if (typeof content === "string") add(content)
    else for (const part of content) if (part.type === "text") add(part.text)
    for (const call of toolCalls) add(call.arguments)
  }
  return { texts, authors, origin }
}

const lengthOf = ({ texts }: Waiting): number => texts.reduce((sum, text) => sum + text.length, 0)

/** A queue of checks. */
export class FlagChecks {
  readonly #policy: InputPolicy
  readonly #events: SecurityEvents
  readonly #start: (checks: Effect.Effect<void>) => void
  #queue: Array<Waiting> = []
  #waiting = 0
  #runs = false

  /** @param start runs the checks beside the requests */
  constructor(policy: InputPolicy, events: SecurityEvents, start: (checks: Effect.Effect<void>) => void) {
    this.#policy = policy
    this.#events = events
    this.#start = start
  }

  /** Chat completions whose requests are checked beside them. */
  beside(own: Chat): Chat {
    // A program without types may give no request.
    const noted = (request: Request | null | undefined): Request => {
      if (request) this.note(request.messages, { model: request.model, identity: request.identity })
      return request as Request
    }
    return {
      generate: (request) => own.generate(noted(request)),
      open: (request) => own.open(noted(request)),
      deliver: (request, sink) => own.deliver(noted(request), sink)
    }
  }

  /** Checks a request soon. One that is longer than the queue is checked if nothing else waits. */
  note(messages: ReadonlyArray<Message>, origin: Origin): void {
    if (this.#waiting >= mostWaiting || this.#queue.length >= mostQueued) {
      this.#events.record("unchecked", "flag", origin)
      return
    }
    const waiting = waitingOf(messages, origin)
    if (waiting === undefined) return
    this.#waiting += lengthOf(waiting)
    this.#queue.push(waiting)
    if (this.#runs) return
    this.#runs = true
    this.#start(this.#rounds())
  }

  #rounds(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      while (this.#queue.length > 0) {
        yield* Effect.sleep(interval)
        yield* this.#round()
      }
      this.#runs = false
    })
  }

  #round(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      for (let checked = 0; checked < mostInRound && this.#queue.length > 0;) {
        const waiting = this.#queue.shift()!
        const length = lengthOf(waiting)
        checked += length
        yield* this.#check(waiting)
        this.#waiting -= length
      }
    })
  }

  #check({ authors, origin, texts }: Waiting): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const found = new Set<Rule>()
      let turn = 0
      for (const [index, text] of texts.entries()) {
        for (let from = 0; from < text.length; from += slice - overlap) {
          const part = text.slice(from, from + slice)
          for (const rule of this.#policy.flaggedIn(part, authors[index]!)) found.add(rule)
          turn += part.length
          if (turn < slice) continue
          turn = 0
          yield* Effect.yieldNow
        }
      }
      for (const rule of found) this.#events.record(rule, "flag", origin)
    })
  }
}
