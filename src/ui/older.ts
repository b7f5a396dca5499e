/**
 * Requests that the service still has and the page has not: `GET /admin/requests`, page after page.
 *
 * **Details**
 *
 * A filter is asked for once: what ends later arrives in the live stream. Words that are the name of a model, of a deployment or
 * of a result narrow what is asked for; the page itself looks for the others.
 */
import { signal } from "@preact/signals"
import type { DecisionSummary } from "../services/routing/DecisionSummary.ts"
import { addOlder, gaps, mostRows, olderCursor, overview, rows } from "./live.ts"
import { ask, messageOf } from "./session.ts"

/** What the service is asked for. */
export interface RequestQuery {
  readonly status?: string
  readonly model?: string
  readonly deployment?: string
}

interface Page {
  readonly requests: ReadonlyArray<DecisionSummary>
  readonly next?: string
}

/** As many as the service gives at once. */
const pageSize = 1_000

const results: Readonly<Record<string, string>> = {
  success: "success",
  failure: "failure",
  interruption: "interruption"
}

/** The part of a filter that the service understands. */
export const queryOf = (
  words: ReadonlyArray<string>,
  deployments: ReadonlyArray<{ readonly deployment: string; readonly model: string }>
): RequestQuery => {
  const named = (name: "deployment" | "model") =>
    deployments.find((one) => words.includes(one[name].toLowerCase()))?.[name]
  const status = words.flatMap((word) => results[word] ?? [])[0]
  const [deployment, model] = [named("deployment"), named("model")]
  return {
    ...(status === undefined ? {} : { status }),
    ...(deployment === undefined ? {} : { deployment }),
    ...(model === undefined || deployment !== undefined ? {} : { model })
  }
}

/** The query of a filter that has been typed. */
export const currentQuery = (words: ReadonlyArray<string>): RequestQuery =>
  queryOf(words, overview.value?.deployments ?? [])

/** Whether the service is being asked. */
export const isSearching = signal(false)

/** Why the service could not be asked. */
export const searchProblem = signal<string | undefined>(undefined)

const ended = ({ requests }: Page): ReadonlyArray<DecisionSummary> =>
  requests.filter(({ status }) => status !== "running")

const pageOf = (query: RequestQuery, limit: number, cursor: string | undefined): Promise<Page> => {
  const parameters = new URLSearchParams({
    ...query,
    limit: String(limit),
    ...(cursor === undefined ? {} : { cursor })
  })
  return ask<Page>(`/admin/requests?${parameters.toString()}`)
}

const during = async (action: () => Promise<void>): Promise<void> => {
  isSearching.value = true
  try {
    await action()
    searchProblem.value = undefined
  } catch (error) {
    searchProblem.value = messageOf(error)
  }
  isSearching.value = false
}

/** The queries whose requests the page has, since it last missed some. */
const asked = new Set<string>()
let gapsAtAsked = 0

/** Whether the page has every request of a query that the service has. */
export const hasAll = (query: RequestQuery): boolean => {
  if (gapsAtAsked !== gaps()) asked.clear()
  gapsAtAsked = gaps()
  return asked.has(JSON.stringify(query)) || asked.has("{}")
}

/** Adds what the service has of a query. */
export const search = async (query: RequestQuery): Promise<void> => {
  if (hasAll(query)) return
  await during(async () => {
    let cursor: string | undefined
    do {
      const page = await pageOf(query, pageSize, cursor)
      addOlder(ended(page))
      cursor = page.next
    } while (cursor !== undefined && rows.length < mostRows)
    asked.add(JSON.stringify(query))
  })
}

/** Adds older requests, until one is new to the page. */
export const loadOlder = (): Promise<void> =>
  during(async () => {
    let added = 0
    while (added === 0 && olderCursor.peek() !== undefined) {
      const page = await pageOf({}, 200, olderCursor.peek())
      added = addOlder(ended(page))
      olderCursor.value = page.next
    }
  })
