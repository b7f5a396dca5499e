/**
 * Chooses the deployments that answer a request, and keeps the results of attempts at them.
 *
 * **Details**
 *
 * `route` is synchronous: it reads a snapshot (the models of the registry, measurements, the state of each actor and
 * circuit), the time and one random number, and `Selection.decide` computes the rest.
 *
 * **Gotchas**
 *
 * Clock and random numbers are the services of where the layer is built: seeds and `TestClock` belong around the layer.
 */
import { Clock, Context, Duration, Effect, Layer, Random, Result, Stream } from "effect"
import * as Capability from "../../domain/Capability.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import type { CandidateTable, Condition, DeploymentFacts } from "../../domain/DeploymentFacts.ts"
import { prepare } from "../../domain/DeploymentFacts.ts"
import type { EngineCapability } from "../../domain/EngineProtocol.ts"
import { maxSeed } from "../../domain/Inference.ts"
import type { InferenceError, Reason } from "../../domain/InferenceError.ts"
import * as Measurement from "../../domain/Measurement.ts"
import * as ReasonMessage from "../../domain/ReasonMessage.ts"
import * as RoutingOptions from "../../domain/RoutingOptions.ts"
import type { Policy, Routing } from "../../domain/RoutingPolicy.ts"
import { policyFor, routingOf } from "../../domain/RoutingPolicy.ts"
import type { Moment, RoutingRequest, Split } from "../../domain/RoutingRequest.ts"
import { boundToModel } from "../../domain/RoutingRequest.ts"
import type { Capability as FieldsCapability } from "../../domain/Source.ts"
import { capabilityFor } from "../../domain/Source.ts"
import * as Time from "../../domain/Time.ts"
import { capabilitiesOf } from "../engines/EngineKinds.ts"
import { ModelFiles } from "../engines/ModelFiles.ts"
import { Breaker } from "../health/Breaker.ts"
import type { Snapshot } from "../models/Actor.ts"
import { Models } from "../models/Models.ts"
import { Registry } from "../models/Registry.ts"
import * as GuardedCallbacks from "../observability/GuardedCallbacks.ts"
import type { Entry, SplitTable } from "../rollout/Split.ts"
import { begin as beginTrial, Splits } from "../rollout/Split.ts"
import { Settings } from "../settings/Settings.ts"
import { SettingsChanges } from "../settings/SettingsChanges.ts"
import type { Decision } from "./DecisionRecord.ts"
import { factsInFiles, factsOf, factsOfFiles } from "./DeploymentFacts.ts"
import * as Fallbacks from "./Fallbacks.ts"
import * as FieldPolicy from "./FieldPolicy.ts"
import { beginnings, cacheOwnerOf, PrefixIndex } from "./PrefixIndex.ts"
import type { Route } from "./Route.ts"
import { callOf, heldBy, invalidOption, joinDecisions } from "./Route.ts"
import * as Selection from "./Selection.ts"

/** Chooses the deployments for a request. */
export class Router extends Context.Service<Router, {
  /** The route of a request, or why there is none: `ModelNotFound`, or an option that is wrong. */
  readonly route: (request: RoutingRequest) => Result.Result<Route, InferenceError>
  /** What `route` would decide now; the request is not counted. */
  readonly preview: (request: RoutingRequest) => Result.Result<Route, InferenceError>
  /**
   * Counts the models that a route calls; why one of them cannot be called, or undefined. Left out: all can be.
   *
   * @param deployments those that may answer
   */
  readonly call?: ((route: Route, deployments: ReadonlyArray<Deployment>) => InferenceError | undefined) | undefined
  /** The facts of a model's deployments, in their order, as requests are routed by them now. */
  readonly facts: (model: Model) => ReadonlyArray<DeploymentFacts>
  /** Records a capability that an attempt found missing: later requests that need it go to other deployments. */
  readonly noteFailure: (reason: Reason) => void
  /** Begins to measure an attempt. */
  readonly measure: (deployment: string, route: Route) => Measurement.LatencySample
}>()("troupe/services/routing/Router") {}

/** The state that every decision reads. */
interface Parts {
  readonly registry: Registry["Service"]
  readonly models: Models["Service"]
  readonly breaker: Breaker["Service"]
  policies: ReadonlyArray<Policy>
  /** Of models without a routing of their own. */
  defaultRouting: Routing
  /** Fields that Troupe does not know may send prompts off this machine: the operator says so. */
  passesFields: boolean
  readonly stats: Measurement.LatencyStats
  readonly tables: ReturnType<typeof makeTables>
  readonly callbacks: GuardedCallbacks.GuardedCallbacks
  readonly prefixes: PrefixIndex
  readonly now: () => number
  readonly random: () => number
  /** Requests routed so far, by model: `round-robin` counts for each model alone. */
  readonly turns: WeakMap<Model, number>
  /** The models that have rollouts. */
  readonly splits: SplitTable | undefined
}

