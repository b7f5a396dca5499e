/** The policies of `troupe.yaml`: their schema, their resolution with defaults, and checks of the names in models. */
import { Duration, Schema } from "effect"
import { described, optional, Span, SpanOrOff } from "../../domain/Fields.ts"
import { didYouMean } from "../../domain/NearestName.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import { mostRetries } from "../../domain/RoutingOptions.ts"
import type { Routing } from "../../domain/RoutingPolicy.ts"
import * as RoutingPolicy from "../../domain/RoutingPolicy.ts"
import type { Custom, CustomName } from "../../domain/SelectionOptions.ts"
import { customName, placeholder } from "../../domain/SelectionOptions.ts"
import type { Name } from "../../domain/Strategies.ts"
import { names as strategies } from "../../domain/Strategies.ts"
import * as CachedResponses from "../cache/CachedResponses.ts"
import { isWildcard, nameInstead, wildcardFor } from "../models/Wildcards.ts"
import { cachedResponses } from "../routing/DecisionRecord.ts"

/** The limit is that of a request. */
const Retries = wholeNumber(0, mostRetries)
const Share = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const AtLeastNothing = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

// Both kinds of name have one message, so that a wrong name is one problem.
const unknownStrategy = { message: `Expected ${strategies.map((name) => JSON.stringify(name)).join(" | ")}` }

/** By name; `custom/` begins the names of strategies that an embedding program provides. */
const Strategy = Schema.Union([
  Schema.Literals(strategies).annotate(unknownStrategy),
  Schema.String.check(Schema.isPattern(customName, unknownStrategy)) as unknown as Schema.Codec<CustomName>
])

const { weights } = RoutingPolicy.defaults.selection

const strategy = optional("How deployments are chosen. Default balanced.", Strategy)

/** One policy of a file. */
export const PolicySettings = Schema.Struct({
  strategy,
  weights: optional(
    "Weights of the strategy balanced.",
    Schema.Struct({
      speed: optional(`Weight of speed. Default ${weights.speed}.`, AtLeastNothing),
      quality: optional(`Weight of quality. Default ${weights.quality}.`, AtLeastNothing),
      cost: optional(`Weight of cost. Default ${weights.cost}.`, AtLeastNothing),
      task: optional(
        `Weight of deployments that list the task of the request. Default ${weights.task}.`,
        AtLeastNothing
      )
    })
  ),
  limits: optional(
    "Limits of the strategy cost.",
    Schema.Struct({
      quality: optional("Minimum quality. Default 0.8.", Share),
      cost: optional("Maximum USD for a request. Default 0.01.", AtLeastNothing)
    })
  ),
  exploration: optional("Share of requests that try a deployment without measurements first. Default 0.05.", Share),
  candidates: optional("Number of deployments to try, including the first. Default 3.", wholeNumber(1)),
  spill: optional("Try deployments that are loading or have a full queue last. Default true.", Schema.Boolean),
  retries: optional("Retries per deployment. Default 2.", Retries),
  maxAttempts: optional("Maximum number of attempts of one request. Default 6.", wholeNumber(1)),
  backoff: optional(
    "Delay between two attempts at one deployment, with a jitter of 20 %.",
    Schema.Struct({
      initial: optional("First delay. Default 250 ms.", Span),
      factor: optional(
        "Factor by which each delay is longer than the one before. Default 2.",
        Schema.Finite.check(Schema.isGreaterThanOrEqualTo(1))
      ),
      cap: optional("Maximum delay. Default 10 seconds.", Span)
    })
  ),
  maxWait: optional(
    "Maximum wait for a deployment to become available when no other is, false for no wait. Delays between retries at one " +
      "deployment are limited by `backoff.cap` instead. Default 10 seconds.",
    SpanOrOff
  ),
  timeouts: optional(
    "Timeouts. Default those of the deployments only.",
    Schema.Struct({
      queue: optional(
        "How long an attempt waits for a free slot of a loaded engine. After that, the next deployment is tried, and a load continues. " +
          "false for no limit. Default no limit.",
        SpanOrOff
      ),
      load: optional(
        "How long a load of one of the model's deployments may take. After that, its engine is stopped, and the requests that " +
          "wait for it fail or go to the next deployment. Default 5 minutes.",
        Span
      ),
      firstToken: optional(
        "Each attempt, from its slot to its first content. false for no limit. Default no limit.",
        SpanOrOff
      ),
      stall: optional("Between two pieces of an answer. false for no limit. Default no limit.", SpanOrOff),
      total: optional("The whole request. false for no limit. Default no limit.", SpanOrOff)
    })
  ),
  hedge: optional(
    "A second attempt at another deployment when the first is slow. Default none.",
    Schema.Struct({
      after: optional(
        "Time without content after which the second attempt starts. Default the 95th percentile of time to first token.",
        Span
      ),
      share: described("Maximum share of requests that are hedged.", Share)
    })
  ),
  retryOnce: optional(
    "HTTP statuses of providers that are retried once at the same deployment before the next, not retries times. Default [500].",
    Schema.Array(wholeNumber(400, 599))
  ),
  shorterBy: optional(
    "Factor for maxTokens when prompt and answer do not fit the context window. Default 0.7.",
    Schema.Finite.check(Schema.isBetween({ minimum: 0.01, maximum: 0.99 }))
  ),
  continue: optional(
    "When a deployment fails during an answer, another one continues the text. Default false.",
    Schema.Boolean
  )
})
export type PolicySettings = typeof PolicySettings.Type

