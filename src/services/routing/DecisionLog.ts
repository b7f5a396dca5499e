/** The records of the latest requests, by id. */
import { Context } from "effect"
import type { Operation } from "../observability/Metrics.ts"
import type { Attempt, Record } from "./DecisionRecord.ts"
import type { Route } from "./Router.ts"

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

/** An attempt while it is written. */
export type AttemptDraft = Mutable<Attempt>

/** A record while it is written. */
export interface Draft extends Mutable<Omit<Record, "attempts">> {
  readonly attempts: Array<AttemptDraft>
}

export class Decisions extends Context.Service<Decisions, {
  /**
   * Begins a request's record. Whoever begins it writes it.
   *
   * @param at ms since 1970
   */
  readonly begin: (operation: Operation, route: Route, at: number) => Draft
  /** Undefined where there is none, or none any more. */
  readonly find: (id: string) => Record | undefined
  /** The latest first. */
  readonly latest: (count: number) => ReadonlyArray<Record>
}>()("troupe/services/routing/DecisionLog") {}