type FactsInFiles = Effect.Success<ReturnType<typeof factsOfFiles>>

/**
 * A table for each model, made again when an engine confirms or refuses a capability, or has another context window.
 *
 * @param inFiles windows and capabilities of deployments as their files have them, until their engines are loaded
 */
const makeTables = (now: () => number, inFiles: FactsInFiles) => {
  const { windows } = inFiles
  const observed = new Capability.Observed()
  for (const [id, capabilities] of inFiles.capabilities) observed.loaded(id, capabilities)
  let tables = new WeakMap<Model, CandidateTable>()
  const renew = (isNew: boolean): void => {
    if (isNew) tables = new WeakMap()
  }
  return {
    windows: windows as ReadonlyMap<string, number>,
    of: (model: Model) => {
      if (now() >= observed.nextEnd) renew(observed.expire(now()))
      const known = tables.get(model)
      if (known !== undefined) return known
      const made = prepare(
        model.deployments.map((deployment) =>
          factsOf(
            deployment,
            observed.narrow(deployment.id, capabilitiesOf(deployment.options)),
            !observed.hasRefusedCount(deployment.id),
            windows.get(deployment.id)
          )
        )
      )
      tables.set(model, made)
      return made
    },
    /** Deployments that are new or changed, with what their files have. */
    renewFacts: (deployments: ReadonlyArray<string>, found: FactsInFiles) => {
      for (const id of deployments) {
        windows.delete(id)
        observed.forget(id)
      }
      for (const [id, window] of found.windows) windows.set(id, window)
      for (const [id, capabilities] of found.capabilities) observed.loaded(id, capabilities)
      tables = new WeakMap()
    },
    loaded: (deployment: string, capabilities: ReadonlyArray<EngineCapability>, contextWindow = 0) => {
      renew(observed.loaded(deployment, capabilities))
      if (contextWindow === 0) return
      renew(windows.get(deployment) !== contextWindow)
      windows.set(deployment, contextWindow)
    },
    refused: (deployment: string, capability: Capability.Capability) =>
      renew(observed.refused(deployment, capability, now() + Duration.toMillis(Defaults.missingFor)))
  }
}

const idle: Snapshot = { queued: 0, state: "ready" }

/** The condition of one deployment. Whether it is busy does not matter if it is the only one. */
const conditionOf = (
  { breaker, models, stats }: Parts,
  { id, queueLimit }: Deployment,
  isOnly: boolean,
  alone: boolean,
  now: number
): Condition => {
  const { limit, queued, state } = isOnly ? idle : models.snapshot(id)
  const retryAfterMs = breaker.closedFor(id, now, alone)
  return {
    measured: stats.of(id),
    closed: retryAfterMs === 0 ? undefined : {
      reason: `${ReasonMessage.circuitState(breaker.failures(id))}; retry in ${Math.ceil(retryAfterMs / 1_000)} s`,
      retryAfterMs
    },
    state: state === "ready" || state === "loading" ? state : "cold",
    queued,
    queueFull: queued >= queueLimit,
    slots: limit,
    isDrained: models.drained?.has(id)
  }
}

/** A score that is no number is a mistake of the strategy, which the log names. */
const checkedScore = (value: number): number => {
  if (typeof value === "number" && !Number.isNaN(value)) return value
  throw new TypeError(`It returned ${String(value)} instead of a number.`)
}

/** A custom strategy that throws, or returns no number, gives no score: its deployments come last. */
const guarded = (callbacks: GuardedCallbacks.GuardedCallbacks, options: Policy["selection"]): Policy["selection"] => {
  const { strategy } = options
  if (typeof strategy === "string") return options
  const { name, score } = strategy
  return {
    ...options,
    strategy: {
      name,
      score: (...given) => callbacks.call(`strategy "${name}"`, () => checkedScore(score(...given)), Number.NaN)
    }
  }
}

const prefixOf = (model: Model, policy: Policy, request: RoutingRequest) => {
  if (policy.selection.strategy !== "prefix") return undefined
  const text = request.promptText?.()
  return text === undefined ? undefined : beginnings(text, cacheOwnerOf(model, request.tenant))
}

const idOf = ({ id }: Deployment): string => id

