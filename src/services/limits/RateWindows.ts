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
  /** Its name in messages and metrics. */
  readonly name: string
  readonly by: ReadonlyArray<Dimension>
  readonly limits: Limits
  /** A shadow limit counts and reports, and rejects nothing. */
  readonly mode: "enforced" | "shadow"
}

export interface WindowLimit {
  readonly name: WindowName
  readonly measure: Measure
  readonly ms: number
  readonly limit: number
}

export const windowsOf = (limits: Limits): ReadonlyArray<WindowLimit> =>
  windowKinds.flatMap(([name, measure, ms]) => {
    const limit = limits[name]
    return limit === undefined ? [] : [{ name, measure, ms, limit }]
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
  /** ms until more is admitted; a running request has no known end. */
  readonly resetMs: number | undefined
}

/** The counters of a rule for one subject. */
class Counter {
  readonly startedAt: Array<number>
  readonly used: Array<number>
  running = 0

  constructor(windows: ReadonlyArray<WindowLimit>) {
    this.startedAt = windows.map(() => Number.NEGATIVE_INFINITY)
    this.used = windows.map(() => 0)
  }
}

/** A rule with its counters. */
class Rule {
  readonly rule: LimitRule
  readonly windows: ReadonlyArray<WindowLimit>
  /** The first subject, which is the only one of a key's own limits. */
  #first: { readonly name: string; readonly counter: Counter } | undefined
  /** The others. Made when there is one: it takes megabytes, however few it has. */
  #others: LRUCache<string, Counter> | undefined

  constructor(rule: LimitRule) {
    this.rule = rule
    this.windows = windowsOf(rule.limits)
  }

  /** The counter, in which windows that have ended begin again. */
  at(subject: Subject, now: number): Counter {
    const counter = this.#counterOf(counterOf(this.rule.by, subject))
    for (let index = 0; index < this.windows.length; index++) {
      if (now - counter.startedAt[index]! < this.windows[index]!.ms && now >= counter.startedAt[index]!) continue
      counter.startedAt[index] = now
      counter.used[index] = 0
    }
    return counter
  }

  #counterOf(name: string): Counter {
    this.#first ??= { name, counter: new Counter(this.windows) }
    if (this.#first.name === name) return this.#first.counter
    this.#others ??= new LRUCache({ max: 100_000 })
    let counter = this.#others.get(name)
    if (counter === undefined) {
      counter = new Counter(this.windows)
      this.#others.set(name, counter)
    }
    return counter
  }

  exceeded({ running, startedAt, used }: Counter, subject: Subject, tokens: number, now: number): Exceeded | undefined {
    const { by, limits: { parallel }, name: rule } = this.rule
    // Made for a rejection only: most requests are admitted.
    const shared = () => ({ rule, counter: describe(by, subject) })
    if (parallel !== undefined && running >= parallel) {
      return { ...shared(), limit: "parallel", most: parallel, remaining: 0, resetMs: undefined }
    }
    let last: Exceeded | undefined
    for (let index = 0; index < this.windows.length; index++) {
      const { limit, measure, ms, name } = this.windows[index]!
      const remaining = Math.max(0, limit - used[index]!)
      if ((measure === "tokens" ? tokens : 1) <= remaining) continue
      const resetMs = startedAt[index]! + ms - now
      if (last === undefined || resetMs > last.resetMs!) {
        last = { ...shared(), limit: name, most: limit, remaining, resetMs }
      }
    }
    return last
  }

  take(counter: Counter, tokens: number): void {
    counter.running++
    for (let index = 0; index < this.windows.length; index++) {
      counter.used[index]! += this.windows[index]!.measure === "tokens" ? tokens : 1
    }
  }

  /** As if the request had not been counted. */
  cancel(counter: Counter, takenAt: number, estimate: number): void {
    this.release(counter, takenAt, estimate, 0)
    for (let index = 0; index < this.windows.length; index++) {
      if (this.windows[index]!.measure === "tokens" || counter.startedAt[index]! > takenAt) continue
      counter.used[index] = Math.max(0, counter.used[index]! - 1)
    }
  }

  /** Corrects the estimate in the windows that have not ended since. */
  release(counter: Counter, takenAt: number, estimate: number, tokens: number): void {
    counter.running--
    for (let index = 0; index < this.windows.length; index++) {
      if (this.windows[index]!.measure === "requests" || counter.startedAt[index]! > takenAt) continue
      counter.used[index] = Math.max(0, counter.used[index]! + tokens - estimate)
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

  /** The enforced limit of which the least is left, relative to its size. */
  standing(measure: Measure, now: number): Standing | undefined {
    let least: Standing | undefined
    this.#rules.forEach(({ rule, windows }, at) => {
      if (rule.mode === "shadow") return
      const { startedAt, used } = this.#counters[at]!
      windows.forEach(({ limit, measure: of, ms }, index) => {
        if (of !== measure) return
        const remaining = Math.max(0, limit - used[index]!)
        if (least !== undefined && remaining / limit >= least.remaining / least.limit) return
        least = { limit, remaining, resetMs: Math.max(0, startedAt[index]! + ms - now) }
      })
    })
    return least
  }

  /**
   * Ends the request; once, further calls do nothing.
   *
   * @param tokens that it used
   */
  release(tokens: number): void {
    if (this.#isReleased) return
    this.#isReleased = true
    this.#rules.forEach((rule, at) => rule.release(this.#counters[at]!, this.#at, this.#estimate, tokens))
  }

  /** Ends a request that does not run: it counts nowhere. */
  cancel(): void {
    if (this.#isReleased) return
    this.#isReleased = true
    this.#rules.forEach((rule, at) => rule.cancel(this.#counters[at]!, this.#at, this.#estimate))
  }
}

const none: ReadonlyArray<Exceeded> = []

/** The limits of a service, with their counters in memory. */
export class RateWindows {
  readonly #rules = new WeakMap<LimitRule, Rule>()

  #ruleOf(rule: LimitRule): Rule {
    let known = this.#rules.get(rule)
    if (known === undefined) {
      known = new Rule(rule)
      this.#rules.set(rule, known)
    }
    return known
  }

  /**
   * Counts a request in every rule, or in none if an enforced rule is exceeded.
   *
   * @param applied the same objects for the same limits: each has its own counters
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
