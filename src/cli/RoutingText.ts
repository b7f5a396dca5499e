/** Decisions and explanations of the router as text of 80 columns. Pure. */
import { durationText } from "../domain/Fields.ts"
import type { Decision, Record as DecisionRecord } from "../services/routing/DecisionRecord.ts"
import type { Explanation, Plan } from "../services/routing/Explanation.ts"
import { moneyText, table } from "./Output.ts"
import { longestPart } from "./RecordTimes.ts"

const columns = 80

/** Wraps text to lines with the given prefixes; a word that is longer than a line gets a line of its own. */
const wrap = (text: string, first = "", others = first): string => {
  const lines: Array<string> = []
  let line = first
  let isBegun = false
  for (const word of text.split(" ")) {
    if (isBegun && line.length + 1 + word.length > columns) {
      lines.push(line)
      line = others
      isBegun = false
    }
    line += isBegun ? ` ${word}` : word
    isBegun = true
  }
  return [...lines, line].join("\n")
}

/** At most four significant digits. */
const figure = (value: number): string => String(Number(value.toPrecision(4)))

/** A duration in a readable unit. */
const span = (ms: number): string =>
  ms >= 60_000 ? durationText(ms) : ms < 1_000 ? `${Math.round(ms)} ms` : `${figure(ms / 1_000)} s`

const names = (all: ReadonlyArray<string>): string => all.join(", ")

const mostNamed = 8

/** The first names, and the number of the others. */
const few = (all: ReadonlyArray<string>): string =>
  all.length <= mostNamed
    ? names(all)
    : `${names(all.slice(0, mostNamed))} and ${all.length - mostNamed} more`

/** A line for each group, its names wrapped under it. */
const groups = (heading: string, all: ReadonlyMap<string, ReadonlyArray<string>>): ReadonlyArray<string> =>
  all.size === 0
    ? []
    : ["", heading, ...[...all].flatMap(([reason, some]) => [wrap(`${reason}:`, "  "), wrap(few(some), "    ")])]

const groupBy = <A>(all: ReadonlyArray<A>, keysOf: (one: A) => ReadonlyArray<string>, nameOf: (one: A) => string) => {
  const found = new Map<string, Array<string>>()
  for (const one of all) {
    for (const key of keysOf(one)) found.set(key, [...found.get(key) ?? [], nameOf(one)])
  }
  return found
}

const mostRows = 20

const candidateRows = ({ candidates }: Decision): ReadonlyArray<ReadonlyArray<string>> => {
  const terms = [...new Set(candidates.flatMap(({ terms }) => Object.keys(terms)))]
  return [
    ["DEPLOYMENT", "SCORE", ...terms.map((term) => term.toUpperCase())],
    ...candidates.map((one) => [
      one.deployment,
      figure(one.score),
      ...terms.map((term) => one.terms[term] === undefined ? "" : figure(one.terms[term]))
    ])
  ]
}

const candidates = (decision: Decision): ReadonlyArray<string> => {
  const { candidates, explored, spilled = [], strategy, eligible } = decision
  if (candidates.length === 0) return []
  const all = eligible === candidates.length
    ? "All eligible deployments"
    : `The best ${candidates.length} of ${eligible} eligible deployments`
  const left = candidates.length - mostRows
  return [
    "",
    wrap(`${all} by strategy ${strategy}; higher scores are better.`),
    table(candidateRows(decision).slice(0, mostRows + 1)),
    ...(left > 0 ? [`and ${left} more (use --json to list all)`] : []),
    ...(explored === true
      ? [wrap("Exploration: the first deployment is tried because it has no measurements yet.")]
      : []),
    ...(spilled.length === 0
      ? []
      : [wrap(`Moved to the end (loading, or queue full): ${few(spilled)}`, "", "  ")])
  ]
}

