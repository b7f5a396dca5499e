/**
 * Chooses the deployments that answer a request, and keeps what attempts at them show.
 *
 * **Details**
 *
 * The choice is `Selection.decide`, pure over a snapshot that the layer reads: the registry's facts, the measurements, how
 * busy each deployment is and which may not be called now.
 */
import { Clock, Context, Duration, Effect, Layer, Random, Result, Stream } from "effect"
import * as UnknownFields from "../../dialects/shared/UnknownFields.ts"
import * as Capability from "../../domain/Capability.ts"
import * as Policies from "../../domain/Defaults.ts"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import type { Ability } from "../../domain/EngineProtocol.ts"
import { maxSeed } from "../../domain/Inference.ts"
import type { InferenceError, Reason } from "../../domain/InferenceError.ts"
import { circuitState, InvalidRequest, make as makeError } from "../../domain/InferenceError.ts"
import type { Measurement } from "../../domain/Measurement.ts"
import * as Monotonic from "../../domain/Monotonic.ts"
import * as RoutingOptions from "../../domain/RoutingOptions.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"
import { routingOf } from "../../domain/RoutingPolicy.ts"
import * as CachedResponses from "../cache/CachedResponses.ts"
import { capabilitiesOf } from "../engines/EngineKinds.ts"
import { Breaker } from "../health/Breaker.ts"
import * as LatencyStats from "../health/LatencyStats.ts"
import type { Status } from "../models/Models.ts"
import { Models } from "../models/Models.ts"
import { Registry } from "../models/Registry.ts"
import * as GuardedCallbacks from "../observability/GuardedCallbacks.ts"
import { Settings } from "../settings/Settings.ts"
import type { Decision } from "./DecisionRecord.ts"
import { factsOf } from "./DeploymentFacts.ts"
import { beginnings, PrefixIndex } from "./PrefixIndex.ts"
import type { Route, RoutingRequest } from "./Route.ts"
import type { Condition } from "./Selection.ts"
import * as Selection from "./Selection.ts"

/** Chooses the deployments for a request. */
export class Router extends Context.Service<Router, {
  /** Fails with `ModelNotFound`. */
  readonly route: (wish: RoutingRequest) => Effect.Effect<Route, InferenceError>
  /** What `route` would decide now; no request is counted. */
  readonly preview: (wish: RoutingRequest) => Effect.Effect<Route, InferenceError>
  /** Takes note of a capability that an attempt found missing: later requests that need it go elsewhere. */
  readonly noteFailure: (reason: Reason) => void
  /** Begins to measure an attempt. */
  readonly measure: (deployment: string, route: Route) => LatencyStats.LatencySample
}>()("troupe/services/routing/Router") {}

const conditionOf = (
  { queueLimit }: Deployment,
  { queued, state }: Pick<Status, "queued" | "state">,
  measured: Measurement,
  closed: Condition["closed"]
): Condition => ({
  measured,
  ...(closed === undefined ? {} : { closed }),
  state: state === "ready" || state === "loading" ? state : "cold",
  queued,
  queueFull: queued >= queueLimit
})

const idle = { queued: 0, state: "ready" } as const

const wrong = ({ detail, path }: RoutingOptions.Problem) =>
  makeError(new InvalidRequest({ path: `route.${path}`, detail }))

/** A table for each model, made anew when more is known of what an engine can do. */
const makeTables = (now: () => number) => {
  const observed = new Capability.Observed()
  let tables = new WeakMap<Model, ReturnType<typeof Selection.prepare>>()
  const renew = (isNew: boolean): void => {
    if (isNew) tables = new WeakMap()
  }
  return {
    of: (model: Model) => {
      renew(observed.expire(now()))
      const known = tables.get(model)
      if (known !== undefined) return known
      const made = Selection.prepare(
        model.deployments.map((deployment) =>
          factsOf(
            deployment,
            observed.narrow(deployment.id, capabilitiesOf(deployment.options)),
            !observed.lacksCount(deployment.id)
          )
        )
      )
      tables.set(model, made)
      return made
    },
    loaded: (deployment: string, abilities: ReadonlyArray<Ability>) => renew(observed.loaded(deployment, abilities)),
    refused: (deployment: string, capability: Capability.Capability) =>
      renew(observed.refused(deployment, capability, now() + Duration.toMillis(Policies.missingFor)))
  }
}

