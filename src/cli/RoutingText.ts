/** Routing in words and tables for a terminal of 80 columns. Pure. */
import type { Decision, Record as DecisionRecord } from "../services/routing/DecisionRecord.ts"
import type { Explanation, Plan } from "../services/routing/Explanation.ts"
import { table } from "./Shared.ts"

const columns = 80

/** In lines that fit, which begin as given; a word that is longer than a line has one of its own. */
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

/** As few digits as tell two scores apart. */
const figure = (value: number): string => String(Number(value.toPrecision(4)))

/** A time for people. */
const span = (ms: number): string => ms < 1_000 ? `${Math.round(ms)} ms` : `${figure(ms / 1_000)} s`

const names = (all: ReadonlyArray<string>): string => all.join(", ")

const mostNamed = 8

/** The first of them, and how many there are besides. */
const few = (all: ReadonlyArray<string>): string =>
  all.length <= mostNamed
    ? names(all)
    : `${names(all.slice(0, mostNamed))} and ${all.length - mostNamed} more`

/** A line for each group, its names wrapped under it. */
const groups = (heading: string, all: ReadonlyMap<string, ReadonlyArray<string>>): ReadonlyArray<string> =>
  all.size === 0
    ? []
    : ["", heading, ...[...all].flatMap(([why, some]) => [wrap(`${why}:`, "  "), wrap(few(some), "    ")])]

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
  const { candidates, explored, spilled = [], strategy, viable } = decision
  if (candidates.length === 0) return []
  const all = viable === candidates.length ? "All that" : `The first ${candidates.length} of ${viable} that`
  const left = candidates.length - mostRows
  return [
    "",
    wrap(`${all} can take the request, by ${strategy}; a higher score is better.`),
    table(candidateRows(decision).slice(0, mostRows + 1)),
    ...(left > 0 ? [`and ${left} more, which --json lists`] : []),
    ...(explored === true ? [wrap("The first goes first because nothing is known of it yet.")] : []),
    ...(spilled.length === 0
      ? []
      : [wrap(`Behind the others, since they load or their queue is full: ${few(spilled)}`, "", "  ")])
  ]
}

/** Why it was decided so. */
const reasons = (decision: Decision): ReadonlyArray<string> => [
  ...candidates(decision),
  ...groups(
    "Not known, and taken as neutral",
    groupBy(decision.candidates, ({ unknown }) => unknown, ({ deployment }) => deployment)
  ),
  ...groups("Ruled out", groupBy(decision.ruledOut, ({ why }) => [why], ({ deployment }) => deployment)),
  ...(decision.ruledOutCount === undefined || decision.ruledOutCount <= decision.ruledOut.length
    ? []
    : [`and ${decision.ruledOutCount - decision.ruledOut.length} more ruled out`])
]

type Lists = Plan["lists"]

const others = ({ content, context }: Lists): ReadonlyArray<readonly [string, string]> => [
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
  return set.length === 0 ? "none but those of the deployments" : names(set)
}

const hedge = ({ hedge }: Plan): string => {
  if (hedge === undefined) return "none"
  const after = hedge.afterMs === undefined ? "once first tokens have been measured" : `after ${span(hedge.afterMs)}`
  return `${after}, for ${figure(hedge.share * 100)} % of requests at most`
}

const plan = (told: Plan): ReadonlyArray<string> => {
  const { backoff, lists, maxAttempts, maxWaitMs, retries, shorterBy } = told
  const rows = [
    ["order", few(lists.ordinary) || "nobody"],
    ...others(lists),
    ["attempts", `${maxAttempts} at most, at one deployment ${retries + 1}`],
    ["pauses", `${span(backoff.initialMs)}, times ${backoff.factor} each, up to ${span(backoff.capMs)}`],
    ["waits", `up to ${span(maxWaitMs)} where nobody else is free`],
    ["time-outs", timeouts(told)],
    ["hedge", hedge(told)],
    ["shorter", `${figure(shorterBy * 100)} % of maxTokens, where prompt and answer do not fit`]
  ] as const
  return ["", "The plan", ...rows.map(([what, text]) => wrap(text, `  ${what.padEnd(9)}  `, " ".repeat(13)))]
}

