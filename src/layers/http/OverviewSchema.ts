/** What an operator's screen shows: the shapes of `GET /admin/overview` and of the events of `GET /admin/live`. */
import { Schema } from "effect"
import * as Availability from "../../services/health/Availability.ts"
import * as Readiness from "../../services/health/Readiness.ts"
import { levels } from "../../services/models/MemoryPressure.ts"
import { OperatorEvent } from "../../services/observability/OperatorEvents.ts"
import { Figures } from "../../services/observability/RecentFigures.ts"
import { DecisionSummary } from "../../services/routing/DecisionSummary.ts"
import { CacheContents, Deployment } from "./AdminSchema.ts"

/** Of the last minute, five minutes and hour. */
const figures = Schema.Array(Figures)

const Service = Schema.Struct({
  version: Schema.String,
  /** As `GET /health/ready` says it. */
  status: Readiness.Report.fields.status,
  /** Left out where there are none. */
  stores: Readiness.Report.fields.stores,
  /** Of the service. */
  uptimeSeconds: Schema.Int,
  /** Of each of its processes. Left out if the service is one process. */
  processUptimeSeconds: Schema.optionalKey(Schema.Array(Schema.Int)),
  /** Of the service that have answered. */
  processes: Schema.Int,
  /** Requests that have begun and not ended. */
  inFlight: Schema.Int,
  /** Of the last minute. */
  requestsPerSecond: Schema.Finite,
  /** Failed of all requests of the last five minutes; left out without requests. */
  errorRate: Schema.optionalKey(Schema.Finite),
  /** What the service should reach. */
  targets: Schema.Struct({ availability: Schema.Finite, errorRate: Schema.Finite }),
  /** See `GET /health/details`. */
  windows: Schema.Array(Availability.Window),
  figures
})

/** Bytes. */
const Memory = Schema.Struct({
  /** What local models may use together now; left out, without a limit. */
  budgetBytes: Schema.optionalKey(Schema.Finite),
  /** What loaded local models have been granted of it. */
  grantedBytes: Schema.Finite,
  /** Resident memory of the service's processes, without those of engines. */
  processBytes: Schema.Finite,
  /** Resident memory of the engines. */
  engineBytes: Schema.Finite,
  pressure: Schema.Literals(levels)
})

/** Requests of models with a response cache since the start. */
const CacheUse = Schema.Struct({
  /** By tier. */
  hits: Schema.Record(Schema.String, Schema.Int),
  misses: Schema.Int,
  bypasses: Schema.Int
})

/** One snapshot of the whole service. */
export const Overview = Schema.Struct({
  /** ms since 1970 */
  at: Schema.Finite,
  service: Service,
  memory: Memory,
  /** Figures of a deployment count attempts. */
  deployments: Schema.Array(Schema.Struct({ ...Deployment.fields, figures })),
  models: Schema.Array(Schema.Struct({ model: Schema.String, figures })),
  cache: Schema.Struct({ ...CacheContents.fields, ...CacheUse.fields })
}).annotate({ identifier: "Overview" })
export type Overview = typeof Overview.Type

/** The kinds of events of `GET /admin/live`. */
export const eventNames = ["overview", "request", "event"] as const
export type EventName = typeof eventNames[number]

/** The data of an event; `lost` has the number of events that a slow reader has not got. */
export const LiveEvent = Schema.Union([Overview, DecisionSummary, OperatorEvent, Schema.Struct({ lost: Schema.Int })])

export const LiveSelection = Schema.Struct({
  events: Schema.optionalKey(
    Schema.String.annotate({ description: `Some of ${eventNames.join(", ")}, with commas. Default all.` })
  )
})