/** Characters of a prompt that decide who has it cached: the first 16,000 tokens or so. */
const longestPrefix = 65_536

/** Keeps what is known of engines up to date with their loads and ends. */
const watch = (
  { events }: Models["Service"],
  { prefixes, tables }: Pick<Parts, "prefixes" | "tables">
) =>
  Effect.forkScoped(Stream.runForEach(events, ({ abilities, deployment, state }) =>
    Effect.sync(() => {
      if (state === "gone") prefixes.forget(deployment)
      if (abilities !== undefined) tables.loaded(deployment, abilities)
    })))

const lookUp = ({ registry }: Parts, name: string) => Effect.fromResult(registry.find(name))

const idOf = ({ id }: Deployment): string => id

/** What is asked, and by what policy, once for a model and those that stand in for it. */
interface Question {
  readonly policy: Policy
  readonly wish: RoutingRequest
  readonly asked: Omit<Selection.Asked, "model" | "prefixShares">
  readonly prefix: ReadonlyArray<number> | undefined
  /** No deployment can take the request but those whose circuit is half open. */
  readonly alone: boolean
}

/** What every decision needs. */
interface Parts {
  readonly registry: Registry["Service"]
  readonly models: Models["Service"]
  readonly breaker: Breaker["Service"]
  readonly policies: ReadonlyArray<Policy>
  readonly stats: LatencyStats.LatencyStats
  readonly tables: ReturnType<typeof makeTables>
  readonly callbacks: GuardedCallbacks.GuardedCallbacks
  readonly prefixes: PrefixIndex
  readonly now: () => number
  /** Requests routed so far, by the model they ask for: models that take turns do not move each other's. */
  readonly turns: Map<string, number>
}

/** How a model's deployments are. Whether one is busy decides nothing where there is no other. */
const conditionsOf = (
  { stats, breaker, models, now }: Parts,
  { deployments }: Model,
  alone: boolean
): Effect.Effect<ReadonlyArray<Condition>> => {
  const closedOf = (id: string): Condition["closed"] => {
    const retryAfterMs = breaker.closedFor(id, now(), alone)
    if (retryAfterMs === 0) return undefined
    return {
      reason: `${circuitState(breaker.failures(id))}; retry in ${Math.ceil(retryAfterMs / 1_000)} s`,
      retryAfterMs
    }
  }
  const condition = (deployment: Deployment, status: Pick<Status, "queued" | "state">) =>
    conditionOf(deployment, status, stats.of(deployment.id), closedOf(deployment.id))
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
  { route }: RoutingRequest
): Result.Result<Chosen, RoutingOptions.Problem> =>
  route === undefined
    ? Result.succeed({ policy: own, chosen: undefined })
    : Result.all({
      policy: RoutingOptions.policyFor(own, policies, route),
      chosen: RoutingOptions.chosen(route, deployments.map(idOf))
    })

const turnOf = ({ turns }: Parts, { name }: Pick<Model, "name">): number => turns.get(name) ?? 0

/** Whose caches a prompt is in: each tenant's own, unless a deployment of the model shares them. */
const cacheOwnerOf = ({ deployments }: Model, tenant: string | undefined): string | undefined =>
  deployments.some(({ options }) => "sharePrefixes" in options && options.sharePrefixes) ? undefined : tenant

const ask = Effect.fnUntraced(function*(parts: Parts, model: Model, wish: RoutingRequest) {
  const { maxTokens, capabilities = [], promptLength, promptText, tenant } = wish
  const { chosen, policy } = yield* Effect.fromResult(
    Result.mapError(overridden(routingOf(model, parts.policies).policy, model, parts.policies, wish), wrong)
  )
  const asked = {
    capabilities,
    maxTokens,
    likelyPromptTokens: promptLength === undefined ? undefined : Selection.estimateTokens(promptLength),
    turn: turnOf(parts, model),
    seed: yield* Random.nextIntBetween(0, maxSeed),
    now: parts.now(),
    ...chosen,
    session: chosen?.session ?? tenant
  }
  const prefix = policy.selection.strategy === "prefix" && promptText !== undefined
    ? beginnings(promptText().slice(0, longestPrefix), cacheOwnerOf(model, tenant))
    : undefined
  return { asked, policy, prefix, wish, alone: false } satisfies Question
})

