/**
 * The settings of gradual rollouts and A/B tests, as in `troupe.yaml` or in a request, and the plans that they resolve to.
 */
import { Duration, Effect, Schema } from "effect"
import { described, durationText, optional, Span } from "../../domain/Fields.ts"
import { didYouMeanId } from "../../domain/NearestName.ts"
import { wholeNumber } from "../../domain/Problem.ts"

/** What the sequential test compares. `score` needs a score of every answer. */
export const metrics = ["errors", "refusals", "firstToken", "speed", "score", "hanging"] as const
export type Metric = (typeof metrics)[number]

export const Share = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const AtLeastNothing = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

/** Shares of a new version, in order. */
export const Steps = Schema.Array(Share).check(
  Schema.makeFilter((steps: ReadonlyArray<number>) =>
    steps.at(-1) === 1 && steps.every((share, index) => share > (steps[index - 1] ?? 0))
      ? undefined
      : "Expected shares above 0 that increase and end with 1, such as [0.1, 0.3, 0.7, 1]"
  ),
  Schema.isMaxLength(100)
)

export const Tolerance = Schema.Struct({
  errors: optional("Failures: difference of shares. Default 0.005.", Share),
  refusals: optional("Refusals: difference of shares. Default 0.01.", Share),
  firstToken: optional(
    "Time to first token: 0.2 permits a time that is 20 % longer. Rounded up to a power of 1.1. Default 0.2.",
    AtLeastNothing
  ),
  speed: optional(
    "Tokens per second: 0.2 permits an old speed that is 20 % higher. Rounded up to a power of 1.1. Default 0.2.",
    AtLeastNothing
  ),
  score: optional("Score: difference, rounded up to a multiple of 0.05. Default 0.05.", Share),
  hanging: optional(
    "Time without a token, or without an answer that is not streamed: 3 permits four times as long. Rounded up to a power of 1.41. Default 3.",
    AtLeastNothing
  )
})

const defaultTolerance = {
  errors: 0.005,
  refusals: 0.01,
  firstToken: 0.2,
  speed: 0.2,
  score: 0.05,
  hanging: 3
} as const satisfies Record<Metric, number>

/** The settings of the test, which a rollout and an A/B test share. */
export const comparisonFields = {
  alpha: optional(
    "Probability that a version that is not worse fails the sequential test at any time. Default 0.05.",
    Schema.Finite.check(Schema.isBetween({ minimum: 1e-9, maximum: 0.5 }))
  ),
  metrics: optional(
    "What is compared. Default [errors, refusals, firstToken, speed, hanging].",
    Schema.Array(Schema.Literals(metrics)).check(Schema.isUnique())
  ),
  tolerance: optional("Differences up to these do not count as worse.", Tolerance),
  sticky: optional("Requests of one session stay at one version. Default true.", Schema.Boolean)
}

/** Of an answer to a probe. */
const defaultProbeTokens = 256

/** Of the answer to a health check. */
const defaultCheckMs = 60_000

export const RolloutSettings = Schema.Struct({
  steps: optional("Shares of requests that the new version gets. Default [0.1, 0.3, 0.7, 1].", Steps),
  every: optional("How long a step lasts at least. Default 5 minutes.", Span),
  evaluateEvery: optional(
    "How often the versions are compared. A version that is worse is rolled back within this time. Default 10 seconds.",
    Span
  ),
  errorRate: optional(
    "Share of failed requests of a step above which the new version is rolled back, false for no limit. Default 0.05.",
    Schema.Union([Share, Schema.Literal(false)])
  ),
  hangsAfter: optional(
    "Time after which the new version is rolled back if at least 5 of its requests wait and none has a token (not streamed: an answer), false for no limit. At least four times the old version's 99th percentile (`tolerance.hanging`). Default 30 seconds.",
    Schema.Union([Span, Schema.Literal(false)])
  ),
  minRequests: optional(
    "Requests of the new version before a step can end, and before errorRate applies. Default 100.",
    wholeNumber(1)
  ),
  probes: optional(
    "Prompts that are sent to both versions where a step has too few requests. Default none.",
    Schema.Array(Schema.NonEmptyString).check(Schema.isMaxLength(100))
  ),
  probeTokens: optional(`Most tokens of an answer to a probe. Default ${defaultProbeTokens}.`, wholeNumber(1)),
  health: optional(
    "The check of the new version before its first request.",
    Schema.Struct({
      attempts: optional("Checks that may fail before the rollout ends. Default 3.", wholeNumber(1, 100)),
      every: optional("Time between two checks. Default 10 seconds.", Span),
      timeout: optional(
        `How long the answer to a check may take, after the load. Default ${durationText(defaultCheckMs)}.`,
        Span
      )
    })
  ),
  ...comparisonFields
})
export type RolloutSettings = typeof RolloutSettings.Type

