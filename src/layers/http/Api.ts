/** The HTTP interface as a description, from which `GET /openapi.json` is made. */
import { Schema } from "effect"
import { HttpApi, HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import * as OpenAiSchema from "../../dialects/openai/Schema.ts"
import { keptDecisions, keptEvents } from "../../domain/Defaults.ts"
import { AlertReport } from "../../services/alerts/AlertNotice.ts"
import * as Readiness from "../../services/health/Readiness.ts"
import { VirtualKey } from "../../services/keys/VirtualKey.ts"
import { Explanation, ExplanationRequest } from "../../services/routing/Explanation.ts"
import * as AdminReload from "./AdminReload.ts"
import * as AdminSchema from "./AdminSchema.ts"
import type { Dialects } from "./Dialect.ts"
import * as OverviewSchema from "./OverviewSchema.ts"
import * as RolloutSchema from "./RolloutSchema.ts"

/** An error response in the shape that is the default. */
export const error = (status: number, description: string) =>
  OpenAiSchema.ErrorBody.annotate({ description }).pipe(HttpApiSchema.status(status))

/** Server-sent events with this as JSON. The route writes them itself. */
export const events = <S extends Schema.Top>(schema: S) =>
  schema.pipe(HttpApiSchema.asJson({ contentType: "text/event-stream" }))

/** Lines of JSON, each with this. The route writes them itself. */
export const lines = <S extends Schema.Top>(schema: S) =>
  schema.pipe(HttpApiSchema.asJson({ contentType: "application/x-ndjson" }))

/** Of every endpoint that needs a loaded model. */
export const unavailable = error(
  503,
  "The engine crashed or hung and is being restarted (`engine_crashed`, `engine_hung`), failed too often " +
    "(`deployment_down`), or could not be loaded (`model_load_failed`, `engine_missing`, `insufficient_memory`)"
)

const HealthGroup = HttpApiGroup.make("health").add(
  HttpApiEndpoint.get("live", "/health/live", { success: Schema.Struct({ status: Schema.Literal("live") }) }),
  HttpApiEndpoint.get("ready", "/health/ready", {
    success: Readiness.Report,
    error: Readiness.Report.pipe(HttpApiSchema.status(503))
  })
)

/** Of every endpoint under `/admin`. */
const closed = [
  error(401, "Administration requires an admin key, or the token of `server.admin.token` (`unauthorized`)"),
  error(
    403,
    "Administration accepts requests of local programs only, and on the port of the models only GET requests (`forbidden`)"
  )
] as const

const wrong = error(400, "The request is invalid")

const unreadable = error(503, "The database cannot be used (`storage_failed`)")

/** Of every endpoint that changes a key. */
const unchangeable = [
  ...closed,
  wrong,
  error(404, "Unknown key (`key_not_found`)"),
  error(
    409,
    "A key has the name (`key_exists`), the key is declared in `troupe.yaml` (`key_declared`), is revoked (`key_revoked`) or has expired (`key_expired`)"
  ),
  unreadable
] as const

const KeyGroup = HttpApiGroup.make("keys").add(
  HttpApiEndpoint.get("list", "/admin/keys", { success: AdminSchema.Keys, error: closed }).annotateMerge(
    OpenApi.annotations({ title: "List the virtual keys", description: "Without secrets." })
  ),
  HttpApiEndpoint.post("create", "/admin/keys", {
    payload: AdminSchema.NewKey,
    success: AdminSchema.IssuedKey.pipe(HttpApiSchema.status(201)),
    error: unchangeable
  }).annotateMerge(OpenApi.annotations({
    title: "Create a virtual key",
    description: "The secret is in this answer only. From the first key on, every request needs one."
  })),
  HttpApiEndpoint.get("find", "/admin/keys/:key", {
    params: { key: Schema.String },
    success: VirtualKey,
    error: unchangeable
  }).annotateMerge(OpenApi.annotations({ title: "Get a virtual key by id or name" })),
  HttpApiEndpoint.post("rotate", "/admin/keys/:key/rotate", {
    params: { key: Schema.String },
    payload: AdminSchema.Rotation,
    success: AdminSchema.IssuedKey,
    error: unchangeable
  }).annotateMerge(OpenApi.annotations({
    title: "Give a virtual key a new secret",
    description: "The secret before it is accepted until the overlap ends."
  })),
  HttpApiEndpoint.post("extend", "/admin/keys/:key/extend", {
    params: { key: Schema.String },
    payload: AdminSchema.Extension,
    success: VirtualKey,
    error: unchangeable
  }).annotateMerge(OpenApi.annotations({
    title: "Change when a virtual key ends",
    description: "Its secret stays. An expired key is accepted again."
  })),
  HttpApiEndpoint.post("revoke", "/admin/keys/:key/revoke", {
    params: { key: Schema.String },
    success: VirtualKey,
    error: unchangeable
  }).annotateMerge(OpenApi.annotations({
    title: "Revoke a virtual key",
    description: "No process of the service accepts it after this answer. It stays in the list."
  }))
)

const UsageGroup = HttpApiGroup.make("usage").add(
  HttpApiEndpoint.get("usage", "/admin/usage", {
    query: AdminSchema.UsageRequest,
    success: AdminSchema.Usage,
    error: [...closed, wrong, unreadable]
  }).annotateMerge(OpenApi.annotations({
    title: "Sum what was used",
    description:
      "Sums of the ledger, of all processes and earlier runs. With `format=csv` or `Accept: text/csv`, as CSV with a head."
  })),
  HttpApiEndpoint.get("budgets", "/admin/budgets", { success: AdminSchema.Budgets, error: [...closed, unreadable] })
    .annotateMerge(OpenApi.annotations({
      title: "Show what is left of budgets",
      description: "By the ledger, of all processes; without what running requests have reserved."
    }))
)

/** Of every endpoint about one rollout. */
const rolloutErrors = [
  ...closed,
  wrong,
  error(
    404,
    "Unknown rollout (`rollout_not_found`), deployment (`deployment_not_found`), model (`model_not_found`) or action (`not_found`)"
  ),
  error(
    409,
    "A rollout of the model has not ended (`rollout_running`), the deployment has all requests already (`deployment_in_use`), or the action has no effect in this phase (`rollout_refused`)"
  ),
  unreadable
] as const

const RolloutGroup = HttpApiGroup.make("rollouts").add(
  HttpApiEndpoint.get("list", "/admin/rollouts", {
    success: RolloutSchema.RolloutList,
    error: [...closed, unreadable]
  }).annotateMerge(OpenApi.annotations({ title: "List the gradual rollouts", description: "The newest first." })),
  HttpApiEndpoint.post("start", "/admin/rollouts", {
    payload: RolloutSchema.NewRollout,
    success: RolloutSchema.RolloutView.pipe(HttpApiSchema.status(201)),
    error: rolloutErrors
  }).annotateMerge(OpenApi.annotations({
    title: "Start a gradual rollout",
    description: "A deployment of the model gets a growing share of its requests, and is rolled back where it is worse."
  })),
  HttpApiEndpoint.get("find", "/admin/rollouts/:rollout", {
    params: { rollout: Schema.String },
    success: RolloutSchema.RolloutView,
    error: rolloutErrors
  }).annotateMerge(OpenApi.annotations({
    title: "Get a rollout by id, or the newest of a model",
    description: "With the evidence of the last comparison."
  })),
  HttpApiEndpoint.post("act", "/admin/rollouts/:rollout/:action", {
    params: { rollout: Schema.String, action: RolloutSchema.RolloutActionName },
    success: RolloutSchema.RolloutView,
    error: rolloutErrors
  }).annotateMerge(OpenApi.annotations({
    title: "Pause, resume, promote or abort a rollout",
    description:
      "`pause` keeps the share; the candidate is still rolled back where it is worse. `promote` gives it all " +
      "requests, `abort` none."
  }))
)

const noDecision = error(404, "Unknown record, or one that is no longer kept (`decision_not_found`)")

const bodyNotKept = error(409, "The body of the request is not kept (`body_not_kept`)")

const AdminGroup = HttpApiGroup.make("admin").add(
  HttpApiEndpoint.get("deployments", "/admin/deployments", { success: AdminSchema.Deployments, error: closed })
    .annotateMerge(
      OpenApi.annotations({ title: "List the deployments and their states" })
    ),
  HttpApiEndpoint.post("act", "/admin/models/:model/:action", {
    params: { model: Schema.String, action: AdminSchema.ActionName },
    success: AdminSchema.Deployments,
    error: [
      ...closed,
      error(404, "Unknown model (`model_not_found`) or action (`not_found`)"),
      unavailable
    ]
  }).annotateMerge(OpenApi.annotations({
    title: "Load, unload, reload, pin, unpin, drain or resume a model",
    description: "`load` tries at once where a deployment is down. `unload` lets what runs end. `reload` loads the " +
      "deployment again beside itself, with a changed file for example, and moves over without failing a request. `pin` keeps " +
      "it loaded and `unpin` lets it be unloaded, until another configuration of it applies or the service restarts. `drain` " +
      "gives it no new requests, and does not wait for the end of those that it has, after which a local deployment is " +
      "unloaded; that lasts until `resume`, or until the service restarts."
  })),
  HttpApiEndpoint.post("actOne", "/admin/deployments/:deployment/:action", {
    params: { deployment: Schema.String, action: AdminSchema.ActionName },
    success: AdminSchema.Deployments,
    error: [
      ...closed,
      error(404, "Unknown deployment (`deployment_not_found`) or action (`not_found`)"),
      unavailable
    ]
  }).annotateMerge(OpenApi.annotations({ title: "Load, unload, reload, pin, unpin, drain or resume one deployment" })),
  HttpApiEndpoint.get("deploymentEvents", "/admin/deployments/events", {
    success: events(AdminSchema.Event),
    error: closed
  }).annotateMerge(
    OpenApi.annotations({
      title: "Watch the deployments' states",
      description: "Server-sent events, one for each change from now on."
    })
  ),
  HttpApiEndpoint.get("events", "/admin/events", {
    query: AdminSchema.EventSelection,
    success: AdminSchema.Events,
    error: [...closed, wrong]
  }).annotateMerge(OpenApi.annotations({
    title: "List the latest events of the service",
    description:
      `Latest first: \`limit\` (default 100) of the ${keptEvents} that are kept, since a time and of a kind. Alerts, ` +
      "circuits, loads, restarts, memory pressure, reloads and rollouts."
  })),
  HttpApiEndpoint.get("alerts", "/admin/alerts", { success: AlertReport, error: closed }).annotateMerge(
    OpenApi.annotations({
      title: "Show the rules of alerts, and the alerts that are pending or fire",
      description: "With their values, and what the webhook has delivered."
    })
  ),
  HttpApiEndpoint.get("circuits", "/admin/circuits", { success: AdminSchema.Circuits, error: closed }).annotateMerge(
    OpenApi.annotations({ title: "List the circuits of the deployments that have been called" })
  ),
  HttpApiEndpoint.post("resetCircuit", "/admin/circuits/:deployment/reset", {
    params: { deployment: Schema.String },
    success: AdminSchema.Circuits,
    error: [...closed, error(404, "Unknown deployment (`deployment_not_found`)")]
  }).annotateMerge(OpenApi.annotations({
    title: "Close a deployment's circuit",
    description: "The deployment is called again at once; earlier failures no longer count. A successful `load` or " +
      "`reload` of its model does the same."
  })),
  HttpApiEndpoint.get("circuitEvents", "/admin/circuits/events", {
    success: events(AdminSchema.CircuitEvent),
    error: closed
  }).annotateMerge(OpenApi.annotations({
    title: "Watch the deployments' circuits",
    description: "Server-sent events, one for each change from now on."
  })),
  HttpApiEndpoint.get("decisions", "/admin/decisions", {
    query: AdminSchema.DecisionQuery,
    success: AdminSchema.Decisions,
    error: [...closed, wrong]
  }).annotateMerge(OpenApi.annotations({
    title: "List the decision records of the latest requests",
    description:
      `Latest first: \`limit\` (default 20) of the ${keptDecisions} that are kept. Records contain no text of requests or ` +
      "answers."
  })),
  HttpApiEndpoint.get("requests", "/admin/requests", {
    query: AdminSchema.DecisionQuery,
    success: AdminSchema.Requests,
    error: [...closed, wrong]
  }).annotateMerge(OpenApi.annotations({
    title: "List the latest requests in one line each",
    description: "As `GET /admin/decisions`: deployment, status, times, tokens, cost and attempts, without the scores."
  })),
  HttpApiEndpoint.get("decision", "/admin/decisions/:id", {
    params: { id: Schema.String },
    success: AdminSchema.DecisionDetail,
    error: [...closed, noDecision]
  }).annotateMerge(OpenApi.annotations({
    title: "Get the decision record of a request",
    description:
      "The id is in the response's header `x-troupe-decision`; the one in `x-request-id` finds it as well. `replay` says whether " +
      "the request can be sent again, and why not."
  })),
  HttpApiEndpoint.get("keptRequest", "/admin/decisions/:id/request", {
    params: { id: Schema.String },
    success: AdminSchema.KeptBody,
    error: [...closed, noDecision, bodyNotKept]
  }).annotateMerge(OpenApi.annotations({
    title: "Get the request of a decision record",
    description: "Where `decisions.keepBodies` keeps it: its body contains the prompt, as it arrived."
  })),
  HttpApiEndpoint.post("replay", "/admin/decisions/:id/replay", {
    params: { id: Schema.String },
    success: AdminSchema.Replay,
    error: [...closed, noDecision, bodyNotKept]
  }).annotateMerge(OpenApi.annotations({
    title: "Send the request of a decision record again",
    description:
      "As the administrator's own request, on the budget of the admin key: it is routed as any other, is not answered from the " +
      "cache, and its answer is not a stream. The new record has `replayOf`."
  })),
  HttpApiEndpoint.get("cache", "/admin/cache", { success: AdminSchema.CacheContents, error: closed }).annotateMerge(
    OpenApi.annotations({ title: "Show what the response cache holds" })
  ),
  HttpApiEndpoint.delete("clearCache", "/admin/cache", {
    query: AdminSchema.CacheSelection,
    success: AdminSchema.CacheCleared,
    error: [...closed, wrong, error(404, "Unknown model (`model_not_found`)")]
  }).annotateMerge(OpenApi.annotations({
    title: "Clear cached answers",
    description:
      "Those that have the given model, tenant and key, or `all=true`. Also in the store, for every process that " +
      "shares it."
  })),
  HttpApiEndpoint.post("reload", "/admin/reload", {
    query: AdminReload.Selection,
    success: AdminReload.Report,
    error: [
      ...closed,
      error(400, "The configuration is invalid; the one in use stays (`invalid_configuration`). Or the query is"),
      error(503, "A changed model did not load, or the configuration cannot be read again (`reload_failed`)")
    ]
  }).annotateMerge(OpenApi.annotations({
    title: "Read the configuration again",
    description:
      "Everything that differs changes in one step, or nothing does. Unchanged models stay loaded; changed ones are " +
      "loaded beside and take over. `dryRun=true` only says what would change."
  })),
  HttpApiEndpoint.post("route", "/admin/route", {
    payload: ExplanationRequest,
    success: Explanation,
    error: [...closed, wrong, error(404, "Unknown model (`model_not_found`)")]
  }).annotateMerge(OpenApi.annotations({
    title: "Explain how a request would be routed now",
    description: "No deployment is called and nothing is counted. `route` has the same fields as `troupe` in a request."
  }))
)

const LiveGroup = HttpApiGroup.make("live").add(
  HttpApiEndpoint.get("overview", "/admin/overview", { success: OverviewSchema.Overview, error: closed }).annotateMerge(
    OpenApi.annotations({
      title: "Show the service in one snapshot",
      description:
        "Of all processes: requests, deployments, memory, cache, and the figures of the last minute, five minutes " +
        "and hour."
    })
  ),
  HttpApiEndpoint.get("live", "/admin/live", {
    query: OverviewSchema.LiveSelection,
    success: events(OverviewSchema.LiveEvent),
    error: [...closed, wrong]
  }).annotateMerge(OpenApi.annotations({
    title: "Watch the service",
    description:
      "Server-sent events from now on: `overview` when something has changed, at most once a second; `request` when one has " +
      "ended; `event` when something has happened that an operator acts on; `lost` where a reader is too slow."
  }))
)

/** The endpoints that `HttpApi` decodes and encodes. Routes of dialects read and write bodies themselves. */
export class TypedApi extends HttpApi.make("troupe").add(HealthGroup).add(AdminGroup).add(KeyGroup).add(UsageGroup)
  .add(RolloutGroup).add(LiveGroup)
{}

/** Paths that all dialects share, each with the shapes of all of them. */
const modelGroupOf = (dialects: Dialects) => {
  const [first, ...others] = dialects
  // A dialect may have the shapes of another.
  const own = others.filter(({ models }) => models !== first.models)
  const listSchemas = own.map(({ models }) => models.listSchema)
  const modelSchemas = own.map(({ models }) => models.modelSchema)
  const clients = dialects.flatMap(({ clientHeader }) => clientHeader === undefined ? [] : [`\`${clientHeader}\``])
  return HttpApiGroup.make("models").add(
    HttpApiEndpoint.get("models", "/v1/models", { success: [first.models.listSchema, ...listSchemas] }).annotateMerge(
      OpenApi.annotations({
        title: "List the models",
        description: `In the shape of another dialect if the request has its header: ${clients.join(", ")}.`
      })
    ),
    HttpApiEndpoint.get("model", "/v1/models/:model", {
      params: { model: Schema.String },
      success: [first.models.modelSchema, ...modelSchemas],
      error: error(404, "Unknown model (`model_not_found`), in the shape of the client's dialect")
    })
  )
}

/** The whole interface. */
export const make = (dialects: Dialects) => {
  const [first, ...others] = dialects
  return HttpApi.make("troupe")
    .add(first.group, ...others.map(({ group }) => group))
    .add(modelGroupOf(dialects))
    .add(HealthGroup)
    .add(AdminGroup)
    .add(KeyGroup)
    .add(UsageGroup)
    .add(RolloutGroup)
    .add(LiveGroup)
    .annotateMerge(OpenApi.annotations({
      title: "Troupe",
      version: "0.1.0",
      description: "An actor runtime for language models. `GET /metrics` is in Prometheus's text format."
    }))
}
