/**
 * Which provider and host made the signed and encrypted reasoning that callers got in a provider's own form, so that a later
 * request with the caller's own body sends it to no other.
 *
 * **Details**
 *
 * Each process remembers what passed through it. After a restart, and for what another process has passed on, the maker is not
 * known: the reasoning goes to the deployment that the router chooses, and is left out where that rejects it.
 *
 * The router does not prefer the maker: a conversation goes on without earlier thoughts, and a preference would move load and
 * price from the strategy that the configuration names. the strategy `session` keeps a conversation at one deployment.
 *
 * **Gotchas**
 *
 * An entry is a hash and a short name, about 100 bytes, however long the signature is. A collision loses or keeps the thoughts of
 * one answer, nothing else.
 */
import { LRUCache } from "lru-cache"
import type { DeploymentOptions } from "../../domain/Deployment.ts"
import { hashText } from "../../domain/Hashing.ts"
import { makerOf } from "../../domain/SignedReasoning.ts"

/** The least recently used are forgotten: about 1 MB. */
const mostKnown = 10_000

/** Bits that, beside a hash of 32 bits, fit into a double. */
const moreBits = 21

/** A hash of 53 bits. */
const keyOf = (mark: string): number =>
  hashText(mark) * 2 ** moreBits + (hashText(mark, mark.length >> 1) >>> (32 - moreBits))

export class ReasoningMakers {
  /** Allocated for the first signature: most services pass none on. */
  #known: LRUCache<number, string> | undefined

  /** Notes that a deployment made these signatures or encrypted texts. */
  note(marks: ReadonlyArray<string>, options: DeploymentOptions): void {
    this.#known ??= new LRUCache({ max: mostKnown })
    const maker = makerOf(options)
    for (const mark of marks) this.#known.set(keyOf(mark), maker)
  }

  /** Undefined: not known. */
  makerIn(mark: string): string | undefined {
    return this.#known?.get(keyOf(mark))
  }
}