/** The reasons of a decision. */
const reasons = (decision: Decision): ReadonlyArray<string> => [
  ...candidates(decision),
  ...groups(
    "Unknown values (no deployment is excluded for them)",
    groupBy(decision.candidates, ({ unknown }) => unknown, ({ deployment }) => deployment)
  ),
  ...groups("Excluded", groupBy(decision.excluded, ({ reason }) => [reason], ({ deployment }) => deployment)),
  ...(decision.excludedCount === undefined || decision.excludedCount <= decision.excluded.length
    ? []
    : [`and ${decision.excludedCount - decision.excluded.length} more excluded`])
]

const cooldowns = ({ cooldowns = [] }: Explanation): ReadonlyArray<string> =>
  groups(
    "Keys that wait",
    groupBy(
      cooldowns,
      ({ retryAfterMs }) => [`the provider limited or rejected all keys; retry in ${span(retryAfterMs)}`],
      ({ deployment }) => deployment
    )
  )

type Lists = Plan["lists"]

const others = ({ content, context, held = [] }: Lists): ReadonlyArray<readonly [string, string]> => [
  ...(held.length === 0 ? [] : [["held", `${few(held)}, once the circuit lets a call through`] as const]),
  ...(context.length === 0 ? [] : [["too long", few(context)] as const]),
  ...(content.length === 0 ? [] : [["refused", few(content)] as const])
]

const timeouts = ({ timeouts: { firstTokenMs, loadMs, queueMs, stallMs, totalMs } }: Plan): string => {
  const known = [
    ["queue", queueMs],
    ["load", loadMs],
    ["first token", firstTokenMs],
    ["stall", stallMs],
    ["total", totalMs]
  ] as const
  const set = known.flatMap(([what, ms]) => ms === undefined ? [] : [`${what} ${span(ms)}`])
  return set.length === 0 ? "only those of the deployments" : names(set)
}

const hedge = ({ hedge }: Plan): string => {
  if (hedge === undefined) return "none"
  const after = hedge.afterMs === undefined
    ? "once time to first token has been measured"
    : `after ${span(hedge.afterMs)}`
  return `${after}, for at most ${figure(hedge.share * 100)} % of requests`
}

const plan = (attemptPlan: Plan): ReadonlyArray<string> => {
  const { backoff, lists, maxAttempts, maxWaitMs, retries, shorterBy } = attemptPlan
  const rows = [
    ["order", few(lists.ordinary) || "no deployment"],
    ...others(lists),
    ["attempts", `at most ${maxAttempts}, ${retries + 1} per deployment`],
    [
      "backoff",
      `${span(backoff.initialMs)}, then ${backoff.factor} times as long after each retry, at most ${
        span(backoff.capMs)
      }`
    ],
    ["max wait", `${span(maxWaitMs)} when no other deployment is available`],
    ["timeouts", timeouts(attemptPlan)],
    ["hedge", hedge(attemptPlan)],
    ["shorter", `if prompt and answer do not fit, maxTokens is reduced to ${figure(shorterBy * 100)} %`]
  ] as const
  return ["", "Attempt plan", ...rows.map(([what, text]) => wrap(text, `  ${what.padEnd(9)}  `, " ".repeat(13)))]
}

/** The first wait that ends, ms: of a circuit or of keys. */
const waitOf = ({ cooldowns = [], decision, plan }: Explanation): number | undefined => {
  const keys = cooldowns.filter(({ deployment }) => plan.lists.ordinary.includes(deployment))
  const waits = [...keys, decision].flatMap(({ retryAfterMs }) => retryAfterMs ?? [])
  return waits.length === 0 ? undefined : Math.min(...waits)
}

const withheld = ({ fallbacksUnused }: Decision): ReadonlyArray<string> =>
  fallbacksUnused === undefined ? [] : [wrap(`Configured fallbacks are not used: ${fallbacksUnused}`, "", "  ")]

