/** Sends a request again, and shows its record beside the new one. */
import { useSignal } from "@preact/signals"
import type { DecisionDetail, Replay as Result } from "../../layers/http/AdminSchema.ts"
import type { Record as Decision } from "../../services/routing/DecisionRecord.ts"
import { firstTokenOf } from "../explain.ts"
import { cost, count, duration, unknown } from "../format.ts"
import { hrefOf } from "../route.ts"
import { ask } from "../session.ts"
import { Table } from "./Basics.tsx"
import { attempt } from "./Notices.tsx"
import { readOnlyTitle } from "./ReadOnly.tsx"

const rowOf = (record: Decision, name: string) => ({ record, name })

const Comparison = ({ after, before }: { readonly before: Decision; readonly after: Decision }) => (
  <Table
    caption="The request, and the one that repeats it"
    columns={[
      { head: "Request", cell: ({ name, record }) => <a href={hrefOf("requests", record.id)}>{name}</a> },
      { head: "Result", cell: ({ record }) => record.end ?? "running" },
      { head: "Deployment", cell: ({ record }) => record.answeredBy ?? unknown },
      { head: "Attempts", cell: ({ record }) => count(record.attempts.length), isNumber: true },
      { head: "Total", cell: ({ record }) => duration(record.tookMs), isNumber: true },
      { head: "First token", cell: ({ record }) => duration(firstTokenOf(record)), isNumber: true },
      { head: "Tokens", cell: ({ record }) => count(record.outputTokens), isNumber: true },
      { head: "Cost", cell: ({ record }) => cost(record.usd, record.unpriced), isNumber: true }
    ]}
    rows={[rowOf(before, "Before"), rowOf(after, "Again")]}
    keyOf={({ record }) => record.id}
  />
)

/** The request that was sent again. */
const Repeated = ({ before, result }: { readonly before: Decision; readonly result: Result }) => (
  <>
    {result.decision !== undefined && <Comparison before={before} after={result.decision} />}
    <details>
      <summary>Answer, status {result.status}</summary>
      <pre tabIndex={0}>{JSON.stringify(result.answer, undefined, 2)}</pre>
    </details>
  </>
)

/** Why a request cannot be sent again here; undefined where it can. */
const problemOf = ({ replay }: DecisionDetail): string | undefined =>
  readOnlyTitle() ?? (replay?.possible === false ? replay.reason : undefined)

export const Replay = ({ record }: { readonly record: DecisionDetail }) => {
  const result = useSignal<Result | undefined>(undefined)
  const isRunning = useSignal(false)
  const replay = async () => {
    isRunning.value = true
    const path = `/admin/decisions/${encodeURIComponent(record.id)}/replay`
    result.value = await attempt(() => ask<Result>(path, { method: "POST" }), `Sent ${record.id} again.`)
    isRunning.value = false
  }
  const found = result.value
  const problem = problemOf(record)
  return (
    <section>
      <h3>Again</h3>
      <div class="tools">
        <button
          type="button"
          disabled={problem !== undefined || isRunning.value}
          aria-describedby={problem === undefined ? undefined : "replay-problem"}
          onClick={() => void replay()}
        >
          {isRunning.value ? "Waiting for the answer" : "Replay this request"}
        </button>
        {record.replayOf !== undefined && (
          <span>
            This request repeats <a href={hrefOf("requests", record.replayOf)}>{record.replayOf}</a>.
          </span>
        )}
      </div>
      {problem !== undefined && <p id="replay-problem" class="muted">{problem}</p>}
      {found !== undefined && <Repeated before={record} result={found} />}
    </section>
  )
}
