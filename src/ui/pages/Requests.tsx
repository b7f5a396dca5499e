/** The latest requests, and how one of them was routed. */
import { useComputed, useSignal } from "@preact/signals"
import { useRef } from "preact/hooks"
import { count, duration, time, unknown } from "../format.ts"
import type { RequestRow } from "../live.ts"
import { mostRows, rowChanges, rows } from "../live.ts"
import { Badge, Empty, Title } from "../parts/Basics.tsx"
import type { ListColumn } from "../parts/VirtualList.tsx"
import { VirtualList } from "../parts/VirtualList.tsx"
import { hrefOf, route } from "../route.ts"
import { RequestDetail } from "./RequestDetail.tsx"

const columns: ReadonlyArray<ListColumn<RequestRow>> = [
  {
    head: "Time",
    className: "time",
    cell: ({ at, id, model }) => (
      <a href={hrefOf("requests", id)} aria-label={`${time(at)}, ${model}: show the request`}>{time(at)}</a>
    )
  },
  { head: "Result", className: "result", cell: ({ status }) => <Badge text={status} /> },
  { head: "Model", className: "wide", cell: ({ model }) => model },
  { head: "Answered by", className: "wide second", cell: ({ deployment }) => deployment ?? unknown },
  { head: "Tries", className: "short number", cell: ({ attempts }) => count(attempts) },
  { head: "First token", className: "number second", cell: ({ firstTokenMs }) => duration(firstTokenMs) },
  { head: "Total", className: "number", cell: ({ tookMs }) => duration(tookMs) }
]

/** The newest first. */
const useRows = () => {
  const text = useSignal("")
  const onlyFailed = useSignal(false)
  const isPaused = useSignal(false)
  const latest = useRef<ReadonlyArray<RequestRow>>([])
  const shown = useComputed(() => {
    if (isPaused.value) return latest.current
    void rowChanges.value
    const words = text.value.toLowerCase().split(/\s+/).filter((word) => word !== "")
    const isWanted = ({ deployment = "", id, model, status }: RequestRow) => {
      if (onlyFailed.value && status === "success") return false
      if (words.length === 0) return true
      const all = `${id} ${model} ${deployment} ${status}`.toLowerCase()
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
    </span>
  </div>
)

export const Requests = () => {
  const choices = useRows()
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
              rows={choices.shown.value}
              keyOf={({ id }) => id}
              selected={detail}
            />
          )}
      </section>
      {detail !== undefined && <RequestDetail key={detail} id={detail} />}
    </div>
  )
}