/** One request at one moment, for its own model and the fallback models. */
interface Inquiry {
  readonly request: RoutingRequest
  readonly moment: Moment
  readonly prefix: ReadonlyArray<number> | undefined
  /** The capability to take the request's fields that Troupe does not know, if it has any. */
  readonly fields: FieldsCapability | undefined
  /** Only deployments with a half-open circuit can take the request. */
  readonly alone: boolean
}

const fieldsOf = ({ capabilities, source }: RoutingRequest): FieldsCapability | undefined => {
  const fields = capabilityFor(source)
  return fields !== undefined && capabilities.includes(fields) ? fields : undefined
}

const entryOf = ({ splits }: Parts, { name }: Model): Entry | undefined => splits?.of?.(name)

const splitOf = (parts: Parts, model: Model, { moment: { seed }, request }: Inquiry): Split | undefined =>
  entryOf(parts, model)?.split(request, seed)

const momentOf = (parts: Parts, model: Model, inquiry: Inquiry): Moment => {
  const { moment, prefix } = inquiry
  const split = splitOf(parts, model, inquiry)
  if (split === undefined && prefix === undefined) return moment
  return {
    ...moment,
    split,
    prefixShares: prefix && parts.prefixes.shares(model.deployments.map(idOf), prefix)
  }
}

const decide = (parts: Parts, model: Model, policy: Policy, inquiry: Inquiry): Decision => {
  const { alone, moment, request } = inquiry
  const isOnly = model.deployments.length === 1
  const conditions = model.deployments.map((deployment) => conditionOf(parts, deployment, isOnly, alone, moment.now))
  return Selection.decide(
    parts.tables.of(model),
    conditions,
    request,
    guarded(parts.callbacks, policy.selection),
    momentOf(parts, model, inquiry)
  )
}

/** The deployments that a decision lists, in its order. */
const listed = ({ deployments }: Model, { candidates }: Decision): ReadonlyArray<Deployment> =>
  candidates.map(({ deployment }) => deployments.find(({ id }) => id === deployment)!)

type Outcome<A> = Result.Result<A, InferenceError>

const noNames: Routing["fallbacks"] = { ordinary: [], context: [], content: [] }

const configuredFallbacks = (parts: Parts, model: Model): Routing["fallbacks"] =>
  (model.routing ?? parts.defaultRouting).fallbacks

const hasFallbacks = ({ content, context, ordinary }: Routing["fallbacks"]): boolean =>
  ordinary.length + context.length + content.length > 0

const reachOf = (parts: Parts, model: Model, policy: Policy, request: RoutingRequest, fields: FieldsCapability) =>
  FieldPolicy.reachOf(model, parts.tables.of(model), fields, request, policy.selection)

const mayUseConfigured = (
  parts: Parts,
  model: Model,
  policy: Policy,
  { fields, request }: Inquiry
): Outcome<boolean> =>
  fields === undefined
    ? Result.succeed(true)
    : FieldPolicy.mayUseConfigured(reachOf(parts, model, policy, request, fields), request, parts.passesFields)

/** Deployments that the request lists are those of the requested model. */
const decideFallback = (parts: Parts, inquiry: Inquiry) => {
  const route = inquiry.request.route && { ...inquiry.request.route, deployments: undefined, except: undefined }
  return (model: Model, name: string): Fallbacks.Decided => {
    const request = { ...inquiry.request, model: name, route }
    const { policy } = model.routing ?? parts.defaultRouting
    const decision = decide(parts, model, policy, { ...inquiry, request })
    const { fields } = inquiry
    const reach = fields && !parts.passesFields ? reachOf(parts, model, policy, request, fields) : undefined
    return fields !== undefined && reach?.excludesLocal === true
      ? {
        decision: FieldPolicy.withhold(decision, fields),
        deployments: [],
        held: [],
        withheld: { ...reach, model: name }
      }
      : { decision, deployments: listed(model, decision), held: heldBy(model, decision), withheld: undefined }
  }
}

const fallbacksOf = (
  parts: Parts,
  model: Model,
  inquiry: Inquiry,
  usesConfigured: boolean
): Outcome<Fallbacks.Fallbacks> => {
  const configured = usesConfigured && boundToModel(inquiry.request) === undefined
    ? configuredFallbacks(parts, model)
    : noNames
  const requested = inquiry.request.route?.fallbacks
  if (!hasFallbacks({ ...configured, ordinary: requested ?? configured.ordinary })) {
    return Result.succeed(Fallbacks.none)
  }
  const models = { find: (name: string) => parts.registry.find(name), decide: decideFallback(parts, inquiry) }
  return Fallbacks.of(models, configured, requested)
}

