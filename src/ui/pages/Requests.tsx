/** The latest requests, and how one of them was routed. */
import { useComputed, useSignal } from "@preact/signals"
import { useEffect } from "preact/hooks"
import type { DecisionSummary } from "../../services/routing/DecisionSummary.ts"
import { count, duration, exactUsd, shortUsd, time, unknown } from "../format.ts"
import { endedAt, lostRequests, mostRows, olderCursor, rowChanges, rows } from "../live.ts"
import type { RequestQuery } from "../older.ts"
import { currentQuery, hasAll, isSearching, loadOlder, search, searchProblem } from "../older.ts"
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
      // The list is one stop of the Tab key; the arrow keys move through its rows.
      <a href={hrefOf("requests", id)} tabIndex={-1} aria-label={`${time(at)}, ${model}: show the request`}>
        {time(at)}
      </a>
    )
  },
  {
    head: "Result",
    className: "result",
    cell: ({ cache, check, refused, status }) => (
      <>
        <Badge text={refused === true ? "refused" : cache === undefined ? status : "cache"} />
        {check !== undefined && <Badge text={check === "health" ? "health check" : "probe"} tone="info" />}
      </>
    )
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
  {
    head: "Cost",
    className: "number second",
    cell: ({ unpriced, usd }) => <span title={exactUsd(usd, unpriced)}>{shortUsd(usd, unpriced)}</span>
  },
  { head: "Key", className: "middle second", cell: ({ key }) => key ?? unknown }
]

const textOf = (
  { deployment, error, failed, id, key, model, refused, requestId, status, tenant }: DecisionSummary
): string =>
  [
    id,
    requestId,
    model,
    deployment,
    refused === true ? "refused" : status,
    key,
    tenant,
    error?.reason,
    ...failed,
    failed.length > 0 ? "failed" : ""
  ]
    .join(" ").toLowerCase()

/** Asks the service for what a filter selects, once it is typed. */
const useSearch = (query: RequestQuery, isFiltered: boolean) => {
  useEffect(() => {
    if (!isFiltered) return
    const timer = setTimeout(() => void search(query), 300)
    return () => clearTimeout(timer)
  }, [JSON.stringify(query), isFiltered])
}

/** The newest first. */
const useRows = () => {
  const text = useSignal("")
  const onlyFailed = useSignal(false)
  /** The end of the last request before the pause, ms since 1970. */
  const pausedAt = useSignal<number | undefined>(undefined)
  const words = useComputed(() => text.value.toLowerCase().split(/\s+/).filter((word) => word !== ""))
  const shown = useComputed(() => {
    void rowChanges.value
    const last = pausedAt.value ?? Infinity
    const isWanted = (row: DecisionSummary) => {
      if (endedAt(row) > last) return false
      if (onlyFailed.value && row.status === "success" && row.failed.length === 0) return false
      if (words.value.length === 0) return true
      const all = textOf(row)
      return words.value.every((word) => all.includes(word))
    }
    return rows.filter(isWanted).toReversed()
  })
  const isFiltered = words.value.length > 0 || onlyFailed.value
  const query = currentQuery(words.value)
  useSearch(query, isFiltered)
  return { text, onlyFailed, pausedAt, shown, isFiltered, query }
}

type Choices = ReturnType<typeof useRows>

const Tools = ({ choices: { onlyFailed, pausedAt, shown, text } }: { readonly choices: Choices }) => (
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
    <button
      type="button"
      aria-pressed={pausedAt.value !== undefined}
      onClick={() => (pausedAt.value = pausedAt.value === undefined ? Math.max(0, ...rows.map(endedAt)) : undefined)}
    >
      {pausedAt.value === undefined ? "Pause" : "Resume"}
    </button>
    {olderCursor.value !== undefined && rows.length < mostRows && (
      <button
        type="button"
        disabled={isSearching.value}
        onClick={() => void loadOlder()}
      >
        {isSearching.value ? "Loading older…" : "Load older"}
      </button>
    )}
    <span class="muted">
      {count(shown.value.length)} of the last {count(Math.min(mostRows, rows.length))}
      {lostRequests.value > 0 && `; ${count(lostRequests.value)} came too fast to be listed`}
    </span>
  </div>
)

/** What was searched where nothing was found. */
const Nothing = ({ choices: { onlyFailed, query, text } }: { readonly choices: Choices }) => {
  const isPartial = searchProblem.value !== undefined || rows.length >= mostRows
  if (isSearching.value || (!isPartial && !hasAll(query))) {
    return <Empty title="Searching the requests that the service keeps…" />
  }
  const narrowed = Object.entries(query).map(([name, value]) => `${name} ${String(value)}`).join(", ")
  const words = text.value.trim()
  return (
    <Empty title="No request found">
      Searched for {words === "" ? "requests with failures" : <strong>{words}</strong>}
      {words !== "" && onlyFailed.value && ", with failures only,"} in the {count(rows.length)} requests of this page
      {!isPartial && `, which are all that the service keeps${narrowed === "" ? "" : ` of ${narrowed}`}`}.
    </Empty>
  )
}

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
        {searchProblem.value !== undefined && (
          <p class="problem" role="alert">Older requests were not searched: {searchProblem.value}</p>
        )}
        {shown.length === 0 && choices.isFiltered
          ? <Nothing choices={choices} />
          : rows.length === 0
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
