/**
 * Handlers for an operator: what the deployments do, loading, unloading and reloading them, and how requests are routed.
 */
import { Array as Arr, Effect, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import * as OpenAiEncodeError from "../../dialects/openai/EncodeError.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as Text from "../../domain/Text.ts"
import * as Time from "../../domain/Time.ts"
import { adaptersOf } from "../../services/engines/EngineKinds.ts"
import { Providers } from "../../services/engines/Providers.ts"
import { Breaker } from "../../services/health/Breaker.ts"
import type { State } from "../../services/health/Circuit.ts"
import { Readiness, untilLeaving } from "../../services/health/Readiness.ts"
import { Models } from "../../services/models/Models.ts"
import { Registry } from "../../services/models/Registry.ts"
import type { SplitTable } from "../../services/rollout/Split.ts"
import { Splits } from "../../services/rollout/Split.ts"
import { ScalingReports } from "../../services/scaling/ScalingReport.ts"
import * as AdminDecisions from "./AdminDecisions.ts"
import * as AdminGuard from "./AdminGuard.ts"
import * as AdminReload from "./AdminReload.ts"
import * as AdminResets from "./AdminResets.ts"
import type { Action } from "./AdminSchema.ts"
import { actions as actionNames, isAction } from "./AdminSchema.ts"
import { TypedApi } from "./Api.ts"
import { respondError } from "./Dialect.ts"
import * as WholeService from "./WholeService.ts"

const noAction = (action: string) =>
  OpenAiEncodeError.make(
    `Unknown action ${JSON.stringify(Text.cutName(action))}. Available actions: ${actionNames.join(", ")}.`,
    {
      status: 404,
      type: "invalid_request_error",
      code: "not_found"
    }
  )

const encoder = new TextEncoder()

/** A stream of server-sent events that ends when the client disconnects, or when the process is about to end. */
const makeWatch = (readiness: Readiness["Service"]) => (events: Stream.Stream<object>) => {
  const frames = Stream.mapArray(
    Stream.interruptWhen(events, untilLeaving(readiness)),
    (some) => Arr.of(encoder.encode(some.map((event) => `data: ${JSON.stringify(event)}\n\n`).join("")))
  )
  // The response begins at once, not with the first event: with a comment of the server-sent events format.
  return HttpServerResponse.stream(Stream.merge(frames, Stream.succeed(encoder.encode(": watching\n\n"))), {
    contentType: "text/event-stream; charset=utf-8",
    headers: { "cache-control": "no-cache" }
  })
}

/** Nothing, where it is closed. */
const circuitOf = (deployment: string, states: ReadonlyArray<State>) => {
  const found = states.find((state) => state.deployment === deployment)
  if (found === undefined || found.phase === "closed") return {}
  return { circuit: { phase: found.phase, retryAfterMs: found.retryAfterMs } }
}

/** A deployment as `GET /admin/deployments` shows it. */
const makeDescribe = (
  models: Models["Service"],
  providers: Providers["Service"],
  splits: SplitTable | undefined,
  reports: typeof ScalingReports.Service
) =>
  Effect.fnUntraced(function*(deployment: Deployment, states: ReadonlyArray<State>) {
    const report = reports.of(deployment.id)
    const scaling = report === undefined ? {} : { scaling: report }
    const status = yield* models.status(deployment)
    const { id, model, options, pinned } = deployment
    const keys = providers.waitingKeys(deployment, yield* Time.now)
    const waiting = keys === undefined || keys.waiting + keys.rejected === 0 ? {} : { keys }
    const lora = adaptersOf(options)
    const adapters = lora.length === 0 ? {} : { lora }
    const version = splits?.of?.(model)?.shares?.find((one) => one.deployment === id)
    const share = version === undefined ? {} : { version: { role: version.role, weight: version.weight } }
    const more = { ...adapters, ...scaling, ...share, ...circuitOf(id, states), ...waiting }
    return { ...status, model, engine: options.engine, pinned, ...more }
  })

type Act = (deployment: Deployment) => Effect.Effect<void, InferenceError>

/** What an operator has loaded successfully is called again, whatever failed before. */
const makeActions = (models: Models["Service"], callAgain: Act): Readonly<Record<Action, Act>> => {
  const thenReset = (action: Act): Act => (deployment) => Effect.andThen(action(deployment), callAgain(deployment))
  return { load: thenReset(models.load), unload: models.unload, reload: thenReset(models.replace) }
}

export const layer = HttpApiBuilder.group(
  TypedApi,
  "admin",
  Effect.fn(function*(handlers) {
    const models = yield* Models
    const registry = yield* Registry
    const breaker = yield* Breaker
    const providers = yield* Providers
    const guarded = yield* AdminGuard.make
    const whole = yield* WholeService.make

    const watch = makeWatch(yield* Readiness)
    const resets = yield* AdminResets.make

    const describe = makeDescribe(models, providers, yield* Splits, yield* ScalingReports)
    const list = Effect.fnUntraced(function*(deployments: ReadonlyArray<Deployment>) {
      const states = yield* breaker.states
      const described = yield* Effect.forEach(deployments, (deployment) => describe(deployment, states))
      return HttpServerResponse.jsonUnsafe({ deployments: yield* whole.deployments(described) })
    })
    const all = Effect.suspend(() => list(registry.models().flatMap(({ deployments }) => deployments)))

    const actions = makeActions(models, resets.callAgain)
    const act = Effect.fnUntraced(function*(model: string, action: string) {
      if (!isAction(action)) return respondError(noAction(action))
      const { deployments } = yield* Effect.fromResult(registry.find(model))
      yield* Effect.forEach(deployments, actions[action], { discard: true })
      yield* whole.post(model, `/admin/models/${encodeURIComponent(model)}/${action}`)
      return yield* list(deployments)
    })

    const decisions = yield* AdminDecisions.make
    const reload = yield* AdminReload.make

    return handlers.handleRaw("deployments", () => guarded(all))
      .handleRaw("act", ({ params }) => guarded(act(params.model, params.action)))
      .handleRaw("events", () => guarded(Effect.succeed(watch(whole.events(models.events)))))
      .handleRaw("circuits", () => guarded(resets.circuits))
      .handleRaw("resetCircuit", ({ params }) => guarded(resets.circuit(params.deployment)))
      .handleRaw("circuitEvents", () => guarded(Effect.succeed(watch(breaker.transitions))))
      .handleRaw("decisions", ({ query }) => guarded(decisions.latest(query.limit)))
      .handleRaw("decision", ({ params }) => guarded(decisions.find(params.id)))
      .handleRaw("cache", () => guarded(resets.cache))
      .handleRaw("clearCache", ({ query }) => guarded(resets.clearCache(query)))
      .handleRaw("reload", ({ query }) => guarded(reload(query)))
      .handleRaw("route", () => guarded(decisions.explain))
  })
)
