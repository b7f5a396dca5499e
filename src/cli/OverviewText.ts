/** The live view as text: a head, and a table of the deployments. Pure. */
import type { Overview } from "../layers/http/OverviewSchema.ts"
import type { Figures, WindowName } from "../services/observability/RecentFigures.ts"
import { reasonOf, stateOf } from "./DeploymentText.ts"
import { bytesText, moneyText, percent, spanText, table } from "./Output.ts"

type Deployment = Overview["deployments"][number]

/** What the table can be sorted by, with the key for it. */
export const sorts = {
  name: "n",
  requests: "r",
  failures: "f",
  latency: "l",
  queue: "w",
  memory: "m",
  cost: "c"
} as const
export type Sort = keyof typeof sorts

const windowOf = (figures: ReadonlyArray<Figures>, name: WindowName): Figures | undefined =>
  figures.find(({ window }) => window === name)

const five = ({ figures }: Deployment): Figures | undefined => windowOf(figures, "5m")

/** The highest first; deployments of the same value stay in the order of the configuration. */
const valueOf: Readonly<Record<Exclude<Sort, "name">, (deployment: Deployment) => number>> = {
  requests: (one) => five(one)?.requests ?? 0,
  failures: (one) => five(one)?.failed ?? 0,
  latency: (one) => five(one)?.firstTokenMs.p95 ?? five(one)?.durationMs.p95 ?? 0,
  queue: ({ queued }) => queued,
  memory: ({ memoryBytes }) => memoryBytes,
  cost: ({ figures }) => windowOf(figures, "1h")?.usd ?? 0
}

const sorted = (deployments: ReadonlyArray<Deployment>, sort: Sort): ReadonlyArray<Deployment> => {
  if (sort === "name") return deployments
  const value = valueOf[sort]
  return deployments.toSorted((one, other) => value(other) - value(one))
}

/** As "120 ms / 1.2 s"; empty where nothing was measured. */
const quantiles = ({ p50, p95 }: Figures["firstTokenMs"]): string =>
  p50 === undefined || p95 === undefined ? "" : `${spanText(p50)} / ${spanText(p95)}`

const slotsOf = ({ running, slots }: Deployment): string => slots === undefined ? `${running}` : `${running}/${slots}`

const queueOf = ({ oldestWaitMs, queued }: Deployment): string =>
  queued === 0 || oldestWaitMs === undefined ? `${queued}` : `${queued} (${spanText(oldestWaitMs)})`

const count = (value: number | undefined): string => value === undefined || value === 0 ? "" : String(value)

/** The cells of the last five minutes. */
const recentOf = (recent: Figures): ReadonlyArray<string> => [
  String(recent.requests),
  count(recent.failed),
  quantiles(recent.firstTokenMs),
  quantiles(recent.durationMs),
  recent.tokensPerSecond === undefined ? "" : String(recent.tokensPerSecond)
]

const rowOf = (one: Deployment): ReadonlyArray<string> => {
  const recent = five(one)
  const { unpriced = 0, usd } = windowOf(one.figures, "1h") ?? {}
  return [
    one.deployment,
    stateOf(one),
    slotsOf(one),
    queueOf(one),
    ...(recent === undefined ? ["0", "", "", "", ""] : recentOf(recent)),
    usd === undefined || (usd === 0 && unpriced > 0) ? "" : `${unpriced === 0 ? "" : "≥ "}${moneyText(usd)}`,
    one.memoryBytes === 0 ? "" : bytesText(one.memoryBytes),
    count(one.restarts),
    reasonOf(one)
  ]
}

const heads = [
  "DEPLOYMENT",
  "STATE",
  "SLOTS",
  "QUEUE",
  "5M",
  "FAILED",
  "FIRST TOKEN P50/P95",
  "ANSWER P50/P95",
  "TOKENS/S",
  "COST 1H",
  "MEMORY",
  "RESTARTS",
  "REASON"
]