const Models = Schema.Array(Schema.NonEmptyString)

/** Routing fields of a model. */
export const routingFields = {
  policy: optional("Name of the policy. Default the policy default.", Schema.NonEmptyString),
  strategy: optional("How its deployments are chosen. Default that of the policy.", Strategy),
  fallbacks: optional(
    "Fallback models, in order. The last one may be cached-responses: the newest cached answer to the same request. " +
      "Not used for embeddings and tokenization: other models have other vectors and token ids. Default none.",
    Models
  ),
  contextFallbacks: optional("Fallback models for prompts that are too long, in order. Default none.", Models),
  contentFallbacks: optional("Fallback models for content that its providers refuse, in order. Default none.", Models)
}

const RoutingSettings = Schema.Struct(routingFields)
type RoutingSettings = typeof RoutingSettings.Type

/** The sections that this file uses. */
interface Source {
  readonly policies?: Readonly<Record<string, PolicySettings>>
  readonly models?: Readonly<Record<string, RoutingSettings>>
}

const defaultName = RoutingPolicy.defaults.name

const ms = (span: Duration.Duration | undefined): number | undefined => span && Duration.toMillis(span)

/** The limit in ms; undefined where it is turned off. */
const limitOf = (span: SpanOrOff | undefined, base: number | undefined): number | undefined =>
  span === false ? undefined : ms(span) ?? base

/** The object without undefined fields. */
const defined = <A extends object>(some: A) =>
  Object.fromEntries(Object.entries(some).filter(([, value]) => value !== undefined)) as {
    readonly [K in keyof A]?: Exclude<A[K], undefined>
  }

const isBuiltIn = (name: Name | CustomName): name is Name => strategies.some((known) => known === name)

const strategyOf = (name: Name | CustomName | undefined): Name | Custom | undefined =>
  name === undefined || isBuiltIn(name) ? name : placeholder(name)

const selectionOf = (
  settings: PolicySettings,
  { selection }: RoutingPolicy.Policy
): RoutingPolicy.Policy["selection"] => ({
  ...selection,
  ...defined({
    strategy: strategyOf(settings.strategy),
    exploration: settings.exploration,
    keep: settings.candidates,
    spill: settings.spill
  }),
  weights: { ...selection.weights, ...settings.weights },
  limits: { ...selection.limits, ...settings.limits }
})

const timeoutsOf = (
  { firstToken, load, queue, stall, total }: NonNullable<PolicySettings["timeouts"]> = {},
  base: RoutingPolicy.Policy["timeouts"]
): RoutingPolicy.Policy["timeouts"] =>
  defined({
    queueMs: limitOf(queue, base.queueMs),
    loadMs: limitOf(load, base.loadMs),
    firstTokenMs: limitOf(firstToken, base.firstTokenMs),
    stallMs: limitOf(stall, base.stallMs),
    totalMs: limitOf(total, base.totalMs)
  })

const resolve = (name: string, settings: PolicySettings, base: RoutingPolicy.Policy): RoutingPolicy.Policy => {
  const { backoff, hedge, maxAttempts, maxWait, retries, retryOnce, shorterBy, timeouts } = settings
  return {
    ...base,
    ...defined({
      retries,
      maxAttempts,
      retryOnce,
      shorterBy,
      continue: settings.continue,
      maxWaitMs: maxWait === false ? 0 : ms(maxWait)
    }),
    name,
    selection: selectionOf(settings, base),
    backoff: {
      ...base.backoff,
      ...defined({ initialMs: ms(backoff?.initial), factor: backoff?.factor, capMs: ms(backoff?.cap) })
    },
    timeouts: timeoutsOf(timeouts, base.timeouts),
    ...(hedge === undefined ? {} : { hedge: { share: hedge.share, ...defined({ afterMs: ms(hedge.after) }) } })
  }
}

