/** The route of one request: the deployments that can answer it, in order, or why none can. */
import * as UnknownFields from "../../dialects/shared/UnknownFields.ts"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import type { List } from "../../domain/FailureClass.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InvalidRequest, make, NoDeployment } from "../../domain/InferenceError.ts"
import type { Problem, RoutingOptions } from "../../domain/RoutingOptions.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"
import { defaults } from "../../domain/RoutingPolicy.ts"
import type { RoutingRequest, Split } from "../../domain/RoutingRequest.ts"
import { capabilityFor } from "../../domain/Source.ts"
import type { Registry } from "../models/Registry.ts"
import { soonMs } from "../resilience/NextDeployment.ts"
import type { Trial } from "../rollout/Split.ts"
import type { Decision } from "./DecisionRecord.ts"

/** The deployments that may answer one request, and why. */
export interface Route {
  readonly model: string
  /** The primary first; empty where all are excluded. */
  readonly deployments: ReadonlyArray<Deployment>
  /** No other deployment can take the request at the moment, so that half-open circuits let several calls through. */
  readonly alone?: boolean | undefined
  /** Deployments of the fallback models, by kind of failure; `ordinary` ones come after the others. */
  readonly fallbacks: Readonly<Record<List, ReadonlyArray<Deployment>>>
  /**
   * Deployments of the model and of its ordinary fallbacks that their circuits alone exclude. An attempt after a failure may
   * reach one whose circuit lets it through by then.
   */
  readonly held?: ReadonlyArray<Deployment> | undefined
  /** An earlier answer to the same request may be given where no deployment can answer: see `CachedResponses`. */
  readonly cached: boolean
  readonly decision: Decision
  readonly policy: Policy
  /** ms in which 95 of 100 first tokens of the primary come, where that is known and the policy hedges. */
  readonly slowestFirstTokenMs: number | undefined
  /** Context windows that engines or model files report, tokens, by deployment; they replace the configured ones. */
  readonly contextWindows?: ReadonlyMap<string, number> | undefined
  /** Hashes of the prompt's prefixes, where the strategy uses them: see `PrefixIndex`. */
  readonly prefix?: ReadonlyArray<number> | undefined
  /** The version that takes the request, where a rollout divides the model's requests. */
  readonly split?: Split | undefined
  /** Observes the first attempt, where versions are compared. */
  readonly trial?: Trial | undefined
}

/** The deployments of a decision that their circuits alone exclude. */
export const heldBy = ({ deployments }: Model, { excluded }: Decision): ReadonlyArray<Deployment> => {
  if (excluded.length === 0) return none
  const held = new Set(excluded.filter(({ retryAfterMs }) => retryAfterMs !== undefined).map((one) => one.deployment))
  return deployments.filter(({ id }) => held.has(id))
}

const none: ReadonlyArray<Deployment> = []

/** Whether a deployment whose circuit excludes it takes a request so soon that it waits, where no other is left. */
export const isSoonFree = ({ decision: { retryAfterMs }, held = [], policy }: Route): boolean =>
  held.length > 0 && retryAfterMs !== undefined && retryAfterMs <= Math.min(policy.maxWaitMs, soonMs)

/** All deployments that a request may reach, by list. */
export const listsOf = (
  { deployments, fallbacks: { content, context, ordinary }, held = [] }: Pick<
    Route,
    "deployments" | "fallbacks" | "held"
  >
): ReadonlyArray<ReadonlyArray<Deployment>> => [deployments, ordinary, context, content, held]

/** The routing option that excludes all of the model's deployments, if one does. */
const excludingOption = (
  { excluded }: Decision,
  { deployments: only, except = [] }: RoutingOptions
): string | undefined => {
  if (only === undefined && except.length === 0) return undefined
  const left = excluded.filter(({ deployment }) => only?.includes(deployment) ?? true)
  if (!left.every(({ deployment }) => except.includes(deployment))) return undefined
  return left.length === 0 ? "route.deployments" : "route.except"
}

type RequestFields = Pick<RoutingRequest, "pathsOf" | "source">

/** A capability that no deployment has is the request's mistake, named by the fields that need it. */
const notSupported = (
  { missing = [], model }: Decision,
  reason: NoDeployment,
  fields: RequestFields
): InvalidRequest => {
  const { source } = fields
  const required = capabilityFor(source)
  if (source !== undefined && required !== undefined && missing.includes(required)) {
    return new InvalidRequest({
      ...UnknownFields.refusedBy(source, model),
      inBody: true
    })
  }
  const [path = "model", ...alsoAt] = new Set(missing.flatMap((one) => fields.pathsOf?.(one) ?? ["model"]))
  return new InvalidRequest({ path, detail: reason.message, ...(alsoAt.length === 0 ? {} : { alsoAt }) })
}

/** An option of the request that is wrong. */
export const invalidOption = ({ detail, path }: Problem): InferenceError =>
  make(new InvalidRequest({ path: `route.${path}`, detail }))

/** Why no deployment is left. Where none could take the request at any time, the request is invalid. */
export const noDeployment = (
  decision: Decision,
  request: RequestFields & Pick<RoutingRequest, "route"> = {}
): InferenceError => {
  const { excluded, missing, model, retryAfterMs } = decision
  const reason = new NoDeployment({ model, excluded, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) })
  const path = excludingOption(decision, request.route ?? {})
  if (path !== undefined) return make(new InvalidRequest({ path, detail: reason.message }))
  return make(missing === undefined ? reason : notSupported(decision, reason, request))
}

/** The decision where no deployment is left, with those of the fallback models. */
export const joinDecisions = (own: Decision, others: ReadonlyArray<Decision>): Decision => {
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

/** The route of a request that is refused before it has one. */
export const refusedRoute = (model: string): Route => ({
  model,
  deployments: [],
  fallbacks: { ordinary: [], context: [], content: [] },
  cached: false,
  decision: { model, strategy: "none", candidates: [], eligible: 0, excluded: [] },
  policy: { ...defaults, name: "none" },
  slowestFirstTokenMs: undefined
})

const answeredRoutes = new WeakMap<Model, Route>()

/** The route of a request that has an answer already: it has no deployments. */
export const answeredRoute = (model: Model): Route => {
  const known = answeredRoutes.get(model)
  if (known !== undefined) return known
  const route: Route = {
    model: model.name,
    deployments: [],
    fallbacks: { ordinary: [], context: [], content: [] },
    cached: false,
    decision: { model: model.name, strategy: "cache", candidates: [], eligible: 0, excluded: [] },
    policy: model.routing?.policy ?? defaults,
    slowestFirstTokenMs: undefined
  }
  answeredRoutes.set(model, route)
  return route
}

/** Counts the models of a route; why one of them cannot be called. */
export const callOf =
  (registry: Registry["Service"]) =>
  ({ model }: Route, deployments: ReadonlyArray<Deployment>): InferenceError | undefined => {
    for (const name of new Set([model, ...deployments.map((one) => one.model)])) {
      const refused = registry.call?.(name)
      if (refused !== undefined) return refused
    }
    return undefined
  }
