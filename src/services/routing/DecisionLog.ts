/** The records of the latest requests, by id, in this process's memory. */
import { Context, Effect, Layer, Random } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { Operation } from "../observability/Metrics.ts"
import { cachedResponses, present } from "./DecisionRecord.ts"
import type { Attempt, Decision, Record } from "./DecisionRecord.ts"
import type { Route } from "./Route.ts"

/** An object with all its optional fields, undefined or not: no write changes its shape. */
type Written<A> = {
  -readonly [K in keyof A]-?: object extends Pick<A, K> ? A[K] | undefined : A[K]
}

/** An attempt while it is written. */
export type AttemptDraft = Written<Attempt>

/** A record while it is written. */
export interface Draft extends Written<Omit<Record, "attempts">> {
  attempts: Array<AttemptDraft>
}

/** The latest decision records. */
export class DecisionLog extends Context.Service<DecisionLog, {
  /**
   * Begins a request's record, which the caller of this completes.
   *
   * @param at ms since 1970
   */
  readonly begin: (operation: Operation, route: Route, at: number) => Draft
  /** Undefined if there is no such record, or it is no longer kept. */
  readonly find: (id: string) => Record | undefined
  /** The latest first. */
  readonly latest: (count: number) => ReadonlyArray<Record>
}>()("troupe/services/routing/DecisionLog") {}

const idOf = ({ id }: Deployment): string => id

const none = { ordinary: [], context: [], content: [] }

const first = <A>(list: ReadonlyArray<A>): ReadonlyArray<A> =>
  list.length > Defaults.listedInDecision ? list.slice(0, Defaults.listedInDecision) : list

const namesOf = ({ cached, fallbacks: { content, context, ordinary } }: Route) =>
  ordinary.length + context.length + content.length === 0 && !cached
    ? none
    : {
      ordinary: [...first(ordinary).map(idOf), ...(cached ? [cachedResponses] : [])],
      context: first(context).map(idOf),
      content: first(content).map(idOf)
    }

/** The decision with shortened lists: a thousand records are kept, and a model may have as many deployments. */
const bounded = (decision: Decision): Decision => {
  const { candidates, excluded, spilled = [] } = decision
  if (Math.max(candidates.length, excluded.length, spilled.length) <= Defaults.listedInDecision) return decision
  return {
    ...decision,
    candidates: first(candidates),
    excluded: first(excluded),
    excludedCount: excluded.length,
    ...(spilled.length === 0 ? {} : { spilled: first(spilled) })
  }
}

/**
 * A record that begins.
 *
 * @param at ms since 1970
 */
export const makeDraft = (id: string, operation: Operation, route: Route, at: number): Draft => {
  const { decision, model, policy } = route
  return {
    id,
    operation,
    model,
    policy: policy.name,
    at,
    decision: bounded(decision),
    fallbacks: namesOf(route),
    attempts: [],
    answeredBy: undefined,
    cache: undefined,
    makersUnavailable: undefined,
    tookMs: undefined,
    end: undefined
  }
}

/**
 * Begins an attempt of the request.
 *
 * @param startedMs ms after the request arrived
 */
export const addAttempt = (record: Draft, deployment: string, startedMs: number, hedge?: true): AttemptDraft => {
  const attempt: AttemptDraft = {
    deployment,
    startedMs,
    firstTokenMs: undefined,
    tookMs: undefined,
    hedge,
    skippedEvents: undefined,
    outcome: "running",
    error: undefined,
    reasoningDropped: undefined
  }
  // The first one without room for others: most requests have one.
  if (record.attempts.length === 0) record.attempts = [attempt]
  else record.attempts.push(attempt)
  return attempt
}

/** The record as it is now. */
export const recordOf = (draft: Draft): Record => ({ ...present(draft), attempts: draft.attempts.map(present) })

/** Keeps the latest records in memory. */
export const layer = Layer.effect(
  DecisionLog,
  Effect.map(Random.nextIntBetween(0, 36 ** 6), (random) => {
    // So that ids of an earlier run of the service do not match records of this one.
    const run = random.toString(36).padStart(6, "0")
    const prefix = `dec-${run}-`
    const records: Array<Draft> = []
    let count = 0
    const at = (index: number) => index >= 0 ? records[index % Defaults.keptDecisions] : undefined
    return DecisionLog.of({
      begin(operation, route, at) {
        const draft = makeDraft(`${prefix}${count.toString(36)}`, operation, route, at)
        records[count++ % Defaults.keptDecisions] = draft
        return draft
      },
      find(id) {
        const found = at(Number.parseInt(id.slice(prefix.length), 36))
        return found?.id === id ? recordOf(found) : undefined
      },
      latest: (most) =>
        Array.from({ length: Math.min(most, records.length) }, (_, before) => recordOf(at(count - 1 - before)!))
    })
  })
)