/** The names of columns in which some deployment has something, so that lines are short. */
const withoutEmpty = (rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<ReadonlyArray<string>> => {
  const isUsed = heads.map((_, column) => rows.some((row) => row[column] !== ""))
  return [heads, ...rows].map((row) => row.filter((_, column) => isUsed[column]))
}

/** A store that is lost, and since when; none for one that answers. */
export const lostText = (
  { problem, since }: NonNullable<Overview["service"]["stores"]>[number]
): ReadonlyArray<string> =>
  problem === undefined
    ? []
    : [since === undefined ? problem : `${problem.replace(/\.$/, "")}, since ${new Date(since).toISOString()}.`]

/** What is known of the whole service, in three lines, and a line for each store that is lost. */
export const head = ({ cache, memory, service }: Overview): ReadonlyArray<string> => {
  const { errorRate, inFlight, processes, requestsPerSecond, status, uptimeSeconds, version } = service
  const failed = errorRate === undefined ? "" : `, ${percent(errorRate)} failed in 5 minutes`
  const hits = Object.values(cache.hits).reduce((sum, hits) => sum + hits, 0)
  const budget = memory.budgetBytes === undefined ? "" : ` of ${bytesText(memory.budgetBytes)}`
  const pressure = memory.pressure === "normal" ? "" : `, pressure ${memory.pressure}`
  return [
    `troupe ${version}: ${status} for ${spanText(uptimeSeconds * 1000)}, ${processes} process${
      processes === 1 ? "" : "es"
    }`,
    `Requests: ${inFlight} running, ${requestsPerSecond} per second${failed}`,
    `Memory: models ${bytesText(memory.grantedBytes)}${budget}, service ${bytesText(memory.processBytes)}, engines ` +
    `${bytesText(memory.engineBytes)}${pressure}. Cache: ${hits} hits, ${cache.misses} misses`,
    ...(service.stores ?? []).flatMap(lostText)
  ]
}

/** The column that a view is sorted by. */
const sortedColumn: Readonly<Record<Sort, string>> = {
  name: "DEPLOYMENT",
  requests: "5M",
  failures: "FAILED",
  latency: "FIRST TOKEN P50/P95",
  queue: "QUEUE",
  memory: "MEMORY",
  cost: "COST 1H"
}

const widthOf = (rows: ReadonlyArray<ReadonlyArray<string>>): number =>
  Math.max(...table(rows).split("\n").map(({ length }) => length))

/** Without the columns at the right that do not fit, but with the first one and the one that the rows are sorted by. */
const fitting = (all: ReadonlyArray<ReadonlyArray<string>>, columns: number, sort: Sort) => {
  let rows = all
  let left = 0
  while (widthOf(rows) > columns) {
    const out = rows[0]!.findLastIndex((name, column) => column > 0 && name !== sortedColumn[sort])
    if (out < 0) break
    rows = rows.map((row) => row.filter((_, column) => column !== out))
    left++
  }
  return { rows, left }
}

/** The whole view. */
export const overviewText = (
  overview: Overview,
  sort: Sort = "name",
  columns = Number.POSITIVE_INFINITY
): string => {
  const { left, rows } = fitting(withoutEmpty(sorted(overview.deployments, sort).map(rowOf)), columns, sort)
  const note = left === 0 ? "" : `(+${left} column${left === 1 ? "" : "s"}: widen)`
  return [...head(overview), note, table(rows)].join("\n")
}

/** The view in a window of this size: further lines, and what is too long in one, are cut. */
export const screenText = (
  overview: Overview,
  { columns, rows, sort }: { readonly columns: number; readonly rows: number; readonly sort: Sort }
): string => {
  const keys = Object.entries(sorts).map(([name, key]) => `${key} ${name}`).join("  ")
  const lines = overviewText(overview, sort, columns).split("\n").slice(0, Math.max(1, rows - 2))
  const blank = Array.from({ length: Math.max(0, rows - 1 - lines.length) }, () => "")
  return [...lines, ...blank, `q quit  sort by: ${keys}  (now ${sort})`]
    .map((line) => line.slice(0, columns)).join("\n")
}
