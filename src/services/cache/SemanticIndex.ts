/**
 * The questions of kept answers, by their embeddings: finds the answer to a similar question. In memory.
 *
 * **Details**
 *
 * Two questions are compared only if all else of their requests is equal, and `QuestionFacts` lets them have one answer. The
 * most similar one counts if it is near enough, and clearly nearer than every question with the same facts and another
 * answer. An entry names its answer by key, and ends with the answer.
 *
 * Each tenant of a model has bounds of its own, oldest use first out. If all together take too much memory, the tenant and
 * model that was not used for the longest time loses entries.
 */
import type { Clock } from "effect"
import type { SemanticSettings } from "../../domain/CacheControl.ts"
import * as Time from "../../domain/Time.ts"
import { wordsAgree } from "./QuestionFacts.ts"
import type { QuestionContents, Selection, SemanticContents } from "./ResponseCache.ts"

/** A question that may have the answer of another one. */
export interface Question {
  readonly model: string
  readonly tenant: string
  /** Equal where everything but the question is the same, the facts of the question included. */
  readonly scope: string
  /** See `QuestionFacts`. */
  readonly words: Uint32Array
  /** Of length 1. */
  readonly vector: Float32Array
}

/** The nearest question with an answer. */
export interface Similar {
  /** Of the answer. */
  readonly key: string
  readonly similarity: number
}

interface Entry {
  readonly question: Question
  readonly key: string
  /** Equal for the same answers. */
  readonly answer: string
  /** Monotonic ms. */
  readonly endsAt: number
  readonly bytes: number
}

/** A vector of length 1; undefined if it has no direction. */
export const normalized = (vector: ArrayLike<number>): Float32Array | undefined => {
  let sum = 0
  for (let index = 0; index < vector.length; index++) sum += vector[index]! * vector[index]!
  const length = Math.sqrt(sum)
  return length > 0 && Number.isFinite(length) ? Float32Array.from(vector, (value) => value / length) : undefined
}

/** Of vectors of length 1; 0 if they have different dimensions. */
const cosine = (one: Float32Array, other: Float32Array): number => {
  if (one.length !== other.length) return 0
  let sum = 0
  for (let index = 0; index < one.length; index++) sum += one[index]! * other[index]!
  return Math.min(1, sum)
}

const mostListed = 100

/** The sums of all, and those with most questions. */
export const contentsOf = (all: ReadonlyArray<QuestionContents>): SemanticContents => {
  const sum = { entries: 0, bytes: 0, hits: 0 }
  for (const { bytes, entries, hits } of all) {
    sum.entries += entries
    sum.bytes += bytes
    sum.hits += hits
  }
  const listed = all.toSorted((one, other) => other.entries - one.entries).slice(0, mostListed)
  return { ...sum, questions: listed }
}

const bytesOf = ({ vector, words }: Question): number => 512 + vector.byteLength + words.byteLength

/** The entries of one tenant and model. */
class Partition {
  readonly model: string
  readonly tenant: string
  bytes = 0
  /** Answers that were given to similar questions. */
  hits = 0
  /** By scope and key, oldest use first. */
  readonly #entries = new Map<string, Entry>()
  readonly #byScope = new Map<string, Set<Entry>>()

  constructor({ model, tenant }: Question) {
    this.model = model
    this.tenant = tenant
  }

  get size(): number {
    return this.#entries.size
  }

  get contents(): QuestionContents {
    const { bytes, hits, model, size, tenant } = this
    return { model, tenant, entries: size, bytes, hits }
  }

