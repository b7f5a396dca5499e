/**
 * What would become of a request if it came now, as plain data: who would answer, who would follow, why, and by which
 * plan. Nothing is called and nothing is counted.
 *
 * **Gotchas**
 *
 * Whatever a strategy leaves to chance is drawn anew for every request, so the next one may go elsewhere.
 */
import { Effect, Schema } from "effect"
import { abilities } from "../../domain/EngineProtocol.ts"
import { RoutingOptions } from "../../domain/RoutingOptions.ts"
import type { RequiredCapability, RoutingRequest } from "../../domain/RoutingRequest.ts"
import * as Time from "../../domain/Time.ts"
import { name as cachedResponses } from "../cache/CachedResponses.ts"
import { Providers } from "../engines/Providers.ts"
import { Registry } from "../models/Registry.ts"
import { Decision } from "./DecisionRecord.ts"
import type { Route } from "./Route.ts"
import { Router } from "./Router.ts"

/** What of a request decides. */
export const ExplanationRequest = Schema.Struct({
  /** Default the first that is configured. */
  model: Schema.optionalKey(Schema.NonEmptyString),
  /** Of a user's message, the only one. */
  prompt: Schema.optionalKey(Schema.String),
  /** What the deployment must be able to do. */
  needs: Schema.optionalKey(Schema.Array(Schema.Literals(abilities))),
  maxTokens: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))),
  tenant: Schema.optionalKey(Schema.String),
  route: Schema.optionalKey(RoutingOptions)
}).annotate({ identifier: "RouteQuestion" })
export type ExplanationRequest = typeof ExplanationRequest.Type

const Names = Schema.Array(Schema.String)
const optionalMs = Schema.optionalKey(Schema.Finite)

/** What would be tried, as a policy and the moment come to it; times in ms. */
export const Plan = Schema.Struct({
  /** Deployments in the order in which they are tried, by what goes wrong; the first of `ordinary` would answer. */
  lists: Schema.Struct({ ordinary: Names, context: Names, content: Names }),
  /** At one deployment, after its first attempt. */
  retries: Schema.Int,
  maxAttempts: Schema.Int,
  backoff: Schema.Struct({ initialMs: Schema.Finite, factor: Schema.Finite, capMs: Schema.Finite }),
  maxWaitMs: Schema.Finite,
  /** What is left out has no limit. */
  timeouts: Schema.Struct({
    queueMs: optionalMs,
    loadMs: optionalMs,
    firstTokenMs: optionalMs,
    stallMs: optionalMs,
    totalMs: optionalMs
  }),
  /** Left out, never; without `afterMs`, as soon as the first tokens of the primary have been measured. */
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

/** Requests that no text is generated for. */
const tasks: ReadonlySet<RequiredCapability> = new Set<RequiredCapability>(["embed", "rerank", "classify", "tokenize"])

/** The request to explain: a chat, unless it needs the capability of another task. */
export const routingRequestOf = (
  { needs = [], prompt, ...rest }: ExplanationRequest,
  model: string
): RoutingRequest => ({
  ...rest,
  model,
  capabilities: needs.some((need) => tasks.has(need)) ? needs : ["generate", ...needs],
  promptLength: prompt?.length,
  // As engines begin it: no tools, and one message.
  promptText: prompt === undefined ? undefined : () => JSON.stringify([[], [{ role: "user", content: prompt }]])
})

/** Without what is not there: JSON has no `undefined`. */
const present = <A extends object>(some: A): A =>
  Object.fromEntries(Object.entries(some).filter(([, value]) => value !== undefined)) as A

const idsOf = (deployments: Route["deployments"]): ReadonlyArray<string> => deployments.map(({ id }) => id)

export const make = (
  { cached, decision, deployments, fallbacks: { content, context, ordinary }, model, policy, slowestFirstTokenMs }:
    Route
): Explanation => {
  const { backoff, hedge, maxAttempts, maxWaitMs, name, retries, shorterBy, timeouts } = policy
  return {
    model,
    policy: name,
    decision,
    plan: {
      lists: {
        ordinary: [...idsOf(deployments), ...idsOf(ordinary), ...(cached ? [cachedResponses] : [])],
        context: idsOf(context),
        content: idsOf(content)
      },
      retries,
      maxAttempts,
      backoff,
      maxWaitMs,
      timeouts: present(timeouts) as Plan["timeouts"],
      ...(hedge === undefined
        ? {}
        : {
          hedge: present({ share: hedge.share, afterMs: hedge.afterMs ?? slowestFirstTokenMs }) as Plan["hedge"] & {}
        }),
      shorterBy
    }
  }
}

/** The keys of the route's deployments that must not be used at the moment. */
const cooldownsOf = (
  { deployments, fallbacks: { content, context, ordinary } }: Route,
  { keyCooldown }: Providers["Service"],
  now: number
): Explanation["cooldowns"] & {} => {
  const all = new Map([...deployments, ...ordinary, ...context, ...content].map((one) => [one.id, one]))
  return [...all.values()]
    .map((one) => ({ deployment: one.id, retryAfterMs: keyCooldown(one, now) }))
    .filter(({ retryAfterMs }) => retryAfterMs > 0)
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
