/** What is left of budgets, and the keys with their limits. */
import type { BudgetState } from "../../services/budgets/BudgetReport.ts"
import type { VirtualKey } from "../../services/keys/VirtualKey.ts"
import { ago, count, dateTime, percent, unknown, usd } from "../format.ts"
import { usePolled } from "../polled.ts"
import { Badge, Empty, Meter, Table } from "./Basics.tsx"
import type { Tone } from "./Basics.tsx"

const amount = ({ measure }: BudgetState, value: number): string =>
  measure === "usd" ? usd(value) : `${count(value)} tokens`

const toneOf = ({ most, spent }: BudgetState): Tone => spent >= most ? "bad" : spent >= 0.8 * most ? "warn" : "good"

const Spent = ({ budget }: { readonly budget: BudgetState }) => {
  const { most, spent } = budget
  const text = `${amount(budget, spent)} of ${amount(budget, most)}`
  return (
    <>
      <Meter label={`${budget.budget}, ${budget.counter}: ${text}`} value={spent} of={most} tone={toneOf(budget)} />
      {" "}
      {text}
      <small>{percent(most <= 0 ? 1 : spent / most)}</small>
    </>
  )
}

export const Budgets = ({ budgets }: { readonly budgets: ReadonlyArray<BudgetState> }) =>
  budgets.length === 0
    ? (
      <Empty title="No budget has been used">
        Budgets of <code>budgets</code> in troupe.yaml and of keys are listed from their first use on.
      </Empty>
    )
    : (
      <Table
        caption="Budgets"
        columns={[
          {
            head: "Budget",
            cell: ({ budget, counter }) => (
              <>
                {budget}
                <small>{counter}</small>
              </>
            )
          },
          { head: "Spent", cell: (budget) => <Spent budget={budget} /> },
          { head: "Left", cell: (budget) => amount(budget, budget.left), isNumber: true },
          { head: "Period", cell: ({ period }) => period },
          { head: "Resets", cell: ({ resetsAt }) => resetsAt === undefined ? "never" : dateTime(resetsAt) },
          { head: "Mode", cell: ({ mode }) => <Badge text={mode} tone={mode === "enforced" ? "info" : "none"} /> }
        ]}
        rows={budgets}
        keyOf={({ budget, counter, measure, period }) => `${budget} ${counter} ${period} ${measure}`}
      />
    )

const limitsOf = ({ limits = {} }: VirtualKey): string =>
  Object.entries(limits).filter(([, value]) => typeof value === "number").map(([name, value]) =>
    `${name} ${count(value)}`
  )
    .join(", ") || unknown

const standingOf = ({ expiresAt, revokedAt }: VirtualKey): readonly [string, Tone] => {
  if (revokedAt !== undefined) return ["revoked", "bad"]
  return expiresAt !== undefined && expiresAt <= Date.now() ? ["expired", "warn"] : ["valid", "good"]
}

const KeyState = ({ of }: { readonly of: VirtualKey }) => {
  const [text, tone] = standingOf(of)
  return (
    <>
      <Badge text={text} tone={tone} />
      {of.admin === true && (
        <>
          <Badge text="admin" tone="info" />
        </>
      )}
    </>
  )
}

export const Keys = () => {
  const { problem, value } = usePolled<{ readonly keys: ReadonlyArray<VirtualKey> }>("/admin/keys", 15_000)
  if (problem !== undefined) return <p class="problem" role="alert">{problem}</p>
  if (value === undefined) return null
  if (value.keys.length === 0) {
    return (
      <Empty title="No keys">
        <code>troupe keys create NAME</code> makes the first; from then on, every request needs one.
      </Empty>
    )
  }
  return (
    <Table
      caption="Keys"
      columns={[
        {
          head: "Key",
          cell: ({ begins, id, name }) => <>{name ?? id}{begins !== undefined && <small>{begins}</small>}</>
        },
        { head: "State", cell: (key) => <KeyState of={key} /> },
        { head: "Tenant", cell: ({ tenant }) => tenant },
        { head: "Models", cell: ({ models }) => models === undefined ? "all" : models.join(", ") },
        { head: "Limits", cell: limitsOf },
        { head: "Last used", cell: ({ lastUsedAt }) => lastUsedAt === undefined ? unknown : ago(lastUsedAt) }
      ]}
      rows={value.keys}
      keyOf={({ id }) => id}
    />
  )
}
