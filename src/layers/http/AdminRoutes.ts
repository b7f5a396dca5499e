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
import { Breaker } from "../../services/health/Breaker.ts"
import { Readiness, untilLeaving } from "../../services/health/Readiness.ts"
import { Models } from "../../services/models/Models.ts"
import { Registry } from "../../services/models/Registry.ts"
import * as AdminAlerts from "./AdminAlerts.ts"
import * as AdminDecisions from "./AdminDecisions.ts"
import * as AdminDeployments from "./AdminDeployments.ts"
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

/** A stream of server-sent events that ends when the client disconnects or may not read it, or when the process is about to end. */
const makeWatch = Effect.gen(function*() {
  const readiness = yield* Readiness
  const untilRefused = yield* AdminGuard.makeUntilRefused
  return (events: Stream.Stream<object>) =>
    Effect.map(untilRefused, (refused) => watching(events, Effect.raceFirst(untilLeaving(readiness), refused)))
})

const watching = (events: Stream.Stream<object>, end: Effect.Effect<void>) => {
  const frames = Stream.mapArray(
    Stream.interruptWhen(events, end),
    (some) => Arr.of(encoder.encode(some.map((event) => `data: ${JSON.stringify(event)}\n\n`).join("")))
  )
  // The response begins at once, not with the first event: with a comment of the server-sent events format.
  return HttpServerResponse.stream(Stream.merge(frames, Stream.succeed(encoder.encode(": watching\n\n"))), {
    contentType: "text/event-stream; charset=utf-8",
    headers: { "cache-control": "no-cache" }
  })
}

type Act = (deployment: Deployment) => Effect.Effect<void, InferenceError>

/** What an operator has loaded successfully is called again, whatever failed before. */
const makeActions = (models: Models["Service"], callAgain: Act): Readonly<Record<Action, Act>> => {
  const thenReset = (action: Act): Act => (deployment) => Effect.andThen(action(deployment), callAgain(deployment))
  const pinned = (isPinned: boolean): Act => (deployment) =>
    Effect.sync(() => models.renew({ ...deployment, pinned: isPinned }))
  return {
    load: thenReset(models.load),
    unload: models.unload,
    reload: thenReset(models.replace),
    pin: pinned(true),
    unpin: pinned(false),
    drain: models.drain,
    resume: models.resume
  }
}

/** The deployments, and what an operator does with them. */
const makeDeployments = Effect.fnUntraced(function*(resets: Effect.Success<typeof AdminResets.make>) {
  const models = yield* Models
  const registry = yield* Registry
  const whole = yield* WholeService.make
  const describe = yield* AdminDeployments.make
  const list = (deployments: ReadonlyArray<Deployment>) =>
    Effect.map(
      Effect.flatMap(describe(deployments), whole.deployments),
      (deployments) => HttpServerResponse.jsonUnsafe({ deployments })
    )

  const actions = makeActions(models, resets.callAgain)
  /** A drain counts in processes that do not serve the model, too: a deployment is drained where it is in all of them. */
  const actElsewhere = (model: string, action: Action, path: string) =>
    action === "drain" || action === "resume" ? whole.postToAll(path) : whole.post(model, path)
  /** One action on all deployments of a model. */
  const act = Effect.fnUntraced(function*(model: string, action: string) {
    if (!isAction(action)) return respondError(noAction(action))
    const { deployments } = yield* Effect.fromResult(registry.find(model))
    yield* Effect.forEach(deployments, actions[action], { discard: true })
    yield* actElsewhere(model, action, `/admin/models/${encodeURIComponent(model)}/${action}`)
    return yield* list(deployments)
  })

  const actOne = Effect.fnUntraced(function*(id: string, action: string) {
    if (!isAction(action)) return respondError(noAction(action))
    const deployment = resets.find(id)
    if (deployment === undefined) return resets.notFound(id)
    yield* actions[action](deployment)
    yield* actElsewhere(deployment.model, action, `/admin/deployments/${encodeURIComponent(id)}/${action}`)
    return yield* list([deployment])
  })

  return {
    all: Effect.suspend(() => list(registry.models().flatMap(({ deployments }) => deployments))),
    act,
    actOne,
    events: whole.events(models.events)
  }
})

export const layer = HttpApiBuilder.group(
  TypedApi,
  "admin",
  Effect.fn(function*(handlers) {
    const breaker = yield* Breaker
    const guarded = yield* AdminGuard.make
    const watch = yield* makeWatch
    const resets = yield* AdminResets.make
    const deployments = yield* makeDeployments(resets)
    const decisions = yield* AdminDecisions.make
    const alerts = yield* AdminAlerts.make
    const reload = yield* AdminReload.make

    return handlers.handleRaw("deployments", () => guarded(deployments.all))
      .handleRaw("act", ({ params }) => guarded(deployments.act(params.model, params.action)))
      .handleRaw("actOne", ({ params }) => guarded(deployments.actOne(params.deployment, params.action)))
      .handleRaw("deploymentEvents", () => guarded(watch(deployments.events)))
      .handleRaw("events", ({ query }) => guarded(alerts.events(query)))
      .handleRaw("alerts", () => guarded(alerts.alerts))
      .handleRaw("circuits", () => guarded(resets.circuits))
      .handleRaw("resetCircuit", ({ params }) => guarded(resets.circuit(params.deployment)))
      .handleRaw("circuitEvents", () => guarded(watch(breaker.transitions)))
      .handleRaw("decisions", ({ query }) => guarded(decisions.latest(query)))
      .handleRaw("requests", ({ query }) => guarded(decisions.requests(query)))
      .handleRaw("decision", ({ params }) => guarded(decisions.find(params.id)))
      .handleRaw("keptRequest", ({ params }) => guarded(decisions.request(params.id)))
      .handleRaw("replay", ({ params }) => guarded(decisions.replay(params.id)))
      .handleRaw("cache", () => guarded(resets.cache))
      .handleRaw("clearCache", ({ query }) => guarded(resets.clearCache(query)))
      .handleRaw("reload", ({ query }) => guarded(reload(query)))
      .handleRaw("route", () => guarded(decisions.explain))
  })
)