/** Why configured fallbacks are not used, if there are any. */
const unusedOf = (parts: Parts, model: Model, { capabilities, route }: RoutingRequest, usesConfigured: boolean) => {
  if (route?.fallbacks !== undefined || !hasFallbacks(configuredFallbacks(parts, model))) return undefined
  if (!usesConfigured) return "the request has fields that Troupe does not know"
  const results = boundToModel({ capabilities })
  return results && `the ${results} of another model differ; a request may name fallbacks`
}

const withheldText = (withheld: FieldPolicy.Withheld | undefined) => withheld && FieldPolicy.unused(withheld)

/** The deployments that come first, and the decision about them. */
const firstOf = (model: Model, decision: Decision, { decisions, fallbacks }: Fallbacks.Fallbacks) => {
  const own = listed(model, decision)
  if (own.length > 0) return { deployments: own, fallbacks, decision }
  // Where none of its own can take the request, the fallbacks come first.
  const { ordinary } = fallbacks
  return {
    deployments: ordinary,
    fallbacks: { ...fallbacks, ordinary: [] },
    decision: ordinary.length > 0 ? decision : joinDecisions(decision, decisions)
  }
}

/** The deployments that their circuits exclude: the model's own, then those of its fallbacks. Most decisions exclude none. */
const withHeld = (model: Model, decision: Decision, ofFallbacks: ReadonlyArray<Deployment>) =>
  decision.excluded.length === 0 ? ofFallbacks : [...heldBy(model, decision), ...ofFallbacks]

const routeOf = (parts: Parts, model: Model, policy: Policy, inquiry: Inquiry): Outcome<Route> => {
  const { request } = inquiry
  const usesConfigured = mayUseConfigured(parts, model, policy, inquiry)
  if (Result.isFailure(usesConfigured)) return Result.fail(usesConfigured.failure)
  const decided = decide(parts, model, policy, inquiry)
  const found = fallbacksOf(parts, model, inquiry, usesConfigured.success)
  if (Result.isFailure(found)) return Result.fail(found.failure)
  const { cached, held, refused, withheld } = found.success
  const fallbacksUnused = withheldText(withheld) ?? unusedOf(parts, model, request, usesConfigured.success)
  const own = fallbacksUnused === undefined ? decided : { ...decided, fallbacksUnused }
  const { decision, deployments, fallbacks } = firstOf(model, own, found.success)
  const [first] = deployments
  if (first === undefined && refused !== undefined && decision.missing !== undefined) {
    return Result.fail(FieldPolicy.noneLeft(request, refused))
  }
  return Result.succeed({
    model: model.name,
    deployments,
    alone: inquiry.alone,
    fallbacks,
    held: withHeld(model, decided, held),
    cached,
    decision,
    policy,
    slowestFirstTokenMs: policy.hedge && first && Measurement.slowestFirstToken(parts.stats.of(first.id)),
    contextWindows: parts.tables.windows,
    prefix: inquiry.prefix,
    split: splitOf(parts, model, inquiry)
  })
}

/** The model's policy with the options of the request. */
const requestPolicy = (parts: Parts, model: Model, { route }: RoutingRequest): Outcome<Policy> => {
  const own = (model.routing ?? parts.defaultRouting).policy
  if (route === undefined) return Result.succeed(own)
  const policy = policyFor(own, parts.policies, route)
  if (Result.isFailure(policy)) return Result.fail(invalidOption(policy.failure))
  const unknown = RoutingOptions.unknownDeployment(route, model.deployments.map(idOf))
  return unknown === undefined ? Result.succeed(policy.success) : Result.fail(invalidOption(unknown))
}

const turnOf = ({ turns }: Parts, model: Model): number => turns.get(model) ?? 0

/** If only circuits exclude deployments, half-open ones let several calls through at a time. */
const routeTo = (parts: Parts, model: Model, request: RoutingRequest): Outcome<Route> => {
  const policy = requestPolicy(parts, model, request)
  if (Result.isFailure(policy)) return Result.fail(policy.failure)
  const inquiry: Inquiry = {
    request,
    moment: {
      now: parts.now(),
      seed: Math.floor(parts.random() * (maxSeed + 1)),
      turn: turnOf(parts, model)
    },
    prefix: prefixOf(model, policy.success, request),
    fields: fieldsOf(request),
    alone: false
  }
  const found = routeOf(parts, model, policy.success, inquiry)
  return Result.isFailure(found) || found.success.deployments.length > 0 ||
      found.success.decision.retryAfterMs === undefined
    ? found
    : routeOf(parts, model, policy.success, { ...inquiry, alone: true })
}

