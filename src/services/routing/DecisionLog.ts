/** The records of the latest requests, by id, in this process's memory. */
import type { Fiber } from "effect"
import { Context, Effect, Layer, Random } from "effect"
import type { Check } from "../../domain/Caller.ts"
import { ReplayOf, RequestId } from "../../domain/Caller.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { Identity } from "../../domain/Identity.ts"
import type { Operation } from "../observability/Metrics.ts"
import { cachedResponses, present } from "./DecisionRecord.ts"
import type { Attempt, Decision, Record } from "./DecisionRecord.ts"
import type { Route } from "./Route.ts"
import { refusedRoute } from "./Route.ts"

/** An object with all its optional fields, undefined or not: no write changes its shape. */
type Written<A> = {
  -readonly [K in keyof A]-?: object extends Pick<A, K> ? A[K] | undefined : A[K]
}

/** An attempt while it is written. */
export type AttemptDraft = Written<Attempt>

/** A record while it is written. */
export interface Draft extends Written<Omit<Record, "attempts" | "check">> {
  /** Only of few records: those of callers have no place for it. */
  check?: Check
  attempts: Array<AttemptDraft>
}

/** From where a request comes, in its record. */
export interface RecordedCaller {
  readonly requestId: string | undefined
  readonly dialect: string | undefined
  readonly tenant: string | undefined
  readonly key: string | undefined
  readonly replayOf: string | undefined
}

/** Of a request about whose caller nothing is known. */
const unknownCaller: RecordedCaller = {
  requestId: undefined,
  dialect: undefined,
  tenant: undefined,
  key: undefined,
  replayOf: undefined
}

/** What of a request says where it comes from. */
interface Identified {
  readonly identity?: Identity | undefined
  readonly tenant?: string | undefined
  readonly source?: { readonly dialect: string } | undefined
}

/** From where the request of a fiber comes. */
export const callerOf = (
  fiber: Pick<Fiber.Fiber<unknown, unknown>, "context" | "getRef">,
  { identity, source, tenant }: Identified
): RecordedCaller => ({
  requestId: fiber.getRef(RequestId)(fiber.context),
  dialect: source?.dialect,
  tenant: tenant === "" ? undefined : tenant,
  key: identity?.name ?? identity?.keyId,
  replayOf: fiber.getRef(ReplayOf)
})

/** A request that is refused before it is routed. */
export interface RefusedRequest {
  readonly operation: Operation
  readonly model: string
  /** When it arrived, ms since 1970. */
  readonly at: number
  /** How long it has waited for its limits and budgets; default 0. */
  readonly admissionMs?: number
  readonly caller: RecordedCaller
  readonly error: NonNullable<Draft["error"]>
  /** Whether its caller is the cause, not the service. */
  readonly isOfCaller: boolean
  readonly check?: Check | undefined
}

/** A listener of groups of records. */
export interface Collection {
  /** Calls it with the records that wait for their group. */
  readonly flush: () => void
  readonly end: () => void
}

/** The latest decision records. */
export class DecisionLog extends Context.Service<DecisionLog, {
  /**
   * Begins a request's record, which the caller of this completes.
   *
   * @param at ms since 1970
   */
  readonly begin: (operation: Operation, route: Route, at: number, caller?: RecordedCaller) => Draft
  /**
   * Adds the record of a request that is refused. The latest `Defaults.keptRefusals` are kept, beside the records of other requests;
   * listeners get at most `Defaults.toldRefusals` in a second, and groups those whose cause is the service.
   */
  readonly refuse?: (request: RefusedRequest) => Draft
  /** A request of this log has ended, and its record is complete. Groups have no checks. */
  readonly ended?: (record: Draft) => void
  /**
   * Calls this listener with each record that is complete from now on, at once: it must not wait, and must not keep the record.
   *
   * @returns ends the subscription
   */
  readonly subscribe?: (listener: (record: Draft) => void) => () => void
  /**
   * Calls this listener with the records that are complete from now on, in groups of at most `Defaults.collectedDecisions`: only few
   * requests call it. It must not keep the records.
   */
  readonly collect?: (listener: (records: ReadonlyArray<Draft>) => void) => Collection
  /** Requests that have begun and not ended. */
  readonly running?: () => number
  /**
   * Undefined if there is no such record, or it is no longer kept.
   *
   * @param id of the record, or of the response to its request
   */
  readonly find: (id: string) => Record | undefined
  /** The latest first, refused requests among them. */
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
export const makeDraft = (
  id: string,
  operation: Operation,
  route: Route,
  at: number,
  { dialect, key, replayOf, requestId, tenant } = unknownCaller
): Draft => {
  const { decision, model, policy } = route
  return {
    id,
    operation,
    model,
    policy: policy.name,
    requestId,
    dialect,
    tenant,
    key,
    replayOf,
    at,
    decision: bounded(decision),
    fallbacks: namesOf(route),
    admissionMs: undefined,
    attempts: [],
    answeredBy: undefined,
    cache: undefined,
    makersUnavailable: undefined,
    tookMs: undefined,
    inputTokens: undefined,
    outputTokens: undefined,
    usd: undefined,
    unpriced: undefined,
    error: undefined,
    refused: undefined,
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
    grantedMs: undefined,
    firstTokenMs: undefined,
    tookMs: undefined,
    hedge,
    skippedEvents: undefined,
    outcome: "running",
    error: undefined,
    usd: undefined,
    isUnpriced: undefined,
    reasoningDropped: undefined
  }
  // The first one without room for others: most requests have one.
  if (record.attempts.length === 0) record.attempts = [attempt]
  else record.attempts.push(attempt)
  return attempt
}

/** The record as it is now. */
export const recordOf = (draft: Draft): Record => ({ ...present(draft), attempts: draft.attempts.map(present) })

const makeRefused = (
  id: string,
  { admissionMs = 0, at, caller, check, error, model, operation }: RefusedRequest
): Draft => ({
  ...makeDraft(id, operation, refusedRoute(model), at, caller),
  admissionMs: admissionMs === 0 ? undefined : admissionMs,
  tookMs: admissionMs,
  error,
  refused: true,
  end: "failure",
  ...(check === undefined ? {} : { check })
})

/** The records of the latest requests that were refused. */
class Refusals {
  readonly #prefix: string
  readonly #records: Array<Draft> = []
  #count = 0
  #second = 0
  #told = 0