/** A program's own strategy that throws scores nothing: its deployments come last. */
const guarded = (callbacks: GuardedCallbacks.GuardedCallbacks, options: Policy["selection"]): Policy["selection"] => {
  const { strategy } = options
  if (typeof strategy === "string") return options
  const { name, score } = strategy
  return {
    ...options,
    strategy: { name, score: (...given) => callbacks.call(`strategy "${name}"`, () => score(...given), Number.NaN) }
  }
}

const decide = (parts: Parts, model: Model, { alone, asked, policy, prefix }: Question) =>
  Effect.map(conditionsOf(parts, model, alone), (conditions) => {
    const prefixShares = prefix && parts.prefixes.shares(model.deployments.map(idOf), prefix)
    return Selection.decide(
      parts.tables.of(model),
      conditions,
      { ...asked, model: model.name, prefixShares },
      guarded(parts.callbacks, policy.selection)
    )
  })

/** The deployments that a decision names, in its order. */
const named = (model: Model, { candidates }: Decision): ReadonlyArray<Deployment> =>
  candidates.map(({ deployment }) => model.deployments.find(({ id }) => id === deployment)!)

/** Deployments that stand in, and what was decided of each model's. */
interface StandIns {
  readonly found: ReadonlyArray<Deployment>
  readonly decisions: ReadonlyArray<Decision>
}

/** In the order of the models named and of each one's own choice. */
const standIns = Effect.fnUntraced(function*(parts: Parts, names: ReadonlyArray<string>, question: Question) {
  const found: Array<Deployment> = []
  const decisions: Array<Decision> = []
  // Whom the request names are deployments of the model that it asks for.
  const asked = { ...question.asked, only: undefined, except: undefined }
  for (const name of names) {
    const model = yield* lookUp(parts, name)
    const { policy } = routingOf(model, parts.policies)
    const decision = yield* decide(parts, model, { ...question, asked, policy })
    decisions.push(decision)
    found.push(...named(model, decision))
  }
  return { found, decisions } satisfies StandIns
})

/** What stands in for a model. */
interface Fallbacks extends Pick<Route, "fallbacks" | "cached"> {
  /** Of the models that stand in at any failure. */
  readonly decisions: ReadonlyArray<Decision>
}

const noFallbacks: Fallbacks = { fallbacks: { ordinary: [], context: [], content: [] }, cached: false, decisions: [] }

/** Names that the request itself has are its own mistake where there is no such model. */
const checkNames = (parts: Parts, names: ReadonlyArray<string>) =>
  Effect.forEach(names, (name, index) =>
    Effect.catchTag(
      lookUp(parts, name),
      "InferenceError",
      ({ reason }) => Effect.fail(wrong({ path: `fallbacks[${index}]`, detail: reason.message }))
    ), { discard: true })

const fallbacksOf = Effect.fnUntraced(function*(parts: Parts, model: Model, question: Question) {
  const { content, context, ordinary } = routingOf(model, parts.policies).fallbacks
  const asked = question.wish.route?.fallbacks ?? ordinary
  if (asked.length + context.length + content.length === 0) return noFallbacks
  const index = CachedResponses.misplaced(asked)
  if (index >= 0) return yield* wrong({ path: `fallbacks[${index}]`, detail: CachedResponses.onlyLast })
  const cached = asked.at(-1) === CachedResponses.name
  const names = cached ? asked.slice(0, -1) : asked
  if (question.wish.route?.fallbacks !== undefined) yield* checkNames(parts, names)
  const { decisions, found } = yield* standIns(parts, names, question)
  return {
    cached,
    decisions,
    fallbacks: {
      ordinary: found,
      context: (yield* standIns(parts, context, question)).found,
      content: (yield* standIns(parts, content, question)).found
    }
  } satisfies Fallbacks
})

/**
 * Whether other models may stand in for this one. Fields that Troupe does not know must not send a prompt where it would
 * not go without them: where they rule out all of the model's own deployments, or one on this machine, only models that the
 * request itself names stand in. A field that is probably misspelt must not even choose among the model's own, and fails.
 */