/** What a comparison needs to know, with every default. */
export const ComparisonPlan = Schema.Struct({
  alpha: Schema.Finite,
  metrics: Schema.Array(Schema.Literals(metrics)),
  tolerance: Schema.Struct({
    errors: Schema.Finite,
    refusals: Schema.Finite,
    firstToken: Schema.Finite,
    speed: Schema.Finite,
    score: Schema.Finite,
    // States of earlier versions do not have it.
    hanging: Schema.Finite.pipe(Schema.withDecodingDefaultKey(Effect.succeed(defaultTolerance.hanging)))
  }),
  sticky: Schema.Boolean
})
export type ComparisonPlan = typeof ComparisonPlan.Type

const defaultHangsMs = 30_000

/** The settings of a rollout with every default; durations in ms. */
export const RolloutPlan = Schema.Struct({
  ...ComparisonPlan.fields,
  steps: Steps,
  stepMs: Schema.Finite,
  evaluateMs: Schema.Finite,
  /** null: no limit. */
  errorRate: Schema.NullOr(Share),
  /** null: no limit. States of earlier versions do not have it. */
  hangsMs: Schema.NullOr(Schema.Finite).pipe(Schema.withDecodingDefaultKey(Effect.succeed(defaultHangsMs))),
  minRequests: Schema.Int,
  probes: Schema.Array(Schema.String),
  // States of earlier versions do not have it, nor `timeoutMs`.
  probeTokens: Schema.Int.pipe(Schema.withDecodingDefaultKey(Effect.succeed(defaultProbeTokens))),
  health: Schema.Struct({
    attempts: Schema.Int,
    everyMs: Schema.Finite,
    timeoutMs: Schema.Finite.pipe(Schema.withDecodingDefaultKey(Effect.succeed(defaultCheckMs)))
  })
})
export type RolloutPlan = typeof RolloutPlan.Type

/** The problem of an id that is none of a model's deployments. */
export const noDeploymentOf = (id: string, ids: ReadonlyArray<string>): string => {
  const meant = didYouMeanId(id, ids)
  return `Expected the id of one of the model's deployments: ${ids.join(", ")}${meant === "" ? "" : `.${meant}`}`
}

const Variant = Schema.Struct({
  deployment: described("The deployment.", Schema.NonEmptyString),
  weight: described("Its share of requests, relative to the other variants.", AtLeastNothing)
})

/** An A/B test: deployments with fixed shares of requests. */
export const ExperimentSettings = Schema.Struct({
  variants: described(
    "The deployments. The others are compared with the first.",
    Schema.Array(Variant).check(
      Schema.isBetweenLength(2, 10, { message: "Expected 2 to 10 variants" }),
      Schema.makeFilter((variants: ReadonlyArray<typeof Variant.Type>) =>
        variants.some(({ weight }) => weight > 0) &&
          new Set(variants.map(({ deployment }) => deployment)).size === variants.length
          ? undefined
          : "Expected different deployments, one of them with a weight above 0"
      )
    )
  ),
  evaluateEvery: optional("How often the variants are compared. Default 10 seconds.", Span),
  ...comparisonFields
})
export type ExperimentSettings = typeof ExperimentSettings.Type

type ComparisonSettings = Pick<RolloutSettings, keyof typeof comparisonFields>

export const resolveComparison = (settings: ComparisonSettings = {}): ComparisonPlan => ({
  alpha: settings.alpha ?? 0.05,
  metrics: settings.metrics ?? ["errors", "refusals", "firstToken", "speed", "hanging"],
  tolerance: { ...defaultTolerance, ...settings.tolerance },
  sticky: settings.sticky ?? true
})

/** The settings of an A/B test with every default. */
export const ExperimentPlan = Schema.Struct({
  ...ComparisonPlan.fields,
  variants: Schema.Array(Variant),
  evaluateMs: Schema.Finite
})
export type ExperimentPlan = typeof ExperimentPlan.Type

const millis = (span: Duration.Duration | undefined, usual: number): number =>
  span === undefined ? usual : Duration.toMillis(span)

export const resolveExperiment = (settings: ExperimentSettings): ExperimentPlan => ({
  ...resolveComparison(settings),
  variants: settings.variants,
  evaluateMs: millis(settings.evaluateEvery, 10_000)
})

const healthOf = ({ attempts = 3, every, timeout }: RolloutSettings["health"] = {}): RolloutPlan["health"] => ({
  attempts,
  everyMs: millis(every, 10_000),
  timeoutMs: millis(timeout, defaultCheckMs)
})

export const resolve = (settings: RolloutSettings = {}): RolloutPlan => ({
  ...resolveComparison(settings),
  steps: settings.steps ?? [0.1, 0.3, 0.7, 1],
  stepMs: millis(settings.every, 5 * 60_000),
  evaluateMs: millis(settings.evaluateEvery, 10_000),
  errorRate: settings.errorRate === false ? null : settings.errorRate ?? 0.05,
  hangsMs: settings.hangsAfter === false ? null : millis(settings.hangsAfter, defaultHangsMs),
  minRequests: settings.minRequests ?? 100,
  probes: settings.probes ?? [],
  probeTokens: settings.probeTokens ?? defaultProbeTokens,
  health: healthOf(settings.health)
})
