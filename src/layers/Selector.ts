/** The selector over the registry's snapshot, the actors' states and what was measured. */
import { Clock, Effect, Layer, Random, Result, Stream } from "effect"
import { Breaker } from "../services/Breaker.ts"
import * as CachedResponses from "../services/CachedResponses.ts"
import type { Decision } from "../services/Decision.ts"
import { factsOf } from "../services/Facts.ts"
import { maxSeed } from "../services/Inference.ts"
import { InvalidRequest, make as makeError } from "../services/InferenceError.ts"
import type { Measurement } from "../services/Measurements.ts"
import * as Measurements from "../services/Measurements.ts"
import type { Deployment, Model } from "../services/Model.ts"
import type { Status } from "../services/Models.ts"
import { Models } from "../services/Models.ts"
import * as Monotonic from "../services/Monotonic.ts"
import * as Overrides from "../services/Overrides.ts"
import type { Policy } from "../services/Policy.ts"
import { defaults } from "../services/Policy.ts"
import { Registry } from "../services/Registry.ts"
import type { Condition } from "../services/Selection.ts"
import * as Selection from "../services/Selection.ts"
import { Board } from "../services/SelectionBoard.ts"
import { beginnings, Prefixes } from "../services/SelectionPrefixes.ts"
import type { Route, Wish } from "../services/Selector.ts"
import { Selector } from "../services/Selector.ts"
import { Settings } from "../services/Settings.ts"

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

const wrong = ({ detail, path }: Overrides.Problem) => makeError(new InvalidRequest({ path: `route.${path}`, detail }))

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

/** Characters of a prompt that decide who has it cached: the first 16,000 tokens or so. */
const longestPrefix = 65_536

/** What was sent where, for the policies that go by it. */
const makePrefixes = Effect.fnUntraced(function*({ events }: Models["Service"]) {
  const prefixes = new Prefixes()
  yield* Effect.forkScoped(Stream.runForEach(events, ({ deployment, state }) =>
    Effect.sync(() => {
      if (state === "gone") prefixes.forget(deployment)
    })))
  return prefixes
})

const idOf = ({ id }: Deployment): string => id

/** What is asked, and by what policy, once for a model and those that stand in for it. */
interface Question {
  readonly policy: Policy
  readonly wish: Wish
  readonly asked: Omit<Selection.Asked, "model" | "prefixShares">
  readonly prefix: ReadonlyArray<number> | undefined
}

/** What every decision needs. */
interface Parts {
  readonly registry: Registry["Service"]
  readonly models: Models["Service"]
  readonly breaker: Breaker["Service"]
  readonly policies: ReadonlyArray<Policy>
  readonly board: Board
  readonly tableOf: ReturnType<typeof makeTables>
  readonly prefixes: Prefixes
  readonly now: () => number
  /** Requests routed so far, by the model they ask for: models that take turns do not move each other's. */
  readonly turns: Map<string, number>
}

/** How a model's deployments are. Whether one is busy decides nothing where there is no other. */
const conditionsOf = (
  { board, breaker, models, now }: Parts,
  { deployments }: Model
): Effect.Effect<ReadonlyArray<Condition>> => {
  const condition = (deployment: Deployment, status: Pick<Status, "queued" | "state">) =>
    conditionOf(deployment, status, board.of(deployment.id), breaker.closedFor(deployment.id, now()))
  return deployments.length === 1
    ? Effect.succeed([condition(deployments[0], idle)])
    : Effect.forEach(
      deployments,
      (deployment) => Effect.map(models.status(deployment), (status) => condition(deployment, status))
    )
}

interface Chosen {
  readonly policy: Policy
  readonly chosen: Pick<Selection.Asked, "only" | "except" | "session" | "task"> | undefined
}

/** With what the request itself says of its routing. */
const overridden = (
  own: Policy,
  { deployments }: Model,
  policies: ReadonlyArray<Policy>,
  { route }: Wish
): Result.Result<Chosen, Overrides.Problem> =>
  route === undefined
    ? Result.succeed({ policy: own, chosen: undefined })
    : Result.all({
      policy: Overrides.policyFor(own, policies, route),
      chosen: Overrides.chosen(route, deployments.map(idOf))
    })

const turnOf = ({ turns }: Parts, { name }: Pick<Model, "name">): number => turns.get(name) ?? 0

const ask = Effect.fnUntraced(function*(parts: Parts, model: Model, wish: Wish) {
  const { maxTokens, needs = [], promptLength, promptText, tenant } = wish
  const { chosen, policy } = yield* Effect.fromResult(
    Result.mapError(overridden(policyOf(model), model, parts.policies, wish), wrong)
  )
  const asked = {
    needs,
    maxTokens,
    likelyPromptTokens: promptLength === undefined ? undefined : Selection.estimateTokens(promptLength),
    turn: turnOf(parts, model),
    seed: yield* Random.nextIntBetween(0, maxSeed),
    now: parts.now(),
    ...chosen,
    session: chosen?.session ?? tenant
  }
  const prefix = policy.selection.strategy === "prefix" && promptText !== undefined
    ? beginnings(promptText().slice(0, longestPrefix))
    : undefined
  return { asked, policy, prefix, wish } satisfies Question
})