/** An attempt at a deployment whose keys all wait fails at once, without a call. */
const answer = (explanation: Explanation): ReadonlyArray<string> => {
  const { cooldowns = [], decision, model, plan: { lists }, policy } = explanation
  const waits = (id: string) => cooldowns.some(({ deployment }) => deployment === id)
  const waiting = lists.ordinary.filter(waits)
  const [first, ...rest] = lists.ordinary.filter((id) => !waits(id))
  const by = `strategy ${decision.strategy}, policy ${policy}`
  const keysWait = waiting.length === 0 ? [] : [wrap(`All provider keys wait: ${few(waiting)}`, "", "  ")]
  if (first === undefined) {
    const retryAfterMs = waitOf(explanation)
    const wait = retryAfterMs === undefined ? "" : ` Retry in ${span(retryAfterMs)}.`
    return [
      wrap(`No deployment can answer this request for ${model} (${by}).${wait}`),
      ...withheld(decision),
      ...keysWait
    ]
  }
  return [
    wrap(`${first} would answer for ${model} (${by}).`),
    ...(rest.length === 0 ? [] : [wrap(`Fallbacks: ${few(rest)}`, "", "  ")]),
    ...withheld(decision),
    ...keysWait,
    ...(lists.context.length === 0 ? [] : [wrap(`If the prompt is too long: ${few(lists.context)}`, "", "  ")]),
    ...(lists.content.length === 0 ? [] : [wrap(`If the content is refused: ${few(lists.content)}`, "", "  ")])
  ]
}

/** Which deployment would answer; with `everything`, also the reasons and the attempt plan. */
export const explained = (explanation: Explanation, everything: boolean): string => {
  const isEmpty = explanation.plan.lists.ordinary.length === 0
  return [
    ...answer(explanation),
    ...(everything || isEmpty ? reasons(explanation.decision) : []),
    ...(everything ? cooldowns(explanation) : []),
    ...(everything ? plan(explanation.plan) : [])
  ].join("\n")
}

const ends = { success: "answered", failure: "failed", interruption: "canceled" } as const

const endOf = ({ end, refused }: DecisionRecord): string => {
  if (refused === true) return "refused"
  return end === undefined ? "running" : ends[end]
}

const took = (ms: number | undefined): string => ms === undefined ? "" : span(ms)

const timeOf = (at: number): string => `${new Date(at).toISOString().slice(0, 19)}Z`

/** A table with one row for each request. */
export const recordTable = (records: ReadonlyArray<DecisionRecord>): string =>
  table([
    ["ID", "TIME", "MODEL", "ANSWERED BY", "ATTEMPTS", "DURATION", "RESULT"],
    ...records.map((one) => [
      one.id,
      timeOf(one.at).slice(11),
      one.model,
      one.answeredBy ?? "",
      String(one.attempts.length),
      took(one.tookMs),
      endOf(one)
    ])
  ])

const attempts = ({ attempts }: DecisionRecord): ReadonlyArray<string> => {
  const rows = attempts.map(({ deployment, firstTokenMs, grantedMs, hedge, outcome, startedMs, tookMs }) => [
    deployment,
    `${span(startedMs)}${hedge === true ? ", hedge" : ""}`,
    took(grantedMs),
    took(firstTokenMs),
    took(tookMs),
    outcome
  ])
  const failures = attempts.flatMap(({ deployment, error }) =>
    error === undefined ? [] : [wrap(`${deployment}: ${error.reason}: ${error.message}`, "  ", "    ")]
  )
  const dropped = attempts.flatMap(({ deployment, reasoningDropped }) =>
    reasoningDropped === true ? [wrap(`${deployment} did not get signed reasoning that another host has made.`)] : []
  )
  return [
    "",
    ...(rows.length === 0
      ? ["No attempts."]
      : [table([["DEPLOYMENT", "STARTED AFTER", "SLOT", "FIRST TOKEN", "DURATION", "OUTCOME"], ...rows])]),
    ...(failures.length === 0 ? [] : ["", "Errors", ...failures]),
    ...(dropped.length === 0 ? [] : ["", ...dropped])
  ]
}

/** A store that did not answer. */
const unavailable = ({ makersUnavailable }: DecisionRecord): ReadonlyArray<string> =>
  makersUnavailable === true
    ? [wrap("The store of the makers of signed reasoning did not answer: that of some reasoning is unknown.")]
    : []

