/**
 * The routing decision and the attempt plan that a request would have now, as plain data. No deployment is called, and the
 * request is not counted.
 *
 * **Gotchas**
 *
 * Random choices of a strategy are made again for every request: the next request may get another decision.
 */
import { Effect, Result, Schema } from "effect"
import { engineCapabilities } from "../../domain/EngineProtocol.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InvalidRequest, make as failure } from "../../domain/InferenceError.ts"
import * as Problem from "../../domain/Problem.ts"
import { RoutingOptions } from "../../domain/RoutingOptions.ts"
import type { RequiredCapability, RoutingRequest } from "../../domain/RoutingRequest.ts"
import { promptLengthOf } from "../../domain/RoutingRequest.ts"
import * as Time from "../../domain/Time.ts"
import { Providers } from "../engines/Providers.ts"
import { Registry } from "../models/Registry.ts"
import { cachedResponses, Decision, present } from "./DecisionRecord.ts"
import type { Route } from "./Route.ts"
import { listsOf } from "./Route.ts"
import { Router } from "./Router.ts"

/** The fields of a request that the decision depends on. */
export const ExplanationRequest = Schema.Struct({
  /** Default: the first configured model. */
  model: Schema.optionalKey(Schema.NonEmptyString),
  /** The text of the only message, from a user. */
  prompt: Schema.optionalKey(Schema.String),
  /** Capabilities that the deployment must have. */
  needs: Schema.optionalKey(Schema.Array(Schema.Literals(engineCapabilities))),
  maxTokens: Schema.optionalKey(Problem.wholeNumber(1)),
  tenant: Schema.optionalKey(Schema.String),
  route: Schema.optionalKey(RoutingOptions)
}).annotate({ identifier: "RouteQuestion" })
export type ExplanationRequest = typeof ExplanationRequest.Type

const Names = Schema.Array(Schema.String)
const optionalMs = Schema.optionalKey(Schema.Finite)

/** The attempts that would be made; times in ms. */
export const Plan = Schema.Struct({
  /**
   * Deployments in the order of the attempts, by kind of failure; the first of `ordinary` would answer. `held` are those whose
   * circuit is open: they are tried last, once it lets a call through.
   */
  lists: Schema.Struct({ ordinary: Names, context: Names, content: Names, held: Schema.optionalKey(Names) }),
  /** Retries at one deployment. */
  retries: Schema.Int,
  maxAttempts: Schema.Int,
  backoff: Schema.Struct({ initialMs: Schema.Finite, factor: Schema.Finite, capMs: Schema.Finite }),
  maxWaitMs: Schema.Finite,
  /** A limit that is left out does not apply. */
  timeouts: Schema.Struct({
    queueMs: optionalMs,
    loadMs: optionalMs,
    firstTokenMs: optionalMs,
    stallMs: optionalMs,
    totalMs: optionalMs
  }),
  /** Left out: no hedged attempt; without `afterMs`: the time is not known until first tokens of the primary are measured. */
  hedge: Schema.optionalKey(Schema.Struct({ afterMs: optionalMs, share: Schema.Finite })),
  shorterBy: Schema.Finite
})
export type Plan = typeof Plan.Type

export const Explanation = Schema.Struct({
  model: Schema.String,
  policy: Schema.String,
  decision: Decision,
  plan: Plan,
  /** Remote deployments of the plan whose provider limited or rejected all keys: ms until a key is tried again. */
  cooldowns: Schema.optionalKey(Schema.Array(Schema.Struct({
    deployment: Schema.String,
    retryAfterMs: Schema.Finite
  })))
}).annotate({ identifier: "RouteExplanation" })
export type Explanation = typeof Explanation.Type

const decodeRequest = Schema.decodeUnknownResult(ExplanationRequest, { errors: "all", onExcessProperty: "error" })

/** The request, or an `InvalidRequest` that names every problem. */
export const requestOf = (json: unknown): Result.Result<ExplanationRequest, InferenceError> =>
  Result.mapError(decodeRequest(json), (error) => {
    const [first, ...others] = Problem.fromSchemaError(error)
    return failure(new InvalidRequest({ path: first!.path, detail: Problem.summary(first!, others) }))
  })

/** Capabilities of requests that generate no text. */
const tasks: ReadonlySet<RequiredCapability> = new Set<RequiredCapability>(["embed", "rerank", "classify", "tokenize"])

/** The request to explain: a chat, unless it needs the capability of another task. */
export const routingRequestOf = (
  { needs = [], prompt, ...rest }: ExplanationRequest,
  model: string
): RoutingRequest => ({
  ...rest,
  model,
  capabilities: needs.some((need) => tasks.has(need)) ? needs : ["generate", ...needs],
  ...(prompt === undefined ? {} : {
    promptLength: promptLengthOf(prompt),
    // As engines begin a prompt: no tools, and one message.
    promptText: () => JSON.stringify([[], [{ role: "user", content: prompt }]])
  })
})

const idsOf = (deployments: Route["deployments"]): ReadonlyArray<string> => deployments.map(({ id }) => id)

export const make = (route: Route): Explanation => {
  const { cached, decision, deployments, fallbacks: { content, context, ordinary }, held = [], model, policy } = route
  const { backoff, hedge, maxAttempts, maxWaitMs, name, retries, shorterBy, timeouts } = policy
  return {
    model,
    policy: name,
    decision,
    plan: {
      lists: {
        ordinary: [...idsOf(deployments), ...idsOf(ordinary), ...(cached ? [cachedResponses] : [])],
        context: idsOf(context),
        content: idsOf(content),
        ...(held.length === 0 ? {} : { held: idsOf(held) })
      },
      retries,
      maxAttempts,
      backoff,
      maxWaitMs,
      timeouts: present(timeouts) as Plan["timeouts"],
      ...(hedge === undefined
        ? {}
        : {
          hedge: present({ share: hedge.share, afterMs: hedge.afterMs ?? route.slowestFirstTokenMs }) as
            & Plan["hedge"]
            & {}
        }),
      shorterBy
    }
  }
}

/** The keys of the route's deployments that must not be used at the moment. */
const cooldownsOf = (
  route: Route,
  { waitingKeys }: Providers["Service"],
  now: number
): Explanation["cooldowns"] & {} => {
  const all = new Map(listsOf(route).flat().map((one) => [one.id, one]))
  return [...all.values()].flatMap((one) => {
    const keys = waitingKeys(one, now)
    return keys !== undefined && keys.waiting === keys.total
      ? [{ deployment: one.id, retryAfterMs: keys.retryAfterMs }]
      : []
  })
}

/** Fails as `Router.preview` does. */
export const explain = Effect.fnUntraced(function*(request: ExplanationRequest) {
  const router = yield* Router
  const registry = yield* Registry
  const providers = yield* Providers
  const model = request.model ?? registry.models()[0]!.name
  const route = yield* Effect.fromResult(router.preview(routingRequestOf(request, model)))
  const cooldowns = cooldownsOf(route, providers, yield* Time.now)
  return { ...make(route), ...(cooldowns.length === 0 ? {} : { cooldowns }) } satisfies Explanation
})