const decide = (parts: Parts, model: Model, { asked, policy, prefix }: Question) =>
  Effect.map(conditionsOf(parts, model), (conditions) => {
    const prefixShares = prefix && parts.prefixes.shares(model.deployments.map(idOf), prefix)
    return Selection.decide(
      parts.tableOf(model),
      conditions,
      { ...asked, model: model.name, prefixShares },
      policy.selection
    )
  })

/** The deployments that a decision names, in its order. */
const named = (model: Model, { candidates }: Decision): ReadonlyArray<Deployment> =>
  candidates.map(({ deployment }) => model.deployments.find(({ id }) => id === deployment)!)

/** Who stands in, in the order of the models named and of each one's own choice. */
const standIns = Effect.fnUntraced(function*(parts: Parts, names: ReadonlyArray<string>, question: Question) {
  const found: Array<Deployment> = []
  // Whom the request names are deployments of the model that it asks for.
  const asked = { ...question.asked, only: undefined, except: undefined }
  for (const name of names) {
    const model = yield* parts.registry.find(name)
    found.push(...named(model, yield* decide(parts, model, { ...question, asked, policy: policyOf(model) })))
  }
  return found
})

const noFallbackNames = { ordinary: [], context: [], content: [] }
const noFallbacks = { fallbacks: noFallbackNames, cached: false } satisfies Pick<Route, "fallbacks" | "cached">

/** Names that the request itself has are its own mistake where there is no such model. */
const checkNames = (parts: Parts, names: ReadonlyArray<string>) =>
  Effect.forEach(names, (name, index) =>
    Effect.catchTag(
      parts.registry.find(name),
      "InferenceError",
      ({ reason }) => Effect.fail(wrong({ path: `fallbacks[${index}]`, detail: reason.message }))
    ), { discard: true })

const fallbacksOf = Effect.fnUntraced(function*(parts: Parts, { routing }: Model, question: Question) {
  const { content, context, ordinary } = { ...noFallbackNames, ...routing?.fallbacks }
  const asked = question.wish.route?.fallbacks ?? ordinary
  if (asked.length + context.length + content.length === 0) return noFallbacks
  const index = CachedResponses.misplaced(asked)
  if (index >= 0) return yield* wrong({ path: `fallbacks[${index}]`, detail: CachedResponses.onlyLast })
  const cached = asked.at(-1) === CachedResponses.name
  const names = cached ? asked.slice(0, -1) : asked
  if (question.wish.route?.fallbacks !== undefined) yield* checkNames(parts, names)
  return {
    cached,
    fallbacks: {
      ordinary: yield* standIns(parts, names, question),
      context: yield* standIns(parts, context, question),
      content: yield* standIns(parts, content, question)
    }
  }
})

const consider = Effect.fnUntraced(function*(parts: Parts, wish: Wish) {
  const model = yield* parts.registry.find(wish.model)
  const question = yield* ask(parts, model, wish)
  const { policy, prefix } = question
  const decision = yield* decide(parts, model, question)
  const { cached, fallbacks } = yield* fallbacksOf(parts, model, question)
  const own = named(model, decision)
  // Where none of its own can take the request, who stands in comes first.
  const deployments = own.length > 0 ? own : fallbacks.ordinary
  const [first] = deployments
  return {
    model: model.name,
    deployments,
    fallbacks: own.length > 0 ? fallbacks : { ...fallbacks, ordinary: [] },
    cached,
    decision,
    policy,
    slowestFirstTokenMs: policy.hedge && first && Measurements.slowestFirstToken(parts.board.of(first.id)),
    prefix
  } satisfies Route
})

const route = (parts: Parts, wish: Wish) =>
  Effect.map(consider(parts, wish), (found) => {
    parts.turns.set(found.model, turnOf(parts, { name: found.model }) + 1)
    return found
  })

export const layer = Layer.effect(
  Selector,
  Effect.gen(function*() {
    const models = yield* Models
    const clock = yield* Clock.Clock
    const now = () => Monotonic.nowOf(clock)
    const parts: Parts = {
      registry: yield* Registry,
      models,
      breaker: yield* Breaker,
      policies: (yield* Settings).policies,
      board: new Board(now),
      tableOf: makeTables(),
      prefixes: yield* makePrefixes(models),
      now,
      turns: new Map()
    }
    return Selector.of({
      route: (wish) => route(parts, wish),
      consider: (wish) => consider(parts, wish),
      measure: (deployment, { prefix }) => {
        if (prefix !== undefined) parts.prefixes.note(deployment, prefix)
        return parts.board.begin(deployment)
      }
    })
  })
)
