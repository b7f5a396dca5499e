/**
 * What the service reports while the page is open: `GET /admin/live`, one stream for all pages.
 *
 * **Details**
 *
 * The requests are in one array, the newest last, which is changed in place: a signal counts its changes, once for each drawn
 * frame however many requests arrive. After an interruption the list is asked for again, so that no request is missing that
 * the service still has.
 */
import { signal } from "@preact/signals"
import type { Overview } from "../layers/http/OverviewSchema.ts"
import type { OperatorEvent } from "../services/observability/OperatorEvents.ts"
import type { DecisionSummary } from "../services/routing/DecisionSummary.ts"
import { ask, messageOf, session, wasCancelled } from "./session.ts"
import type { ServerEvent } from "./stream.ts"
import { streamOf } from "./stream.ts"

export interface Connection {
  readonly phase: "connecting" | "live" | "lost"
  readonly notice?: string
}

export const connection = signal<Connection>({ phase: "connecting" })

/** Undefined until the first one. */
export const overview = signal<Overview | undefined>(undefined)

/** The overviews since the page was opened, the newest last. */
export const history = signal<ReadonlyArray<Overview>>([])

/** Of the last hour, one a second at most. */
const mostOverviews = 3_600

/** Ended requests, the newest last. */
export const rows: Array<DecisionSummary> = []

/** Counts the changes of `rows`. */
export const rowChanges = signal(0)

/** Of the requests that the page keeps. */
export const mostRows = 10_000

/** Requests that arrived faster than the page has read them. */
export const lostRequests = signal(0)

/** What operators act on, the newest first. */
export const events = signal<ReadonlyArray<OperatorEvent>>([])

const mostEvents = 1_000

/** How many requests are listed when the page is opened. */
const listed = 200

/** Of the requests before those that were listed; undefined where the service has no others. */
export const olderCursor = signal<string | undefined>(undefined)

let missed = 0

/** Counts when requests may be missing on the page that the service has. */
export const gaps = (): number => missed

const known = new Set<string>()

let isScheduled = false

const changed = () => {
  isScheduled = false
  rowChanges.value++
}

const schedule = () => {
  if (isScheduled) return
  isScheduled = true
  requestAnimationFrame(changed)
}

/** Adds requests, in the order in which they ended. */
export const add = (some: ReadonlyArray<DecisionSummary>): void => {
  const fresh = some.filter(({ id }) => !known.has(id))
  if (fresh.length === 0) return
  for (const { id } of fresh) known.add(id)
  rows.push(...fresh)
  // Seldom, since it moves the others.
  if (rows.length > mostRows + 500) {
    for (const { id } of rows.splice(0, rows.length - mostRows)) known.delete(id)
  }
  schedule()
}

/** When a request ended, ms since 1970. */
export const endedAt = ({ at, tookMs = 0 }: DecisionSummary): number => at + tookMs

/** Adds requests among the others, as far as the page keeps as many; how many were new. */
export const addOlder = (some: ReadonlyArray<DecisionSummary>): number => {
  const fresh = some.filter(({ id }) => !known.has(id)).slice(0, Math.max(0, mostRows - rows.length))
  if (fresh.length === 0) return 0
  for (const { id } of fresh) known.add(id)
  rows.push(...fresh)
  rows.sort((one, other) => endedAt(one) - endedAt(other))
  schedule()
  return fresh.length
}

const addEvents = (some: ReadonlyArray<OperatorEvent>): void => {
  const ids = new Set(events.peek().map(({ id }) => id))
  const fresh = some.filter(({ id }) => !ids.has(id))
  if (fresh.length > 0) {
    events.value = [...fresh, ...events.peek()].toSorted((one, other) => other.at - one.at).slice(0, mostEvents)
  }
}

const addOverview = (next: Overview): void => {
  overview.value = next
  history.value = [...history.peek(), next].slice(-mostOverviews)
}

const handlers: Readonly<Record<string, (data: never) => void>> = {
  overview: addOverview,
  request: (data: DecisionSummary) => add([data]),
  event: (data: OperatorEvent) => addEvents([data]),
  lost: ({ lost }: { readonly lost: number }) => {
    lostRequests.value += lost
    missed++
  }
}

const handle = ({ data, type }: ServerEvent): void => handlers[type]?.(JSON.parse(data) as never)

/** The requests and the events that the service has. */
const loadLists = async (): Promise<void> => {
  missed++
  const [{ next, requests }, { events: latest }] = await Promise.all([
    ask<{ readonly requests: ReadonlyArray<DecisionSummary>; readonly next?: string }>(
      `/admin/requests?limit=${listed}`
    ),
    ask<{ readonly events: ReadonlyArray<OperatorEvent> }>("/admin/events?limit=200")
  ])
  olderCursor.value = next
  add(requests.filter(({ status }) => status !== "running").toReversed())
  addEvents(latest)
}

/** Reads the stream until it ends. */
const readAll = async (signal: AbortSignal): Promise<void> => {
  const stream = await streamOf("/admin/live", { signal })
  await loadLists()
  connection.value = { phase: "live" }
  for await (const event of stream) handle(event)
}

const longestPauseMs = 10_000

const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener("abort", () => {
      clearTimeout(timer)
      resolve()
    }, { once: true })
  })

const follow = async (signal: AbortSignal): Promise<void> => {
  let pauseMs = 1_000
  while (!signal.aborted) {
    let reason = "The service ended the connection. It may be restarting."
    const begun = Date.now()
    try {
      await readAll(signal)
    } catch (error) {
      if (wasCancelled(error) || session.peek().phase !== "signedIn") return
      reason = messageOf(error)
    }
    pauseMs = Date.now() - begun > longestPauseMs ? 1_000 : Math.min(longestPauseMs, pauseMs * 2)
    connection.value = { phase: "lost", notice: `${reason} What is shown may be out of date; trying again.` }
    await pause(pauseMs, signal)
  }
}

/** Follows the service until the function that it returns is called. */
export const start = (): () => void => {
  const stopping = new AbortController()
  connection.value = { phase: "connecting" }
  void follow(stopping.signal)
  return () => stopping.abort()
}
