/**
 * Limits of the rate of requests and tokens, and of requests at the same time. Pure policy: time is an argument.
 *
 * **Details**
 *
 * A window begins with its first request and ends after a minute, an hour or a day. A request counts in all windows of all
 * limits that apply to it, or in none: nothing counts until every limit has admitted it. Tokens count by an estimate at
 * first, and by what was used at the end.
 *
 * **Gotchas**
 *
 * The counters of the latest 100,000 subjects are kept: an older subject begins with new windows.
 */
import { LRUCache } from "lru-cache"
import type { Standing } from "../../domain/Inference.ts"
import type { Dimension, Subject } from "../admission/Subject.ts"
import { counterOf, describe } from "../admission/Subject.ts"

const minute = 60_000

/** The settings of a limit by their names; ms of its window. */
const windowKinds = [
  ["requestsPerMinute", "requests", minute],
  ["requestsPerHour", "requests", 60 * minute],
  ["requestsPerDay", "requests", 1440 * minute],
  ["tokensPerMinute", "tokens", minute],
  ["tokensPerHour", "tokens", 60 * minute],
  ["tokensPerDay", "tokens", 1440 * minute]
] as const

export type WindowName = (typeof windowKinds)[number][0]
export type Measure = "requests" | "tokens"

/** The most of each; left out, without a limit. */
export type Limits = { readonly [Name in WindowName | "parallel"]?: number | undefined }

/** A limit that requests count against. */
export interface LimitRule {
  /** Rules with the same id share their counters, also after a change of their limits. */
  readonly id: string
  /** Its name in messages and metrics. */
  readonly name: string
  readonly by: ReadonlyArray<Dimension>
  readonly limits: Limits
  /** A shadow limit counts and reports, and rejects nothing. */
  readonly mode: "enforced" | "shadow"
}

export interface WindowLimit {
  /** The place of its count in a counter. */
  readonly place: number
  readonly name: WindowName
  readonly measure: Measure
  readonly ms: number
  readonly limit: number
}

export const windowsOf = (limits: Limits): ReadonlyArray<WindowLimit> =>
  windowKinds.flatMap(([name, measure, ms], place) => {
    const limit = limits[name]
    return limit === undefined ? [] : [{ place, name, measure, ms, limit }]
  })

/** A limit that a request exceeds. */
export interface Exceeded {
  readonly rule: string
  readonly limit: WindowName | "parallel"
  /** What shares the counter, as `user ada, endpoint chat`. */
  readonly counter: string
  readonly most: number
  /** What is left of it. */
  readonly remaining: number
  /** What the request needs. */
  readonly needed: number
  /** ms until more is admitted, infinite for a request above the limit itself; undefined until a request ends. */
  readonly resetMs: number | undefined
}

/** The counters of a rule for one subject. */
class Counter {
  /** When each window began, ms since 1970, and after these how much of each is used: one list, because there are many counters. */
  readonly #figures: Array<number> = [...windowKinds.map(() => Number.NEGATIVE_INFINITY), ...windowKinds.map(() => 0)]
  running = 0

  startedAt(place: number): number {
    return this.#figures[place]!
  }

  used(place: number): number {
    return this.#figures[windowKinds.length + place]!
  }

  /** @param at ms since 1970 */
  setStart(place: number, at: number): void {
    this.#figures[place] = at
  }

  setUsed(place: number, amount: number): void {
    this.#figures[windowKinds.length + place] = amount
  }
}

/** A rule with its counters. */
class Rule {
  #rule: LimitRule
  windows: ReadonlyArray<WindowLimit>
  /** The first subject, which is the only one of a key's own limits. */
  #first: { readonly name: string; readonly counter: Counter } | undefined
  /** The others. Made when there is one: it takes megabytes, however few it has. */
  #others: LRUCache<string, Counter> | undefined

  constructor(rule: LimitRule) {
    this.#rule = rule
    this.windows = windowsOf(rule.limits)
  }

  get rule(): LimitRule {
    return this.#rule
  }

  /** The limits were changed: what is counted stays. */
  set rule(rule: LimitRule) {
    this.#rule = rule
    this.windows = windowsOf(rule.limits)
  }

  /** The counter, in which windows that have ended begin again. */
  at(subject: Subject, now: number): Counter {
    const counter = this.#counterOf(counterOf(this.#rule.by, subject))
    for (const { ms, place } of this.windows) {
      const startedAt = counter.startedAt(place)
      if (now - startedAt >= ms) {
        counter.setStart(place, now)
        counter.setUsed(place, 0)
        // The clock was set back: the window keeps what it has counted, and is no longer than others.
      } else if (now < startedAt) counter.setStart(place, now)
    }
    return counter
  }

  #counterOf(name: string): Counter {
    this.#first ??= { name, counter: new Counter() }
    if (this.#first.name === name) return this.#first.counter
    this.#others ??= new LRUCache({ max: 100_000 })
    let counter = this.#others.get(name)
    if (counter === undefined) {
      counter = new Counter()
      this.#others.set(name, counter)
    }
    return counter
  }