  constructor(run: string) {
    this.#prefix = `ref-${run}-`
  }

  add(request: RefusedRequest): Draft {
    const record = makeRefused(`${this.#prefix}${(this.#count++).toString(36)}`, request)
    if (this.#records.push(record) > Defaults.keptRefusals) this.#records.shift()
    return record
  }

  /** Whether listeners get a record of this time, ms since 1970. */
  isTold(at: number): boolean {
    const second = Math.floor(at / 1000)
    if (second !== this.#second) this.#told = 0
    this.#second = second
    return this.#told++ < Defaults.toldRefusals
  }

  /** @param id of the record, or of the response */
  find(id: string): Draft | undefined {
    return this.#records.find((record) => record.id === id || record.requestId === id)
  }

  /** These and others, the latest first. */
  with(others: ReadonlyArray<Draft>, most: number): ReadonlyArray<Draft> {
    if (this.#records.length === 0) return others
    return [...this.#records.toReversed(), ...others].toSorted((one, other) => other.at - one.at).slice(0, most)
  }
}

type Listener = (record: Draft) => void
type Collector = (records: ReadonlyArray<Draft>) => void

/** What gets the records that are complete: each at once, and in groups. */
class Readers {
  readonly #listeners = new Set<Listener>()
  readonly #collectors = new Set<Collector>()
  #group: Array<Draft> = []

  tell(record: Draft): void {
    for (const listener of this.#listeners) listener(record)
  }

  collect(record: Draft): void {
    if (this.#collectors.size > 0 && this.#group.push(record) >= Defaults.collectedDecisions) this.#flush()
  }

  #flush(): void {
    const records = this.#group
    this.#group = []
    for (const collector of this.#collectors) collector(records)
  }

  addListener(listener: Listener): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  addCollector(collector: Collector): Collection {
    this.#collectors.add(collector)
    return { flush: () => this.#flush(), end: () => void this.#collectors.delete(collector) }
  }
}

/** Keeps the latest records in memory. */
export const layer = Layer.effect(
  DecisionLog,
  Effect.map(Random.nextIntBetween(0, 36 ** 6), (random) => {
    // So that ids of an earlier run of the service do not match records of this one.
    const run = random.toString(36).padStart(6, "0")
    const prefix = `dec-${run}-`
    const records: Array<Draft> = []
    const refusals = new Refusals(run)
    const readers = new Readers()
    let count = 0
    let running = 0
    const at = (index: number) => index >= 0 ? records[index % Defaults.keptDecisions] : undefined
    return DecisionLog.of({
      begin(operation, route, at, caller) {
        const draft = makeDraft(`${prefix}${count.toString(36)}`, operation, route, at, caller)
        records[count++ % Defaults.keptDecisions] = draft
        running++
        return draft
      },
      refuse(request) {
        const record = refusals.add(request)
        if (refusals.isTold(request.at)) readers.tell(record)
        if (!request.isOfCaller && request.check === undefined) readers.collect(record)
        return record
      },
      ended(record) {
        running--
        readers.tell(record)
        if (record.check === undefined) readers.collect(record)
      },
      subscribe: (listener) => readers.addListener(listener),
      collect: (collector) => readers.addCollector(collector),
      running: () => running,
      find(id) {
        const found = at(Number.parseInt(id.slice(prefix.length), 36))
        const record = found?.id === id
          ? found
          : records.find(({ requestId }) => requestId === id) ?? refusals.find(id)
        return record && recordOf(record)
      },
      latest(most) {
        const latest = Array.from({ length: Math.min(most, records.length) }, (_, before) => at(count - 1 - before)!)
        return refusals.with(latest, most).map(recordOf)
      }
    })
  })
)
