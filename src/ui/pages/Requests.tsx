/** The latest requests, and how one of them was routed. */
import { useComputed, useSignal } from "@preact/signals"
import { useRef } from "preact/hooks"
import type { DecisionSummary } from "../../services/routing/DecisionSummary.ts"
import { count, duration, exactUsd, shortUsd, time, unknown } from "../format.ts"
import { lostRequests, mostRows, rowChanges, rows } from "../live.ts"
import { Badge, Empty, Title } from "../parts/Basics.tsx"
import type { ListColumn } from "../parts/VirtualList.tsx"
import { VirtualList } from "../parts/VirtualList.tsx"
import { hrefOf, route } from "../route.ts"
import { RequestDetail } from "./RequestDetail.tsx"

const columns: ReadonlyArray<ListColumn<DecisionSummary>> = [
  {
    head: "Time",
    className: "time",
    cell: ({ at, id, model }) => (
      <a href={hrefOf("requests", id)} aria-label={`${time(at)}, ${model}: show the request`}>{time(at)}</a>
    )
  },
  {
    head: "Result",
    className: "result",
    cell: ({ cache, status }) => <Badge text={cache === undefined ? status : "cache"} />
  },
  { head: "Model", className: "wide", cell: ({ model }) => model },
  { head: "Deployment", className: "wide second", cell: ({ deployment }) => deployment ?? unknown },
  { head: "Failed at", className: "wide second problem", cell: ({ failed }) => [...new Set(failed)].join(", ") },
  { head: "Tries", className: "short number", cell: ({ attempts }) => count(attempts) },
  { head: "First token", className: "number second", cell: ({ firstTokenMs }) => duration(firstTokenMs) },
  { head: "Total", className: "number", cell: ({ tookMs }) => duration(tookMs) },
  {
    head: "Tokens",
    className: "number middle second",
    cell: ({ inputTokens, outputTokens }) =>
      inputTokens === undefined && outputTokens === undefined
        ? unknown
        : `${count(inputTokens)} + ${count(outputTokens)}`
  },
  { head: "Cost", className: "number second", cell: ({ usd }) => <span title={exactUsd(usd)}>{shortUsd(usd)}</span> },
  { head: "Key", className: "middle second", cell: ({ key }) => key ?? unknown }
]

const textOf = ({ deployment, error, failed, id, key, model, requestId, status, tenant }: DecisionSummary): string =>
  [id, requestId, model, deployment, status, key, tenant, error?.reason, ...failed].join(" ").toLowerCase()

/** The newest first. */
const useRows = () => {
  const text = useSignal("")
  const onlyFailed = useSignal(false)
  const isPaused = useSignal(false)
  const latest = useRef<ReadonlyArray<DecisionSummary>>([])
  const shown = useComputed(() => {
    if (isPaused.value) return latest.current
    void rowChanges.value
    const words = text.value.toLowerCase().split(/\s+/).filter((word) => word !== "")
    const isWanted = (row: DecisionSummary) => {
      if (onlyFailed.value && row.status === "success" && row.failed.length === 0) return false
      if (words.length === 0) return true
      const all = textOf(row)
      return words.every((word) => all.includes(word))
    }
    latest.current = rows.filter(isWanted).toReversed()
    return latest.current
  })
  return { text, onlyFailed, isPaused, shown }
}

type Choices = ReturnType<typeof useRows>

const Tools = ({ choices: { isPaused, onlyFailed, shown, text } }: { readonly choices: Choices }) => (
  <div class="tools">
    <input
      type="search"
      aria-label="Filter by model, deployment, result, key or id"
      placeholder="Filter: model, deployment, result, key, id"
      value={text.value}
      onInput={(event) => (text.value = event.currentTarget.value)}
    />
    <label>
      <input
        type="checkbox"
        checked={onlyFailed.value}
        onChange={(event) => (onlyFailed.value = event.currentTarget.checked)}
      />{" "}
      With failures only
    </label>
    <button type="button" aria-pressed={isPaused.value} onClick={() => (isPaused.value = !isPaused.value)}>
      {isPaused.value ? "Resume" : "Pause"}
    </button>
    <span class="muted">
      {count(shown.value.length)} of the last {count(Math.min(mostRows, rows.length))}
      {lostRequests.value > 0 && `; ${count(lostRequests.value)} came too fast to be listed`}
    </span>
  </div>
)

export const Requests = () => {
  const choices = useRows()
  // Also where there is none yet: the page is drawn again when the first one arrives.
  const shown = choices.shown.value
  const { detail } = route.value
  return (
    <div class={detail === undefined ? "requests" : "requests with-detail"}>
      <section class="tail" aria-label="Latest requests">
        <Title text="Requests" />
        <Tools choices={choices} />
        {rows.length === 0
          ? (
            <Empty title="No requests yet">
              Send one from the{" "}
              <a href={hrefOf("playground")}>playground</a>, or from any client of the service: it is listed here when
              it has ended.
            </Empty>
          )
          : (
            <VirtualList
              label="Latest requests"
              columns={columns}
              rows={shown}
              keyOf={({ id }) => id}
              selected={detail}
            />
          )}
      </section>
      {detail !== undefined && <RequestDetail key={detail} id={detail} />}
    </div>
  )
}
