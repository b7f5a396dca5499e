/**
 * Estimates which deployments have a prompt in their caches, from the prompts sent to each. Bounded: the entry that is least
 * recently used is removed first.
 *
 * **Details**
 *
 * A prompt is identified by the hashes of its prefixes, each a block of characters longer than the one before. A collision
 * of hashes costs a request its cached prefix and nothing else.
 */
import type { Model } from "../../domain/Deployment.ts"
import { combine, hashText } from "../../domain/Hashing.ts"

/** Characters of a block: some 64 tokens. */
const blockLength = 256

/** Characters of a prompt that count: about the first 16,000 tokens. */
const longestPrefix = 65_536

/** The tenant whose caches hold a prompt; undefined where a deployment of the model shares them among tenants. */
export const cacheOwnerOf = ({ deployments }: Model, tenant: string | undefined): string | undefined =>
  deployments.some(({ options }) => "sharePrefixes" in options && options.sharePrefixes) ? undefined : tenant

/**
 * The hashes of a prompt's beginnings up to `longestPrefix`, the shortest first; a last piece shorter than a block is left
 * out.
 *
 * @param tenant the owner of the caches, which engines keep separate for each tenant; default one for all
 */
export const beginnings = (prompt: string, tenant = ""): ReadonlyArray<number> => {
  const hashes: Array<number> = []
  const end = Math.min(prompt.length, longestPrefix)
  let hash = tenant === "" ? 0 : hashText(tenant)
  for (let from = 0; from + blockLength <= end; from += blockLength) {
    hash = combine(hash, hashText(prompt, from, from + blockLength))
    hashes.push(hash)
  }
  return hashes
}

/** Which deployment got which prompts. */
export class PrefixIndex {
  readonly #limit: number
  /** In the order of use, the oldest first. */
  readonly #holders = new Map<number, Set<string>>()

  /** @param limit beginnings to remember at most */
  constructor(limit = 100_000) {
    this.#limit = limit
  }

  get size(): number {
    return this.#holders.size
  }

  /** Records that a prompt was sent to the deployment. */
  note(deployment: string, prompt: ReadonlyArray<number>): void {
    // The longest first, so that a short beginning is never removed before a longer one.
    for (const hash of prompt.toReversed()) {
      const holders = this.#holders.get(hash) ?? new Set()
      holders.add(deployment)
      this.#holders.delete(hash)
      this.#holders.set(hash, holders)
    }
    for (const hash of this.#holders.keys()) {
      if (this.#holders.size <= this.#limit) break
      this.#holders.delete(hash)
    }
  }

  /** A deployment has lost its cache. */
  forget(deployment: string): void {
    for (const [hash, holders] of this.#holders) {
      holders.delete(deployment)
      if (holders.size === 0) this.#holders.delete(hash)
    }
  }

  /** Share of the prompt that each has, from 0 to 1, in the order of `deployments`. */
  shares(deployments: ReadonlyArray<string>, prompt: ReadonlyArray<number>): Float64Array {
    const held = new Map<string, number>()
    for (const [index, hash] of prompt.entries()) {
      const holders = this.#holders.get(hash)
      if (holders === undefined) break
      for (const holder of holders) if ((held.get(holder) ?? 0) === index) held.set(holder, index + 1)
    }
    return Float64Array.from(deployments, (deployment) => (held.get(deployment) ?? 0) / Math.max(1, prompt.length))
  }
}