/** All policies, `default` first: the others inherit from it, and it can be configured too. */
export const policiesOf = ({ policies = {} }: Source): ReadonlyArray<RoutingPolicy.Policy> => {
  const { [defaultName]: own = {}, ...others } = policies
  const base = resolve(defaultName, own, RoutingPolicy.defaults)
  return [base, ...Object.entries(others).map(([name, settings]) => resolve(name, settings, base))]
}

/** The policy and the fallbacks of a model. */
export const routingOf = (settings: RoutingSettings, policies: ReadonlyArray<RoutingPolicy.Policy>): Routing => {
  const name = settings.policy ?? defaultName
  // Names have been checked already; a program without a file has the defaults.
  const policy = policies.find((one) => one.name === name) ?? RoutingPolicy.defaults
  const strategy = strategyOf(settings.strategy)
  return {
    policy: strategy === undefined ? policy : { ...policy, selection: { ...policy.selection, strategy } },
    fallbacks: {
      ordinary: settings.fallbacks ?? [],
      context: settings.contextFallbacks ?? [],
      content: settings.contentFallbacks ?? []
    }
  }
}

interface Found {
  readonly path: ReadonlyArray<PropertyKey>
  readonly expected: string
}

const listed = (all: ReadonlyArray<string>): string => all.length === 0 ? "none" : all.join(", ")

/** The names, and the one that an unknown name stands for. */
const listedWith = (unknown: string, all: ReadonlyArray<string>): string => {
  const meant = didYouMean(unknown, all)
  return `${listed(all)}${meant === "" ? "" : `.${meant}`}`
}

const policyProblem = (
  model: string,
  { policy }: RoutingSettings,
  policies: ReadonlyArray<string>
): ReadonlyArray<Found> =>
  policy === undefined || policies.includes(policy)
    ? []
    : [{
      path: ["models", model, "policy"],
      expected: `Unknown policy. Available policies: ${listedWith(policy, policies)}`
    }]

/** Whether a wildcard serves the name. */
const isOfWildcard = (models: ReadonlyArray<string>, name: string): boolean =>
  wildcardFor(models.filter(isWildcard).map((name) => ({ name })), name) !== undefined

const fallbackProblems = (
  model: string,
  settings: RoutingSettings,
  models: ReadonlyArray<string>
): ReadonlyArray<Found> => {
  const others = models.filter((name) => name !== model)
  return (["fallbacks", "contextFallbacks", "contentFallbacks"] as const).flatMap((list) => {
    const names = settings[list] ?? []
    return names.flatMap((name, index) => {
      const isLast = list === "fallbacks" && index === names.length - 1
      const expected = name === cachedResponses
        ? isLast ? undefined : CachedResponses.onlyLast
        : name.includes("*") && isOfWildcard(models, name)
        ? nameInstead(name)
        : others.includes(name) || isOfWildcard(others, name)
        ? undefined
        : `Expected the name of another model. Available models: ${listedWith(name, others)}`
      return expected === undefined ? [] : [{ path: ["models", model, list, index], expected }]
    })
  })
}

/** Problems of strategies that only an embedding program can provide. */
export const customStrategyProblems = ({ models = {}, policies = {} }: Source): ReadonlyArray<Found> =>
  Object.entries({ models, policies }).flatMap(([section, named]) =>
    Object.entries(named).flatMap(([name, { strategy }]) =>
      strategy === undefined || isBuiltIn(strategy)
        ? []
        : [{
          path: [section, name, "strategy"],
          expected: `Expected one of ${listed(strategies)}: only an embedding program provides ${strategy}`
        }]
    )
  )

/** Unknown names of policies and models. `known` has the names of the whole file when only a part of it is valid. */
export const routingProblems = (
  { models = {}, policies = {} }: Source,
  known: { readonly models: ReadonlyArray<string>; readonly policies: ReadonlyArray<string> } = {
    models: Object.keys(models),
    policies: Object.keys(policies)
  }
): ReadonlyArray<Found> => {
  const policyNames = [defaultName, ...known.policies.filter((name) => name !== defaultName)]
  const modelNames = known.models
  return Object.entries(models).flatMap(([model, settings]) => [
    ...policyProblem(model, settings, policyNames),
    ...fallbackProblems(model, settings, modelNames)
  ])
}
