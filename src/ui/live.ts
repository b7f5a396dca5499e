/**
 * What the service reports while the page is open.
 *
 * **Details**
 *
 * The requests are in one array, the newest last, which is changed in place: a signal counts its changes, once for each drawn
 * frame however many requests arrive.
 */
import { signal } from "@preact/signals"
import type { Record as Decision } from "../services/routing/DecisionRecord.ts"
import { ask, messageOf, RequestError } from "./session.ts"

export interface Connection {
  readonly phase: "connecting" | "live" | "lost"
  readonly notice?: string
}

export const connection = signal<Connection>({ phase: "connecting" })

export const version = signal("")

/** A request in the list. */
export interface RequestRow {
  readonly id: string
  /** ms since 1970 */
  readonly at: number
  readonly model: string
  readonly deployment: string | undefined
  readonly status: string
  readonly tookMs: number | undefined
  readonly firstTokenMs: number | undefined
  readonly attempts: number
}

/** The newest last. */
export const rows: Array<RequestRow> = []

/** Counts the changes of `rows`. */
export const rowChanges = signal(0)

/** Of the requests that the page keeps. */
export const mostRows = 10_000

let isScheduled = false

/** Adds requests, in the order in which they ended. */
export const add = (some: ReadonlyArray<RequestRow>): void => {
  if (some.length === 0) return
  rows.push(...some)
  if (rows.length > mostRows) rows.splice(0, rows.length - mostRows)
  if (isScheduled) return
  isScheduled = true
  requestAnimationFrame(() => {
    isScheduled = false
    rowChanges.value++
  })
}

export const clear = (): void => {
  rows.length = 0
  rowChanges.value++
}

const rowOf = (record: Decision): RequestRow => {
  const won = record.attempts.find(({ outcome }) => outcome === "answered")
  return {
    id: record.id,
    at: record.at,
    model: record.model,
    deployment: record.answeredBy,
    status: record.end ?? "running",
    tookMs: record.tookMs,
    firstTokenMs: won?.firstTokenMs === undefined ? undefined : won.startedMs + won.firstTokenMs,
    attempts: record.attempts.length
  }
}

const known = new Set<string>()

const poll = async (): Promise<void> => {
  const { decisions } = await ask<{ readonly decisions: ReadonlyArray<Decision> }>("/admin/decisions?limit=200")
  const fresh = decisions.filter(({ end, id }) => end !== undefined && !known.has(id))
  for (const { id } of fresh) known.add(id)
  add(fresh.toReversed().map(rowOf))
  connection.value = { phase: "live" }
}

/** Follows the service until the function that it returns is called. */
export const follow = (): () => void => {
  let timer: ReturnType<typeof setTimeout> | undefined
  let isOver = false
  const next = async () => {
    try {
      await poll()
    } catch (error) {
      const reason = error instanceof RequestError && error.status === 401 ? "" : messageOf(error)
      connection.value = { phase: "lost", notice: `${reason} Trying again every 2 s.` }
    }
    if (!isOver) timer = setTimeout(() => void next(), 2_000)
  }
  void next()
  return () => {
    isOver = true
    clearTimeout(timer)
  }
}