  /** Those that have not ended, of the question's scope. */
  of({ scope }: Question, now: number): ReadonlyArray<Entry> {
    const found = [...this.#byScope.get(scope) ?? []]
    const ended = found.filter(({ endsAt }) => endsAt <= now)
    for (const entry of ended) this.remove(entry)
    return ended.length === 0 ? found : found.filter(({ endsAt }) => endsAt > now)
  }

  add(entry: Entry): void {
    const id = this.#idOf(entry)
    const known = this.#entries.get(id)
    if (known !== undefined) this.remove(known)
    this.#entries.set(id, entry)
    const { question: { scope } } = entry
    const others = this.#byScope.get(scope)
    if (others === undefined) this.#byScope.set(scope, new Set([entry]))
    else others.add(entry)
    this.bytes += entry.bytes
  }

  touch(entry: Entry): void {
    const id = this.#idOf(entry)
    this.#entries.delete(id)
    this.#entries.set(id, entry)
  }

  remove(entry: Entry): void {
    if (!this.#entries.delete(this.#idOf(entry))) return
    const { question: { scope } } = entry
    const others = this.#byScope.get(scope)!
    others.delete(entry)
    if (others.size === 0) this.#byScope.delete(scope)
    this.bytes -= entry.bytes
  }

  removeKey(key: string): void {
    for (const entry of this.#entries.values()) if (entry.key === key) this.remove(entry)
  }

  removeOldest(): void {
    for (const entry of this.#entries.values()) return this.remove(entry)
  }

  #idOf({ key, question: { scope } }: Entry): string {
    return `${scope} ${key}`
  }
}

export class SemanticIndex {
  readonly #clock: Clock.Clock
  readonly #totalBytes: number
  /** Oldest use first. */
  readonly #partitions = new Map<string, Partition>()
  #bytes = 0
  #isOff = false

  constructor(clock: Clock.Clock, totalBytes: number) {
    this.#clock = clock
    this.#totalBytes = totalBytes
  }

  /** What memory holds: in all, and of the tenants and models with most questions. */
  get contents(): SemanticContents {
    return contentsOf([...this.#partitions.values()].map(({ contents }) => contents))
  }

  /** The nearest question with an answer; undefined if none is near enough, or two answers are nearly as near. */
  find(
    question: Question,
    { margin, threshold }: Pick<SemanticSettings, "margin" | "threshold">
  ): Similar | undefined {
    const partition = this.#used(question)
    if (partition === undefined) return undefined
    const near = this.#changing(partition, () => partition.of(question, Time.nowOf(this.#clock)))
      .map((entry) => ({ entry, similarity: cosine(question.vector, entry.question.vector) }))
      .filter(({ similarity }) => similarity >= threshold - margin)
      .sort((one, other) => other.similarity - one.similarity)
    const best = near.find(({ entry }) => wordsAgree(question.words, entry.question.words))
    if (best === undefined || best.similarity < threshold) return undefined
    const isUnclear = near.some(({ entry: { answer }, similarity }) =>
      answer !== best.entry.answer && similarity > best.similarity - margin
    )
    if (isUnclear) return undefined
    partition.touch(best.entry)
    return { key: best.entry.key, similarity: best.similarity }
  }

  /** Counts an answer that was given to a similar question. */
  count(of: Pick<Question, "model" | "tenant">): void {
    const partition = this.#partitions.get(this.#nameOf(of))
    if (partition !== undefined) partition.hits++
  }

  /**
   * Keeps a question of an answer.
   *
   * @param key of the answer
   * @param answer equal for equal answers
   * @param ttlMs until the answer ends
   */
  add(
    question: Question,
    key: string,
    answer: string,
    ttlMs: number,
    bounds: Pick<SemanticSettings, "bytes" | "entries">
  ): void {
    const bytes = bytesOf(question)
    if (this.#isOff || ttlMs <= 0 || bytes > bounds.bytes) return
    const partition = this.#used(question) ?? this.#created(question)
    this.#changing(partition, () => {
      partition.add({ question, key, answer, endsAt: Time.nowOf(this.#clock) + ttlMs, bytes })
      while (partition.size > bounds.entries || partition.bytes > bounds.bytes) partition.removeOldest()
    })
    while (this.#bytes > this.#totalBytes) this.#evict()
  }

  /** Removes the questions of answers that are cleared. */
  clear({ key, model, tenant }: Selection): void {
    for (const [name, partition] of this.#partitions) {
      if (model !== undefined && model !== partition.model) continue
      if (tenant !== undefined && tenant !== partition.tenant) continue
      if (key === undefined) this.#drop(name, partition)
      else this.#changing(partition, () => partition.removeKey(key))
    }
  }

  /** While it is off, it holds nothing. */
  turnOff(isOff: boolean): void {
    this.#isOff = isOff
    if (isOff) this.clear({})
  }

  #nameOf({ model, tenant }: Pick<Question, "model" | "tenant">): string {
    return JSON.stringify([model, tenant])
  }

  /** The questions of the same tenant and model, which are the last to be evicted from now on. */
  #used(question: Question): Partition | undefined {
    const name = this.#nameOf(question)
    const found = this.#partitions.get(name)
    if (found === undefined) return undefined
    this.#partitions.delete(name)
    this.#partitions.set(name, found)
    return found
  }

  #created(question: Question): Partition {
    const created = new Partition(question)
    this.#partitions.set(this.#nameOf(question), created)
    return created
  }

  /** Counts the memory that a change adds or frees. */
  #changing<A>(partition: Partition, change: () => A): A {
    const before = partition.bytes
    const result = change()
    this.#bytes += partition.bytes - before
    if (partition.size === 0) this.#drop(this.#nameOf(partition), partition)
    return result
  }

  #evict(): void {
    for (const partition of this.#partitions.values()) return this.#changing(partition, () => partition.removeOldest())
  }

  #drop(name: string, { bytes }: Partition): void {
    if (this.#partitions.delete(name)) this.#bytes -= bytes
  }
}
