/** What was used and what it cost, by the ledger, and what is left of budgets and limits. */
import { signal } from "@preact/signals"
import { useMemo } from "preact/hooks"
import type { BudgetState } from "../../services/budgets/BudgetReport.ts"
import type { UsageSum } from "../../services/ledger/Usage.ts"
import { cost, count, usd } from "../format.ts"
import { Empty, Figure, Table, Title } from "../parts/Basics.tsx"
import type { Column } from "../parts/Basics.tsx"
import { Budgets, Keys } from "../parts/Limits.tsx"
import { LostStores } from "../parts/LostStores.tsx"
import { say } from "../parts/Notices.tsx"
import { Plot } from "../parts/Plot.tsx"
import { usePolled } from "../polled.ts"
import { messageOf, request } from "../session.ts"

const groups = {
  model: "Model",
  deployment: "Deployment",
  key: "Key",
  user: "User",
  tenant: "Tenant",
  endpoint: "Endpoint"
} as const
type Group = keyof typeof groups

const ranges = { 1: "Today", 7: "7 days", 30: "30 days", 365: "A year" } as const

const group = signal<Group>("model")
const days = signal(7)

const dayMs = 86_400_000

const dayOf = (at: number): string => new Date(at).toISOString().slice(0, 10)

const fromDay = (): string => dayOf(Date.now() - (days.value - 1) * dayMs)

const nameOf = (sum: UsageSum): string => {
  const name = group.value === "key" || group.value === "user" ? sum.keyName ?? sum[group.value] : sum[group.value]
  return name === undefined || name === "" ? "(none)" : name
}

/** Attempts without a known price are not in the cost. */
const Cost = ({ sum }: { readonly sum: UsageSum }) =>
  sum.unpriced === sum.attempts
    ? <>{cost(undefined)}</>
    : (
      <>
        {cost(sum.costUsd, sum.unpriced)}
        {sum.unpriced > 0 && <small>{count(sum.unpriced)} attempts without a price</small>}
      </>
    )

const tokens = (head: string, of: (sum: UsageSum) => number): Column<UsageSum> => ({
  head,
  cell: (sum) => count(of(sum)),
  isNumber: true
})

const columns = (): ReadonlyArray<Column<UsageSum>> => [
  { head: groups[group.value], cell: nameOf },
  { head: "Cost", cell: (sum) => <Cost sum={sum} />, isNumber: true },
  tokens("Attempts", ({ attempts }) => attempts),
  tokens("Prompt tokens", ({ promptTokens }) => promptTokens),
  tokens("of them cached", ({ cachedTokens }) => cachedTokens),
  tokens("Tokens written", ({ completionTokens }) => completionTokens),
  tokens("of them reasoning", ({ reasoningTokens }) => reasoningTokens)
]

interface Usage {
  readonly usage: ReadonlyArray<UsageSum>
}

const total = (usage: ReadonlyArray<UsageSum>, of: (sum: UsageSum) => number): number =>
  usage.reduce((sum, one) => sum + of(one), 0)

const Totals = ({ usage }: Usage) => {
  const unpriced = total(usage, (one) => one.unpriced)
  const attempts = total(usage, (one) => one.attempts)
  return (
    <dl class="figures">
      <Figure
        label="Cost"
        value={cost(total(usage, (one) => one.costUsd), unpriced)}
        hint={unpriced === 0 ? undefined : `${count(unpriced)} attempts without a price`}
      />
      <Figure label="Attempts" value={count(attempts)} />
      <Figure label="Prompt tokens" value={count(total(usage, (one) => one.promptTokens))} />
      <Figure label="Tokens written" value={count(total(usage, (one) => one.completionTokens))} />
    </dl>
  )
}

const CostPlot = ({ usage }: Usage) => {
  const { series, times } = useMemo(() => {
    const list = Array.from({ length: days.value }, (_, index) => dayOf(Date.now() - (days.value - 1 - index) * dayMs))
    const spent = new Map(usage.map((one) => [one.day, one.costUsd]))
    const values = list.map((day) => spent.get(day) ?? 0)
    // Each step is as wide as its day, the last one as well.
    const times = [...list.map((day) => Date.parse(day)), Date.parse(list.at(-1)!) + dayMs]
    return {
      times: times.map((at) => at / 1_000),
      series: [{ label: "Cost a day", color: "line-3", values: [...values, values.at(-1)!], isStepped: true }]
    }
  }, [usage, days.value])
  if (days.value < 2) return null
  return (
    <section class="card">
      <Plot label="Cost by day (UTC)" times={times} series={series} format={usd} height={140} />
    </section>
  )
}

/** Saves the sums as CSV: a link could not send the key. */
const save = async (): Promise<void> => {
  try {
    const response = await request(`/admin/usage?by=day,${group.value}&from=${fromDay()}&format=csv`, {
      accept: "text/csv"
    })
    const url = URL.createObjectURL(await response.blob())
    const link = document.createElement("a")
    link.href = url
    link.download = `usage-${group.value}-${fromDay()}.csv`
    link.click()
    setTimeout(() => URL.revokeObjectURL(url), 10_000)
  } catch (error) {
    say("bad", messageOf(error))
  }
}

const Choices = () => (
  <>
    <label>
      <span class="visually-hidden">Time</span>
      <select value={days.value} onChange={(event) => (days.value = Number(event.currentTarget.value))}>
        {Object.entries(ranges).map(([value, label]) => <option key={value} value={value}>{label}</option>)}
      </select>
    </label>
    <label>
      <span class="visually-hidden">Grouped by</span>
      <select value={group.value} onChange={(event) => (group.value = event.currentTarget.value as Group)}>
        {Object.entries(groups).map(([value, label]) => (
          <option key={value} value={value}>by {label.toLowerCase()}</option>
        ))}
      </select>
    </label>
    <button type="button" onClick={() => void save()}>Save as CSV</button>
  </>
)

const Used = () => {
  const { problem, value } = usePolled<Usage>(`/admin/usage?by=${group.value}&from=${fromDay()}`, 10_000)
  const byDay = usePolled<Usage>(`/admin/usage?by=day&from=${fromDay()}`, 10_000)
  const failed = problem === undefined ? null : <p class="problem" role="alert">{problem}</p>
  if (value === undefined) return failed ?? <p class="muted">Reading the ledger…</p>
  if (problem === undefined && value.usage.length === 0) {
    return (
      <Empty title="Nothing was used in this time">
        Every attempt that uses tokens is entered here, with its cost where the price of its deployment is known:{" "}
        <code>price</code> in troupe.yaml.
      </Empty>
    )
  }
  const sorted = value.usage.toSorted((one, other) => other.costUsd - one.costUsd || other.attempts - one.attempts)
  return (
    <>
      {failed}
      {failed !== null && <p class="muted">These figures are those that were read last.</p>}
      <Totals usage={value.usage} />
      <Table caption="What was used" columns={columns()} rows={sorted} keyOf={(sum) => sum[group.value] ?? ""} />
      <CostPlot usage={byDay.value?.usage ?? []} />
    </>
  )
}

export const Costs = () => {
  const budgets = usePolled<{ readonly budgets: ReadonlyArray<BudgetState> }>("/admin/budgets", 10_000)
  return (
    <>
      <Title text="Costs and limits">
        <Choices />
      </Title>
      <LostStores about="costs" />
      <Used />
      <h2>Budgets</h2>
      {budgets.problem !== undefined && <p class="problem" role="alert">{budgets.problem}</p>}
      {budgets.value !== undefined && <Budgets budgets={budgets.value.budgets} />}
      <h2>Keys</h2>
      <Keys />
    </>
  )
}
