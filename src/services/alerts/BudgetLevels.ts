/**
 * The budgets that have raised alerts in their present period, for the metric `budget_alerts`.
 *
 * **Details**
 *
 * A budget has its levels until its period ends or it is raised above them: what is spent stays spent. Every process has the levels of all
 * processes of the service.
 *
 * **Gotchas**
 *
 * Levels are in memory: after a restart a budget has those that it reaches from then on.
 */
import { Context, Effect, Layer } from "effect"
import * as Money from "../../domain/Money.ts"
import type { BudgetAlert } from "../budgets/BudgetAlert.ts"
import { ProcessGroup } from "../processes/ProcessGroup.ts"

/** What a budget has reached. */
interface Reached {
  readonly latest: BudgetAlert
  readonly percents: ReadonlySet<number>
  /** Whether little was left for requests like the last. */
  readonly isLow: boolean
}

/** The levels of a target. */
export interface BudgetLevel {
  /** How many it has reached; 0 after its period. */
  readonly count: number
  /** One sentence: what is spent of it. */
  readonly words: string
}

/** The limit of a budget now; undefined if it does not exist any more. */
export type LimitOf = (alert: BudgetAlert) => number | undefined

/** Budgets that are kept; beyond it, those that have not reached a level for the longest time are dropped. */
const mostKept = 1_000

/** Between a budget and what it counts together. */
const counterMark = ": "

const keyOf = ({ counter, measure, rule }: BudgetAlert): string => JSON.stringify([rule, counter, measure])

const percentOf = (spent: number, most: number): number => most > 0 ? (100 * spent) / most : 100

const sentence = (measure: BudgetAlert["measure"], spent: number, most: number): string => {
  const amounts = measure === "usd"
    ? `${Money.format(spent)} of ${Money.format(most)} USD`
    : `${spent} of ${most} tokens`
  return `${amounts}, ${Math.floor(percentOf(spent, most))} %`
}

/** The levels that a budget of this limit has reached. */
const levelOf = ({ isLow, latest, percents }: Reached, most: number, now: number): BudgetLevel => {
  const { endsAt = Number.POSITIVE_INFINITY, measure, spent } = latest
  const share = percentOf(spent, most)
  const reached = [...percents].filter((percent) => percent <= share).length + Number(isLow && most <= latest.most)
  return { count: now >= endsAt ? 0 : reached, words: sentence(measure, spent, most) }
}

/** A budget without a level. */
const first = (latest: BudgetAlert): Reached => ({ latest, percents: new Set(), isLow: false })

const withAlert = ({ isLow, latest, percents }: Reached, alert: BudgetAlert): Reached => ({
  // Alerts of other processes can arrive late.
  latest: latest.spent > alert.spent ? latest : alert,
  percents: "percent" in alert.cause ? new Set([...percents, alert.cause.percent]) : percents,
  isLow: isLow || !("percent" in alert.cause)
})

export class BudgetLevels {
  readonly #reached = new Map<string, Reached>()

  raise(alert: BudgetAlert): void {
    const key = keyOf(alert)
    const known = this.#reached.get(key)
    this.#reached.delete(key)
    const before = known?.latest.endsAt === alert.endsAt ? known : undefined
    this.#reached.set(key, withAlert(before ?? first(alert), alert))
    const [oldest] = this.#reached.keys()
    if (this.#reached.size > mostKept && oldest !== undefined) this.#reached.delete(oldest)
  }

  /**
   * The levels of each budget, by the names of targets, such as `key day: key key_1`.
   *
   * @param now ms since 1970
   */
  read(now: number, limitOf: LimitOf): ReadonlyMap<string, BudgetLevel> {
    const levels = new Map<string, BudgetLevel>()
    for (const one of this.#reached.values()) {
      const most = limitOf(one.latest)
      if (most === undefined) continue
      const target = `${one.latest.rule}${counterMark}${one.latest.counter}`
      const level = levelOf(one, most, now)
      const other = levels.get(target)
      levels.set(
        target,
        other === undefined
          ? level
          : { count: other.count + level.count, words: `${other.words}; ${level.words}` }
      )
    }
    return levels
  }
}

/** The levels of the service; default: none is kept. */
export const Levels = Context.Reference<{
  readonly raise: (alert: BudgetAlert) => void
  readonly read: BudgetLevels["read"]
}>("troupe/services/alerts/BudgetLevels", {
  defaultValue: () => ({ raise: () => {}, read: () => new Map() })
})

/** Keeps the levels of all processes. */
export const layer = Layer.effect(
  Levels,
  Effect.map(ProcessGroup, (member) => {
    const levels = new BudgetLevels()
    member?.listen((message) => {
      if (message.type === "news" && message.news.type === "budget") levels.raise(message.news.alert)
    })
    return {
      raise: (alert: BudgetAlert) => {
        levels.raise(alert)
        member?.send({ type: "news", news: { type: "budget", alert } })
      },
      read: (now: number, limitOf: LimitOf) => levels.read(now, limitOf)
    }
  })
)