/** The result of a request. */
const outcome = ({ answeredBy, decision: { strategy }, end, policy, tookMs }: DecisionRecord): string => {
  if (tookMs === undefined || end === undefined) return `Still running. Strategy ${strategy}, policy ${policy}.`
  const by = answeredBy === undefined ? "" : ` by ${answeredBy}`
  const what = { success: `Answered${by}`, failure: "Failed", interruption: "Cancelled by the caller" }
  return `${what[end]} after ${span(tookMs)}. Strategy ${strategy}, policy ${policy}.`
}

/** How long the request has waited for its limits and budgets, if it has. */
const admissionText = ({ admissionMs }: DecisionRecord): ReadonlyArray<string> =>
  admissionMs === undefined ? [] : [wrap(`Waiting for limits and budgets: ${span(admissionMs)}.`)]

const checkText = ({ check }: DecisionRecord): ReadonlyArray<string> =>
  check === undefined
    ? []
    : [`Sent by Troupe itself: ${check === "health" ? "a health check" : "a probe of a rollout"}.`]

/** A request that no deployment was considered for. */
const refusedText = (one: DecisionRecord): string => {
  const { at, error, id, model, operation } = one
  return [
    wrap(`${id}: ${operation} for ${model} at ${timeOf(at)}.`),
    wrap(`Refused before it was routed${error === undefined ? "" : `: ${error.reason}: ${error.message}`}`),
    ...admissionText(one),
    ...checkText(one),
    ...origin(one)
  ].join("\n")
}

const costText = ({ unpriced = 0, usd }: DecisionRecord): string => {
  if (usd === undefined) return "Cost unknown: its deployments have no price."
  if (unpriced === 0) return `Cost: ${moneyText(usd)}.`
  return `Cost: at least ${moneyText(usd)} (${unpriced} attempt${unpriced === 1 ? "" : "s"} without a known cost).`
}

/** Tokens and cost, and where the time went. */
const figures = (one: DecisionRecord): ReadonlyArray<string> => {
  const { inputTokens, outputTokens, tookMs } = one
  const tokens = outputTokens === undefined
    ? ""
    : `${inputTokens === undefined ? "" : `${inputTokens} input and `}${outputTokens} output token${
      outputTokens === 1 ? "" : "s"
    }. `
  const longest = tookMs === undefined ? undefined : longestPart(one)
  return [
    ...(tookMs === undefined ? [] : [wrap(`${tokens}${costText(one)}`)]),
    ...(longest === undefined || longest.ms <= 0 ? [] : [wrap(`Longest part: ${span(longest.ms)} ${longest.what}.`)])
  ]
}

/** Where the request comes from. */
const origin = ({ dialect, key, requestId, tenant }: DecisionRecord): ReadonlyArray<string> => {
  const parts = [
    requestId === undefined ? "" : `request ${requestId}`,
    dialect === undefined ? "" : `dialect ${dialect}`,
    key === undefined ? "" : `key ${key}`,
    tenant === undefined || tenant === key ? "" : `tenant ${tenant}`
  ].filter((part) => part !== "")
  return parts.length === 0 ? [] : [wrap(`Caller: ${parts.join(", ")}.`)]
}

/** One request with its attempts and the reasons of its decision. */
export const recordText = (one: DecisionRecord): string => {
  if (one.refused === true) return refusedText(one)
  const { at, decision, fallbacks, id, model, operation } = one
  return [
    wrap(`${id}: ${operation} for ${model} at ${timeOf(at)}.`),
    wrap(outcome(one)),
    ...figures(one),
    ...admissionText(one),
    ...checkText(one),
    ...origin(one),
    ...unavailable(one),
    ...attempts(one),
    ...reasons(decision),
    ...withheld(decision),
    ...groups(
      "Fallbacks",
      new Map(
        ([["after any failure", fallbacks.ordinary], ["when the prompt is too long", fallbacks.context], [
          "when the content is refused",
          fallbacks.content
        ]] as const).filter(([, some]) => some.length > 0)
      )
    )
  ].join("\n")
}
