/** Handlers for an operator: the alerts, and the latest events of the service. */
import { Effect } from "effect"
import { HttpServerResponse } from "effect/http"
import { keptEvents } from "../../domain/Defaults.ts"
import { InvalidRequest, make as failure } from "../../domain/InferenceError.ts"
import * as Problem from "../../domain/Problem.ts"
import { Alerts } from "../../services/alerts/Alerts.ts"
import type { Kind } from "../../services/observability/OperatorEvents.ts"
import { kinds, OperatorEvents } from "../../services/observability/OperatorEvents.ts"
import * as AdminQuery from "./AdminQuery.ts"
import { EventSelection } from "./AdminSchema.ts"

const defaultLimit = 100

const wrong = (path: string, detail: string) => Effect.fail(failure(new InvalidRequest({ path, detail })))

const isKind = (text: string): text is Kind => kinds.some((kind) => kind === text)

/** A time in a query: ms since 1970, or a date as ISO 8601 writes it; undefined where it is neither. */
const timeOf = (text: string): number | undefined => {
  const ms = /^\d+$/.test(text) ? Number(text) : Date.parse(text)
  return Number.isFinite(ms) ? ms : undefined
}

const selectionOf = Effect.fnUntraced(
  function*({ kind, limit = defaultLimit, since = "0" }: typeof EventSelection.Type) {
    yield* AdminQuery.check(Object.keys(EventSelection.fields))
    if (!Number.isInteger(limit) || limit < 1 || limit > keptEvents) {
      return yield* wrong("limit", Problem.expectedWholeNumber(1, keptEvents))
    }
    if (kind !== undefined && !isKind(kind)) return yield* wrong("kind", `Expected one of ${kinds.join(", ")}`)
    const from = timeOf(since)
    if (from === undefined) {
      return yield* wrong("since", "Expected ms since 1970, or a date such as 2026-11-30T14:00:00Z")
    }
    return { limit, since: from, kind }
  }
)

export const make = Effect.gen(function*() {
  const alerts = yield* Alerts
  const events = yield* OperatorEvents
  return {
    alerts: Effect.map(alerts.report, (report) => HttpServerResponse.jsonUnsafe(report)),
    /** The latest first. */
    events: (query: typeof EventSelection.Type) =>
      Effect.map(
        selectionOf(query),
        (selection) => HttpServerResponse.jsonUnsafe({ events: events.latest(selection) })
      )
  }
})