const answer = ({ decision, model, plan: { lists }, policy }: Explanation): ReadonlyArray<string> => {
  const [first, ...rest] = lists.ordinary
  const by = `by ${decision.strategy} (policy ${policy})`
  if (first === undefined) {
    const { retryAfterMs } = decision
    const wait = retryAfterMs === undefined ? "" : ` The first may be asked again in ${span(retryAfterMs)}.`
    return [wrap(`Nobody can answer this request for ${model}, ${by}.${wait}`)]
  }
  return [
    wrap(`${first} would answer this request for ${model}, ${by}.`),
    ...(rest.length === 0 ? [] : [wrap(`If that fails: ${few(rest)}`, "", "  ")]),
    ...(lists.context.length === 0 ? [] : [wrap(`If the prompt is too long: ${few(lists.context)}`, "", "  ")]),
    ...(lists.content.length === 0 ? [] : [wrap(`If its content is refused: ${few(lists.content)}`, "", "  ")])
  ]
}

/** Who would answer; with everything else, why and by which plan. */
export const explained = (told: Explanation, everything: boolean): string => {
  const isNobody = told.plan.lists.ordinary.length === 0
  return [
    ...answer(told),
    ...(everything || isNobody ? reasons(told.decision) : []),
    ...(everything ? plan(told.plan) : [])
  ].join("\n")
}

const ends = { success: "answered", failure: "failed", interruption: "left" } as const

const endOf = ({ end }: DecisionRecord): string => end === undefined ? "running" : ends[end]

const took = (ms: number | undefined): string => ms === undefined ? "" : span(ms)

const timeOf = (at: number): string => `${new Date(at).toISOString().slice(0, 19)}Z`

/** One line a request. */
export const recorded = (records: ReadonlyArray<DecisionRecord>): string =>
  table([
    ["ID", "TIME", "MODEL", "BY", "TRIES", "TOOK", "END"],
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
  const rows = attempts.map(({ deployment, firstTokenMs, hedge, outcome, startedMs, tookMs }) => [
    deployment,
    `${span(startedMs)}${hedge === true ? ", hedge" : ""}`,
    took(firstTokenMs),
    took(tookMs),
    outcome
  ])
  const failures = attempts.flatMap(({ deployment, error }) =>
    error === undefined ? [] : [wrap(`${deployment}: ${error.reason}: ${error.message}`, "  ", "    ")]
  )
  return [
    "",
    ...(rows.length === 0
      ? ["No attempt was made."]
      : [table([["DEPLOYMENT", "BEGAN AFTER", "FIRST TOKEN", "TOOK", "OUTCOME"], ...rows])]),
    ...(failures.length === 0 ? [] : ["", "What went wrong", ...failures])
  ]
}

/** What became of it. */
const outcome = ({ answeredBy, end, tookMs }: DecisionRecord): string => {
  if (tookMs === undefined || end === undefined) return "It runs."
  const by = answeredBy === undefined ? "" : ` by ${answeredBy}`
  const what = { success: `It was answered${by}`, failure: "It failed", interruption: "Its caller left" }
  return `${what[end]}, after ${span(tookMs)}.`
}

/** One request with its attempts, and why it went as it did. */
export const record = (one: DecisionRecord): string => {
  const { at, decision, fallbacks, id, model, operation, policy } = one
  return [
    wrap(`${id}: ${operation} for ${model} at ${timeOf(at)}, by ${decision.strategy} (policy ${policy}).`),
    wrap(outcome(one)),
    ...attempts(one),
    ...reasons(decision),
    ...groups(
      "Who stands in",
      new Map(
        ([["for whatever fails", fallbacks.ordinary], ["for prompts that are too long", fallbacks.context], [
          "for content that is refused",
          fallbacks.content
        ]] as const).filter(([, some]) => some.length > 0)
      )
    )
  ].join("\n")
}
