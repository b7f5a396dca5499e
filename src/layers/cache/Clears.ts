/**
 * What has been cleared, and when: an answer whose generation began before that is not given, also if a store still has it or
 * another process of the same store cleared it.
 *
 * **Details**
 *
 * A store is read by key only, so that answers of a model or a tenant cannot be removed from it: they end by their time to
 * live. A mark that is older than every answer has no effect and is dropped.
 */
import * as Defaults from "../../domain/Defaults.ts"
import type { CachedAnswer } from "../../services/cache/CachedAnswer.ts"
import type { Selection } from "../../services/cache/ResponseCache.ts"

/** One clearing of a model, of a tenant, of both together, or of everything; ms since 1970. */
export interface Mark {
  readonly model?: string | undefined
  readonly tenant?: string | undefined
  readonly at: number
}

const isMark = (value: unknown): value is Mark => {
  const { at, model, tenant } = (value ?? {}) as Readonly<Record<string, unknown>>
  return typeof at === "number" && [model, tenant].every((name) => name === undefined || typeof name === "string")
}

const isSame = (one: Mark, other: Mark): boolean => one.model === other.model && one.tenant === other.tenant

/** The marks of this process and of others that share its store. */
export class Clears {
  #marks: ReadonlyArray<Mark> = []

  get marks(): ReadonlyArray<Mark> {
    return this.#marks
  }

  /** Whether the answer was cleared. */
  covers({ at, model, tenant }: Pick<CachedAnswer, "at" | "model" | "tenant">): boolean {
    for (const mark of this.#marks) {
      if (
        at <= mark.at && (mark.model === undefined || mark.model === model) &&
        (mark.tenant === undefined || mark.tenant === tenant)
      ) return true
    }
    return false
  }

  /** @param now ms since 1970 */
  add({ model, tenant }: Selection, now: number): Mark {
    const mark = { model, tenant, at: now }
    this.#merge([mark])
    return mark
  }

  /** Adds the marks of a store; other values are ignored. */
  merge(found: unknown): void {
    if (Array.isArray(found)) this.#merge(found.filter(isMark))
  }

  #merge(found: ReadonlyArray<Mark>): void {
    for (const mark of found) {
      const known = this.#marks.find((one) => isSame(one, mark))
      if (known !== undefined && known.at >= mark.at) continue
      const newest = Math.max(mark.at, ...this.#marks.map(({ at }) => at))
      this.#marks = [...this.#marks.filter((one) => one !== known), mark]
        .filter(({ at }) => at > newest - Defaults.cache.marksKeptMs)
    }
  }
}