const mayFallBack = (parts: Parts, model: Model, question: Question): Effect.Effect<boolean, InferenceError> => {
  const { asked, policy, wish: { route, source } } = question
  const need = source && asked.capabilities.find((one) => one === `${source.dialect} fields`)
  if (need === undefined) return Effect.succeed(true)
  const own = Selection.wanted(parts.tables.of(model), need, { ...asked, model: model.name }, policy.selection)
  const missing = own.filter(({ has }) => !has)
  if (missing.length === 0) return Effect.succeed(true)
  const isNamed = route?.fallbacks !== undefined
  const isRefused = missing.length === own.length && !isNamed
  const found = isRefused ? undefined : UnknownFields.misspelt(source!)
  if (found !== undefined) return makeError(new InvalidRequest(found))
  const isLocal = missing.some(({ index }) => model.deployments[index]!.options.engine !== "remote")
  return Effect.succeed(isNamed || !(isRefused || isLocal))
}

/** The decision where no deployment is left, with those of the models that would stand in. */
const joined = (own: Decision, others: ReadonlyArray<Decision>): Decision => {
  if (others.length === 0) return own
  const { missing, retryAfterMs: _, ...rest } = own
  const waits = [own, ...others].flatMap(({ retryAfterMs }) => retryAfterMs ?? [])
  return {
    ...rest,
    excluded: [own, ...others].flatMap(({ excluded }) => excluded),
    ...(waits.length === 0 ? {} : { retryAfterMs: Math.min(...waits) }),
    ...(missing !== undefined && others.every((one) => one.missing !== undefined) ? { missing } : {})
  }
}

const weigh = Effect.fnUntraced(function*(parts: Parts, model: Model, question: Question) {
  const { alone, policy, prefix } = question
  const decision = yield* decide(parts, model, question)
  const { cached, decisions, fallbacks } = (yield* mayFallBack(parts, model, question))
    ? yield* fallbacksOf(parts, model, question)
    : noFallbacks
  const own = named(model, decision)
  // Where none of its own can take the request, who stands in comes first.
  const deployments = own.length > 0 ? own : fallbacks.ordinary
  const [first] = deployments
  return {
    model: model.name,
    deployments,
    alone,
    fallbacks: own.length > 0 ? fallbacks : { ...fallbacks, ordinary: [] },
    cached,
    decision: deployments.length > 0 ? decision : joined(decision, decisions),
    policy,
    slowestFirstTokenMs: policy.hedge && first && LatencyStats.slowestFirstToken(parts.stats.of(first.id)),
    prefix
  } satisfies Route
})

/** Where only circuits are in the way, half-open ones let several calls through at a time. */
const consider = Effect.fnUntraced(function*(parts: Parts, wish: RoutingRequest) {
  const model = yield* lookUp(parts, wish.model)
  const question = yield* ask(parts, model, wish)
  const found = yield* weigh(parts, model, question)
  return found.deployments.length > 0 || found.decision.retryAfterMs === undefined
    ? found
    : yield* weigh(parts, model, { ...question, alone: true })
})

const route = (parts: Parts, wish: RoutingRequest) =>
  Effect.map(consider(parts, wish), (found) => {
    parts.turns.set(found.model, turnOf(parts, { name: found.model }) + 1)
    return found
  })

/** Routes by the registry, the states of actors and measurements. */
export const layer = Layer.effect(
  Router,
  Effect.gen(function*() {
    const models = yield* Models
    const clock = yield* Clock.Clock
    const now = () => Monotonic.nowOf(clock)
    const parts: Parts = {
      registry: yield* Registry,
      models,
      breaker: yield* Breaker,
      policies: (yield* Settings).policies,
      stats: LatencyStats.make(now),
      tables: makeTables(now),
      prefixes: new PrefixIndex(),
      callbacks: yield* GuardedCallbacks.make,
      now,
      turns: new Map()
    }
    yield* watch(models, parts)
    return Router.of({
      route: (wish) => route(parts, wish),
      preview: (wish) => consider(parts, wish),
      noteFailure: (reason) => {
        if (reason._tag === "NotSupported" && reason.capability !== undefined) {
          parts.tables.refused(reason.deployment, reason.capability)
        }
      },
      measure: (deployment, { prefix }) => {
        const trial = parts.stats.begin(deployment)
        if (prefix === undefined) return trial
        // One that is refused before it has a slot leaves no prompt there.
        const granted = () => {
          trial.granted()
          parts.prefixes.note(deployment, prefix)
        }
        return { ...trial, granted }
      }
    })
  })
)