const preview = (parts: Parts, request: RoutingRequest): Outcome<Route> => {
  const model = parts.registry.find(request.model)
  return Result.isFailure(model) ? Result.fail(model.failure) : routeTo(parts, model.success, request)
}

/** The route with the trial of a request whose versions are compared. */
const withTrial = (parts: Parts, entry: Entry, route: Route): Route => {
  const { deployments: [tried], split } = route
  const trial = split && beginTrial(entry, split, tried?.id, (id) => parts.breaker.closedFor(id, parts.now()) > 0)
  return trial === undefined ? route : { ...route, trial }
}

const route = (parts: Parts, request: RoutingRequest): Outcome<Route> => {
  const model = parts.registry.find(request.model)
  if (Result.isFailure(model)) return Result.fail(model.failure)
  const found = routeTo(parts, model.success, request)
  if (Result.isFailure(found)) return found
  parts.turns.set(model.success, turnOf(parts, model.success) + 1)
  const entry = entryOf(parts, model.success)
  // A request that chooses its deployment says nothing about the division.
  return entry === undefined || request.route?.deployments !== undefined
    ? found
    : Result.succeed(withTrial(parts, entry, found.success))
}

/** Follows the loads and ends of engines: their capabilities, context windows and caches. */
const watch = ({ models: { events }, prefixes, tables }: Parts) =>
  Effect.forkScoped(
    Stream.runForEach(events, ({ capabilities, contextWindow, deployment, state }) =>
      Effect.sync(() => {
        if (state === "gone") prefixes.forget(deployment)
        if (capabilities !== undefined) tables.loaded(deployment, capabilities, contextWindow)
      }))
  )

/** Follows changes of the settings, with what the files of new models have. */
const follow = Effect.fnUntraced(function*(parts: Parts) {
  const files = yield* ModelFiles
  const changes = yield* SettingsChanges
  changes.join(({ guard, models, policies }, before) => {
    const known = new Set(before.models.flatMap(({ deployments }) => deployments))
    const changed = models.flatMap(({ deployments }) => deployments.filter((one) => !known.has(one)))
    return Effect.map(Effect.provideService(factsOfFiles(changed), ModelFiles, files), (inFiles) => ({
      commit: () => {
        parts.policies = policies
        parts.defaultRouting = routingOf({}, policies)
        parts.passesFields = guard.unknownFields === "pass"
        parts.tables.renewFacts(changed.map(idOf), inFiles)
      },
      cancel: Effect.void
    }))
  })
})

const measure = ({ prefixes, stats }: Parts, deployment: string, { prefix }: Route): Measurement.LatencySample => {
  const sample = stats.begin(deployment)
  if (prefix === undefined) return sample
  return {
    // An attempt that is refused before it has a slot leaves no prompt there.
    granted: () => {
      sample.granted()
      prefixes.note(deployment, prefix)
    },
    content: () => sample.content(),
    end: (verdict, tokens) => sample.end(verdict, tokens)
  }
}

/** Routes by the registry, the states of actors and measurements. */
export const layer = Layer.effect(
  Router,
  Effect.gen(function*() {
    const clock = yield* Clock.Clock
    const random = yield* Random.Random
    const now = () => Time.nowOf(clock)
    const { guard, policies } = yield* Settings
    const registry = yield* Registry
    const parts: Parts = {
      registry,
      models: yield* Models,
      breaker: yield* Breaker,
      policies,
      defaultRouting: routingOf({}, policies),
      passesFields: guard.unknownFields === "pass",
      stats: Measurement.makeStats(now),
      tables: makeTables(now, yield* factsInFiles(registry.models())),
      prefixes: new PrefixIndex(),
      callbacks: yield* GuardedCallbacks.make,
      now,
      random: () => random.nextDoubleUnsafe(),
      turns: new WeakMap(),
      splits: yield* Splits
    }
    yield* watch(parts)
    yield* follow(parts)
    const call = callOf(registry)
    return Router.of({
      route: (request) => route(parts, request),
      preview: (request) => preview(parts, request),
      // Undefined while no model has to be counted.
      get call() {
        return registry.call && call
      },
      facts: (model) => parts.tables.of(model).facts,
      noteFailure: (reason) => {
        if (reason._tag === "NotSupported" && reason.capability !== undefined) {
          parts.tables.refused(reason.deployment, reason.capability)
        }
      },
      measure: (deployment, route) => measure(parts, deployment, route)
    })
  })
)
