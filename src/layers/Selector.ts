/** The selector over the registry's snapshot, the actors' states and what was measured. */
import { Array as Arr, Clock, Effect, Layer, Random } from "effect"
import { Breaker } from "../services/Breaker.ts"
import type { Decision } from "../services/Decision.ts"
import { factsOf } from "../services/Facts.ts"
import { maxSeed } from "../services/Inference.ts"
import { make as makeError, NoDeployment } from "../services/InferenceError.ts"
import type { Measurement } from "../services/Measurements.ts"
import * as Measurements from "../services/Measurements.ts"
import type { Deployment, Model } from "../services/Model.ts"
import type { Status } from "../services/Models.ts"
import { Models } from "../services/Models.ts"
import type { Policy } from "../services/Policy.ts"
import { defaults } from "../services/Policy.ts"
import { Registry } from "../services/Registry.ts"
import type { Condition } from "../services/Selection.ts"
import * as Selection from "../services/Selection.ts"
import type { Route, Trial, Wish } from "../services/Selector.ts"
import { Selector } from "../services/Selector.ts"

const conditionOf = (
  { queueLimit }: Deployment,
  { queued, state }: Pick<Status, "queued" | "state">,
  measured: Measurement,
  closedFor: number
): Condition => ({
  measured,
  ...(closedFor > 0
    ? { closed: { why: "it failed too often lately and is left alone", retryAfterMs: closedFor } }
    : {}),
  state: state === "ready" || state === "loading" ? state : "cold",
  queued,
  queueFull: queued >= queueLimit
})

const policyOf = ({ routing }: Model): Policy => routing?.policy ?? defaults

const idle = { queued: 0, state: "ready" } as const

/** What was measured, by deployment. */
const makeBoard = (now: () => number) => {
  const board = new Map<string, Measurement>()
  const of = (deployment: string): Measurement => board.get(deployment) ?? Measurements.none
  const begin = (deployment: string): Trial => {
    const began = now()
    let firstTokenMs: number | undefined
    board.set(deployment, Measurements.started(of(deployment)))
    return {
      content() {
        firstTokenMs ??= now() - began
      },
      end(end, tokens) {
        const at = now()
        const sample = { ok: end === "success", tookMs: at - began, firstTokenMs, tokens }
        board.set(
          deployment,
          end === "left" ? Measurements.left(of(deployment)) : Measurements.ended(of(deployment), sample, at)
        )
      }
    }
  }
  return { of, begin }
}

const noFallbacks: Route["fallbacks"] = { ordinary: [], context: [], content: [] }

/** The first deployment of each model that stands in, whose names the configuration has checked. */
const fallbacksOf = (registry: Registry["Service"], { routing }: Model) => {
  if (routing === undefined) return Effect.succeed(noFallbacks)
  const standIns = (names: ReadonlyArray<string> = []) =>
    Effect.map(Effect.forEach(names, registry.find), (found) => found.map(({ deployments }) => deployments[0]))
  return Effect.all({
    ordinary: standIns(routing?.fallbacks.ordinary),
    context: standIns(routing?.fallbacks.context),
    content: standIns(routing?.fallbacks.content)
  })
}

const nobody = ({ model, retryAfterMs, ruledOut }: Decision) =>
  makeError(new NoDeployment({ model, ruledOut, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) }))

/** A table for each model, made once. */
const makeTables = () => {
  const tables = new WeakMap<Model, ReturnType<typeof Selection.prepare>>()
  return (model: Model) => {
    const known = tables.get(model)
    if (known !== undefined) return known
    const made = Selection.prepare(model.deployments.map(factsOf))
    tables.set(model, made)
    return made
  }
}

export const layer = Layer.effect(
  Selector,
  Effect.gen(function*() {
    const registry = yield* Registry
    const models = yield* Models
    const breaker = yield* Breaker
    const clock = yield* Clock.Clock
    const now = () => clock.currentTimeMillisUnsafe()
    const board = makeBoard(now)
    const tableOf = makeTables()
    let turn = 0

    const decide = Effect.fnUntraced(function*(model: Model, { maxTokens, needs = [] }: Wish) {
      const [only, ...others] = model.deployments
      // Whether it is busy decides nothing where there is no other.
      const conditions = others.length === 0 ?
        [conditionOf(only, idle, board.of(only.id), breaker.closedFor(only.id, now()))] :
        yield* Effect.forEach(
          model.deployments,
          (deployment) =>
            Effect.map(
              models.status(deployment),
              (status) =>
                conditionOf(deployment, status, board.of(deployment.id), breaker.closedFor(deployment.id, now()))
            )
        )
      const seed = yield* Random.nextIntBetween(0, maxSeed)
      const asked = { model: model.name, needs, maxTokens, turn: turn++, seed, now: now() }
      return Selection.decide(tableOf(model), conditions, asked, policyOf(model).selection)
    })

    return Selector.of({
      route: Effect.fnUntraced(function*(wish) {
        const model = yield* registry.find(wish.model)
        const decision = yield* decide(model, wish)
        const deployments = decision.candidates.flatMap(({ deployment }) =>
          model.deployments.filter(({ id }) => id === deployment)
        )
        if (!Arr.isArrayNonEmpty(deployments)) return yield* nobody(decision)
        return {
          model: model.name,
          deployments,
          fallbacks: yield* fallbacksOf(registry, model),
          decision,
          policy: policyOf(model),
          slowestFirstTokenMs: policyOf(model).hedge === undefined
            ? undefined
            : Measurements.slowestFirstToken(board.of(deployments[0].id))
        }
      }),
      measure: board.begin
    })
  })
)
