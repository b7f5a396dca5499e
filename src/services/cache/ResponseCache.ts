/**
 * Answers that are kept, by key, in tiers: in memory as events, in memory as text, and in a store that outlives the process.
 *
 * **Details**
 *
 * Memory is read at once. An answer that is found in one tier is kept in those before it, and a new answer in all. Every
 * tier gives an answer only before the end of its time to live.
 */
import { Context, Effect } from "effect"
import type { Tier } from "../../domain/CacheControl.ts"
import type { CachedAnswer } from "./CachedAnswer.ts"
import type { SemanticIndex } from "./SemanticIndex.ts"

/** The questions of kept answers: see `SemanticIndex`. */
export type Similar = Pick<SemanticIndex, "add" | "clear" | "count" | "find">

/** An answer, and where it was. */
export interface Found {
  readonly answer: CachedAnswer
  readonly tier: Exclude<Tier, "flight" | "semantic">
  /** Since its generation began. */
  readonly ageMs: number
  readonly key: string
}

/** Which answers are cleared: those that have all of these; without any of them, all. */
export interface Selection {
  readonly model?: string | undefined
  readonly tenant?: string | undefined
  readonly key?: string | undefined
}

/** What memory holds of questions. */
interface Questions {
  readonly entries: number
  readonly bytes: number
  /** Answers that were given to similar requests, since there are questions. */
  readonly hits: number
}

/** What memory holds of the questions of one tenant of a model. */
export interface QuestionContents extends Questions {
  readonly model: string
  /** Empty for callers without one. */
  readonly tenant: string
}

/** The sums of all questions, and the 100 tenants of models with most. */
export interface SemanticContents extends Questions {
  readonly questions: ReadonlyArray<QuestionContents>
}

/** What memory holds. */
export interface Contents {
  readonly memory: { readonly entries: number; readonly bytes: number }
  readonly compact: { readonly entries: number; readonly bytes: number }
  /** Whether answers outlive the process. */
  readonly store: boolean
  readonly semantic: SemanticContents
}

/** Keeps answers and returns them. */
export class ResponseCache extends Context.Service<ResponseCache, {
  /** A short text that stands for a long one: equal for equal texts only. */
  readonly hash: (text: string) => string
  /** A text that changes when a file of these paths does. */
  readonly versionOf: (paths: ReadonlyArray<string>) => string
  /** The answer in memory. */
  readonly recall: (key: string) => Found | undefined
  /** The answer in the store, which memory keeps from then on; left out if there is no store. */
  readonly recallStored?: (key: string) => Effect.Effect<Found | undefined>
  /** Replaces an earlier answer. The effect, if there is one, writes to the store. */
  readonly keep: (key: string, answer: CachedAnswer) => Effect.Effect<void> | void
  /** The questions of answers that are kept; left out if only equal requests share answers. */
  readonly similar?: Similar
  /** Returns the number of answers that memory had. Answers that are being generated are not kept. */
  readonly clear: (which: Selection) => Effect.Effect<number>
  /** While it is off, memory keeps no answers; those in the store remain. */
  readonly turnMemoryOff: (isOff: boolean) => void
  readonly contents: () => Contents
}>()("troupe/services/cache/ResponseCache") {}

/** Keeps nothing. */
export const none: ResponseCache["Service"] = {
  hash: (text) => text,
  versionOf: () => "",
  recall: () => undefined,
  keep: () => {},
  clear: () => Effect.succeed(0),
  turnMemoryOff: () => {},
  contents: () => ({
    memory: { entries: 0, bytes: 0 },
    compact: { entries: 0, bytes: 0 },
    store: false,
    semantic: { entries: 0, bytes: 0, hits: 0, questions: [] }
  })
}
