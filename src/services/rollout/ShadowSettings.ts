/** The field `shadow` of a model: copies of its requests for a deployment whose answers no caller gets. */
import { Duration, Schema } from "effect"
import { described, optional, Span } from "../../domain/Fields.ts"
import * as Identity from "../../domain/Identity.ts"
import { maxSeed } from "../../domain/Inference.ts"
import type { KeyedProblem } from "../../domain/Problem.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import { noDeploymentOf, Share } from "./RolloutSettings.ts"

/** How the answers of a pair are compared; a custom comparison gives a number from 0 to 1. */
export const comparisons = ["exact", "similarity", "custom"] as const

/** The embedded model that compares answers by default. */
export const defaultEmbeddings = "tiny-embed"

/** The most differing pairs that are kept. */
const mostKept = 100

export const ShadowSettings = Schema.Struct({
  candidate: described(
    "Id of the deployment that gets the copies, such as chat#1. Requests of callers do not go there.",
    Schema.NonEmptyString
  ),
  percent: described(
    "Percent of the requests that are copied.",
    Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 100 }))
  ),
  sticky: optional("All requests of one session are copied, or none. Default true.", Schema.Boolean),
  seed: optional("Chooses which requests are copied. Default random.", wholeNumber(0, maxSeed)),
  compare: optional(
    "How two answers are compared: exact (equal but for white space at the ends), similarity (cosine of their embeddings) " +
      "or custom (by the program that embeds Troupe). Default exact.",
    Schema.Literals(comparisons)
  ),
  embeddings: optional(
    `The model that embeds answers, for similarity. Default ${defaultEmbeddings}.`,
    Schema.NonEmptyString
  ),
  agreesFrom: optional("Similarity or custom score from which two answers agree. Default 0.9.", Share),
  maxConcurrent: optional(
    "Copies at one time in a process; further ones are skipped. Default 4.",
    wholeNumber(1, 1_000)
  ),
  timeout: optional("How long a copy may take. Default 60 seconds.", Span),
  exceptTenants: optional("Tenants whose requests are not copied. Default none.", Schema.Array(Schema.NonEmptyString)),
  budget: optional("What copies may cost in a period. Default no limit.", Identity.Budget),
  keepDiffering: optional(
    "How many of the latest pairs with different answers are kept in memory, with their texts, for administration. Default 0.",
    wholeNumber(0, mostKept)
  )
})
export type ShadowSettings = typeof ShadowSettings.Type

/** The settings with every default. */
export interface ShadowPlan {
  readonly candidate: string
  /** Of the requests, from 0 to 1. */
  readonly share: number
  readonly sticky: boolean
  readonly seed: number | undefined
  readonly compare: (typeof comparisons)[number]
  readonly embeddings: string
  readonly agreesFrom: number
  readonly maxConcurrent: number
  readonly timeoutMs: number
  readonly exceptTenants: ReadonlyArray<string>
  readonly budget: Identity.Budget | undefined
  readonly keepDiffering: number
}

export const resolveShadow = ({
  agreesFrom = 0.9,
  budget,
  candidate,
  compare = "exact",
  embeddings = defaultEmbeddings,
  exceptTenants = [],
  keepDiffering = 0,
  maxConcurrent = 4,
  percent,
  seed,
  sticky = true,
  timeout = Duration.seconds(60)
}: ShadowSettings): ShadowPlan => ({
  candidate,
  share: percent / 100,
  sticky,
  seed,
  compare,
  embeddings,
  agreesFrom: compare === "exact" ? 1 : agreesFrom,
  maxConcurrent,
  timeoutMs: Duration.toMillis(timeout),
  exceptTenants,
  budget,
  keepDiffering
})

/** What a model needs to have for its shadow. */
interface ModelWithShadow {
  readonly name: string
  readonly deployments: ReadonlyArray<{ readonly id: string }>
}

const candidateProblem = (
  { deployments }: ModelWithShadow,
  candidate: string,
  variants: ReadonlyArray<{ readonly deployment: string }>
): string | undefined => {
  const ids = deployments.map(({ id }) => id)
  if (!ids.includes(candidate)) return noDeploymentOf(candidate, ids)
  if (ids.length === 1) return "Expected another deployment beside it, which answers the callers"
  return variants.some(({ deployment }) => deployment === candidate)
    ? "Expected a deployment that is no variant of the model's experiment"
    : undefined
}

/** Candidates and embedding models that there are not, and budgets without an amount. */
export const shadowProblems = (
  models: ReadonlyArray<ModelWithShadow>,
  shadows: ReadonlyMap<string, ShadowSettings>,
  variantsOf: (model: string) => ReadonlyArray<{ readonly deployment: string }>
): ReadonlyArray<KeyedProblem> => {
  const names = models.map(({ name }) => name)
  return models.flatMap((model) => {
    const settings = shadows.get(model.name)
    if (settings === undefined) return []
    const { budget, candidate, compare, embeddings = defaultEmbeddings } = settings
    const at = (field: string, expected: string): KeyedProblem => ({
      path: ["models", model.name, "shadow", field],
      expected
    })
    const problem = candidateProblem(model, candidate, variantsOf(model.name))
    return [
      ...(problem === undefined ? [] : [at("candidate", problem)]),
      ...(compare !== "similarity" || names.includes(embeddings)
        ? []
        : [at("embeddings", `Expected the name of a model that embeds. Available models: ${names.join(", ")}`)]),
      ...(budget === undefined || budget.usd !== undefined || budget.tokens !== undefined
        ? []
        : [at("budget", "Expected usd, tokens or both")])
    ]
  })
}