  exceeded(counter: Counter, subject: Subject, tokens: number, now: number): Exceeded | undefined {
    const { by, limits: { parallel }, name: rule } = this.#rule
    // Made for a rejection only: most requests are admitted.
    const shared = () => ({ rule, counter: describe(by, subject) })
    if (parallel !== undefined && counter.running >= parallel) {
      return { ...shared(), limit: "parallel", most: parallel, remaining: 0, needed: 1, resetMs: undefined }
    }
    let last: Exceeded | undefined
    for (const { limit, measure, ms, name, place } of this.windows) {
      const remaining = Math.max(0, limit - counter.used(place))
      const needed = measure === "tokens" ? tokens : 1
      if (needed <= remaining) continue
      // No window has room for a request above the limit itself.
      const resetMs = needed > limit ? Number.POSITIVE_INFINITY : counter.startedAt(place) + ms - now
      if (last === undefined || resetMs > last.resetMs!) {
        last = { ...shared(), limit: name, most: limit, remaining, needed, resetMs }
      }
    }
    return last
  }

  take(counter: Counter, tokens: number): void {
    counter.running++
    for (const { measure, place } of this.windows) {
      counter.setUsed(place, counter.used(place) + (measure === "tokens" ? tokens : 1))
    }
  }

  /** As if the request had not been counted. */
  cancel(counter: Counter, takenAt: number, estimate: number): void {
    this.release(counter, takenAt, estimate, 0)
    for (const { measure, place } of this.windows) {
      if (measure === "tokens" || counter.startedAt(place) > takenAt) continue
      counter.setUsed(place, Math.max(0, counter.used(place) - 1))
    }
  }

  /** Corrects the estimate in the windows that have not ended since. */
  release(counter: Counter, takenAt: number, estimate: number, tokens: number): void {
    for (const { measure, place } of this.windows) {
      if (measure === "requests" || counter.startedAt(place) > takenAt) continue
      counter.setUsed(place, Math.max(0, counter.used(place) + tokens - estimate))
    }
  }
}

/** A request that all limits have admitted. `release` ends it. */
export class Taken {
  readonly #rules: ReadonlyArray<Rule>
  readonly #counters: ReadonlyArray<Counter>
  readonly #estimate: number
  readonly #at: number
  /** The shadow limits that it exceeds. */
  readonly shadowed: ReadonlyArray<Exceeded>
  #isReleased = false
  #hasLeft = false

  constructor(
    rules: ReadonlyArray<Rule>,
    counters: ReadonlyArray<Counter>,
    estimate: number,
    at: number,
    shadowed: ReadonlyArray<Exceeded>
  ) {
    this.#rules = rules
    this.#counters = counters
    this.#estimate = estimate
    this.#at = at
    this.shadowed = shadowed
  }

  /** The enforced limit with the smallest share left. */
  standing(measure: Measure, now: number): Standing | undefined {
    let least: Standing | undefined
    for (let at = 0; at < this.#rules.length; at++) {
      const { rule, windows } = this.#rules[at]!
      if (rule.mode === "shadow") continue
      const counter = this.#counters[at]!
      for (const { limit, measure: of, ms, place } of windows) {
        if (of !== measure) continue
        const remaining = Math.max(0, limit - counter.used(place))
        if (least !== undefined && remaining / limit >= least.remaining / least.limit) continue
        least = { limit, remaining, resetMs: Math.max(0, counter.startedAt(place) + ms - now) }
      }
    }
    return least
  }

  /** It does not run any more at the same time as others; its tokens count as before until it ends. */
  leave(): void {
    if (this.#hasLeft) return
    this.#hasLeft = true
    for (const counter of this.#counters) counter.running--
  }

  /**
   * Ends the request; once, further calls do nothing.
   *
   * @param tokens that it used
   */
  release(tokens: number): void {
    if (this.#isReleased) return
    this.#isReleased = true
    this.leave()
    this.#rules.forEach((rule, at) => rule.release(this.#counters[at]!, this.#at, this.#estimate, tokens))
  }

  /** Ends a request that does not run: it counts nowhere. */
  cancel(): void {
    if (this.#isReleased) return
    this.#isReleased = true
    this.leave()
    this.#rules.forEach((rule, at) => rule.cancel(this.#counters[at]!, this.#at, this.#estimate))
  }
}

const none: ReadonlyArray<Exceeded> = []

/** The limits of a service, with their counters in memory. */
export class RateWindows {
  /** By id. There are as many as rules and keys. */
  readonly #rules = new Map<string, Rule>()

  #ruleOf(rule: LimitRule): Rule {
    let known = this.#rules.get(rule.id)
    if (known === undefined) {
      known = new Rule(rule)
      this.#rules.set(rule.id, known)
    } else if (known.rule !== rule) known.rule = rule
    return known
  }

  /**
   * Counts a request in every rule, or in none if an enforced rule is exceeded.
   *
   * @param tokens estimate of prompt and answer
   * @param now ms since 1970
   */
  take(applied: ReadonlyArray<LimitRule>, subject: Subject, tokens: number, now: number): Taken | Exceeded {
    const rules = applied.map((rule) => this.#ruleOf(rule))
    const counters = rules.map((rule) => rule.at(subject, now))
    let shadowed = none
    for (let index = 0; index < rules.length; index++) {
      const exceeded = rules[index]!.exceeded(counters[index]!, subject, tokens, now)
      if (exceeded === undefined) continue
      if (rules[index]!.rule.mode === "enforced") return exceeded
      shadowed = [...shadowed, exceeded]
    }
    for (let index = 0; index < rules.length; index++) rules[index]!.take(counters[index]!, tokens)
    return new Taken(rules, counters, tokens, now, shadowed)
  }
}
