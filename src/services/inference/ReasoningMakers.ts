/**
 * Which provider and host made the signed and encrypted reasoning that callers got in a provider's own form, so that a later
 * request with the caller's own body sends it to no other.
 *
 * **Details**
 *
 * Each process remembers what passed through it. Where there is a store (`SharedMakers`), it is written there beside the answer,
 * and a request with a signature that the process does not know asks the store once, before its first attempt. So a restart
 * and another process know it, too. A request without such a signature never waits.
 *
 * Where no maker is found, the reasoning goes to the deployment that the router chooses, and is left out where that rejects it.
 *
 * The router does not prefer the maker: a conversation goes on without earlier thoughts, and a preference would move load and
 * price from the strategy that the configuration names. The strategy `session` keeps a conversation at one deployment.
 *
 * **Gotchas**
 *
 * An entry is a hash and a short name, about 100 bytes, however long the signature is. A collision loses or keeps the thoughts of
 * one answer, nothing else.
 */
import { Cause, Context, Effect, Fiber, Option } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { SqlError } from "effect/sql/SqlError"
import { LRUCache } from "lru-cache"
import * as Defaults from "../../domain/Defaults.ts"
import type { DeploymentOptions } from "../../domain/Deployment.ts"
import { hashText } from "../../domain/Hashing.ts"
import { makerOf, unknownMarks } from "../../domain/SignedReasoning.ts"
import type { Source } from "../../domain/Source.ts"
import * as Time from "../../domain/Time.ts"
import { summaryOf } from "../persistence/StorageError.ts"

/** The hash of a signature, and its maker as `SignedReasoning.makerOf`. */
export type Made = readonly [key: number, maker: string]

/** A memory that outlives the process. */
export interface Shared {
  /** Returns at once: what is added is written in groups. */
  readonly add: (made: Made) => void
  /** Those of the keys that are known. */
  readonly find: (keys: ReadonlyArray<number>) => Effect.Effect<ReadonlyArray<Made>, RedisError | SqlError>
}

/** The store of the settings; undefined: each process remembers its own. */
export const SharedMakers = Context.Reference<Shared | undefined>("troupe/services/inference/SharedMakers", {
  defaultValue: () => undefined
})

/** Bits that, beside a hash of 32 bits, fit into a double. */
const moreBits = 21

/** A hash of 53 bits. */
const keyOf = (mark: string): number =>
  hashText(mark) * 2 ** moreBits + (hashText(mark, mark.length >> 1) >>> (32 - moreBits))

export class ReasoningMakers {
  /** Allocated for the first signature: most services pass none on. */
  #known: LRUCache<number, string> | undefined
  readonly #shared: Shared | undefined
  /** No request asks before, monotonic ms; undefined while the store answers. */
  #asksAt: number | undefined

  constructor(shared?: Shared) {
    this.#shared = shared
  }

  /** Notes that a deployment made these signatures or encrypted texts. */
  note(marks: ReadonlyArray<string>, options: DeploymentOptions): void {
    const maker = makerOf(options)
    for (const mark of marks) {
      const key = keyOf(mark)
      if (this.#known?.get(key) === maker) continue
      this.#remember([key, maker])
      this.#shared?.add([key, maker])
    }
  }

  /** Undefined: not known. */
  makerIn(mark: string): string | undefined {
    return this.#known?.get(keyOf(mark))
  }

  /**
   * Asks the store for the makers that the process does not know, so that `makerIn` does; undefined: there is nothing to ask.
   *
   * @returns whether the store has answered
   */
  recall({ source }: { readonly source?: Source | undefined }): Effect.Effect<boolean> | undefined {
    const shared = this.#shared
    if (shared === undefined || source?.unknownFields === undefined) return undefined
    const unknown = unknownMarks(source, (mark) => this.makerIn(mark))
    if (unknown.length === 0) return undefined
    return this.#ask(shared, unknown.slice(-Defaults.reasoningMakers.asked).map(keyOf))
  }

  #remember([key, maker]: Made): void {
    this.#known ??= new LRUCache({ max: Defaults.reasoningMakers.known })
    this.#known.set(key, maker)
  }

  #ask(shared: Shared, keys: ReadonlyArray<number>): Effect.Effect<boolean> {
    return Effect.gen({ self: this }, function*() {
      if (this.#asksAt !== undefined && (yield* Time.now) < this.#asksAt) return false
      const { timeoutMs } = Defaults.reasoningMakers
      // A database may take seconds to cancel a query: the request does not wait for that.
      const asked = Fiber.join(yield* Effect.forkDetach(shared.find(keys)))
      return yield* Effect.matchCauseEffect(Effect.timeoutOption(asked, timeoutMs), {
        onSuccess: Option.match({
          onNone: () => this.#failed(`no answer within ${timeoutMs} ms`),
          onSome: (found) => this.#found(found)
        }),
        onFailure: (cause) => {
          if (Cause.hasInterrupts(cause)) return Effect.interrupt
          const error = Cause.findErrorOption(cause)
          return this.#failed(Option.isSome(error) ? summaryOf(error.value) : "a defect")
        }
      })
    })
  }

  #found(found: ReadonlyArray<Made>): Effect.Effect<boolean> {
    for (const made of found) this.#remember(made)
    if (this.#asksAt === undefined) return Effect.succeed(true)
    this.#asksAt = undefined
    return Effect.as(Effect.logInfo("The makers of signed reasoning are read again."), true)
  }

  /** The first failure is logged. */
  readonly #failed = Effect.fnUntraced(
    { self: this },
    function*(this: ReasoningMakers, why: string) {
      const isFirst = this.#asksAt === undefined
      this.#asksAt = (yield* Time.now) + Defaults.reasoningMakers.pauseMs
      if (isFirst) {
        yield* Effect.logWarning(
          `The makers of signed reasoning cannot be read: ${why}. Requests go on with those that this process knows.`
        )
      }
      return false
    }
  )
}
