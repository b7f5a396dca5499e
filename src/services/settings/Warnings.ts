/** What is valid in a configuration and probably not meant: for `troupe config check` and the start of the service. Pure. */
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import * as Identity from "../../domain/Identity.ts"
import { nearestName } from "../../domain/NearestName.ts"
import type { Problem } from "../../domain/Problem.ts"
import { formatPath } from "../../domain/Problem.ts"
import { hostOf, isPrivateHost } from "../../domain/PublicAddress.ts"
import { addressOf } from "../../domain/RemoteDeployment.ts"
import type { BudgetRule } from "../budgets/BudgetBook.ts"
import { factsOf } from "../routing/DeploymentFacts.ts"
import type { Resolved } from "./Settings.ts"

type Path = ReadonlyArray<PropertyKey>

const isOneOf = (name: string, patterns: ReadonlyArray<string> = ["*"]): boolean =>
  patterns.some((pattern) => Identity.matches(pattern, name))

/** Why a pattern matches no model, without the full stop; undefined if it matches one. */
export const unmatchedText = ({ models }: Pick<Resolved, "models">, pattern: string): string | undefined => {
  if (models.some(({ name }) => Identity.matches(pattern, name))) return undefined
  const text = JSON.stringify(pattern)
  const named = models.find(({ aliases = [] }) => aliases.includes(pattern))
  if (named !== undefined) return `${text} is an alias. Write the model's own name, ${named.name}`
  const nearest = nearestName(pattern, models.map(({ name }) => name))
  return `No configured model matches ${text}${nearest === undefined ? "" : `. Did you mean ${nearest}?`}`
}

/** Patterns that match no model. */
const unmatched = (settings: Resolved, path: Path, patterns: ReadonlyArray<string> = []): ReadonlyArray<Problem> =>
  patterns.flatMap((pattern, index) => {
    const expected = unmatchedText(settings, pattern)
    return expected === undefined ? [] : [{ path: formatPath([...path, "models", index]), expected }]
  })

const unmatchedIn = (settings: Resolved): ReadonlyArray<Problem> => {
  const { admission: { budgets, defaultLimit, limits: named }, keys } = settings
  const limits = defaultLimit === undefined ? named : [defaultLimit, ...named]
  return [
    ...keys.flatMap(({ models, name }) => unmatched(settings, ["keys", name], models)),
    ...limits.flatMap(({ rule, scope }) => unmatched(settings, ["limits", rule.name], scope.models)),
    ...budgets.flatMap(({ rule, scope }) => unmatched(settings, ["budgets", rule.name], scope.models))
  ]
}

/** A budget in USD, and patterns of the models that it applies to. */
interface UsdBudget {
  readonly path: Path
  /** As a warning names it. */
  readonly name: string
  readonly patterns: ReadonlyArray<string> | undefined
  readonly mode: BudgetRule["mode"]
}

const usdBudgetsOf = ({ admission, keys }: Resolved): ReadonlyArray<UsdBudget> => [
  ...keys.flatMap(({ budgets = [], models, name }) =>
    budgets.flatMap(({ usd }, index): ReadonlyArray<UsdBudget> =>
      usd === undefined ? [] : [{
        path: ["keys", name, "budgets", index],
        name: `a budget of the key ${name}`,
        patterns: models,
        mode: "enforced"
      }]
    )
  ),
  ...admission.budgets.flatMap(({ rule, scope }): ReadonlyArray<UsdBudget> =>
    rule.nano === undefined ? [] : [{
      path: ["budgets", rule.name],
      name: `the budget ${rule.name}`,
      patterns: scope.models,
      mode: rule.mode
    }]
  )
]

/** Deployments that a warning names. */
const mostNamed = 5

const namesOf = (deployments: ReadonlyArray<Deployment>): string => {
  const more = deployments.length - mostNamed
  return deployments.slice(0, mostNamed).map(({ id }) => id).join(", ") + (more > 0 ? ` and ${more} more` : "")
}

/** Budgets in USD that apply to deployments whose price is unknown. */
const unpriced = (settings: Resolved): ReadonlyArray<Problem> => {
  const deployments = settings.models.flatMap(({ deployments }) => deployments)
    .filter((deployment) => factsOf(deployment).price === undefined)
  return usdBudgetsOf(settings).flatMap(({ mode, name, path, patterns }) => {
    const found = deployments.filter(({ model }) => isOneOf(model, patterns))
    if (found.length === 0) return []
    const effect = mode === "enforced"
      ? `${name} rejects requests that may be sent there`
      : `${name} does not count what is spent there`
    return [{
      path: formatPath([...path, "usd"]),
      expected: `The price of ${
        namesOf(found)
      } is unknown, so ${effect}. Set price: { input, output } of each deployment`
    }]
  })
}

/** The public API of a provider requires a key. */
const missingKey = ({ options }: Deployment): string | undefined => {
  if (!isRemote(options) || options.key !== undefined || options.keys !== undefined) return undefined
  const { baseUrl, defaultUrl, keyHeaders } = addressOf(options)
  if (baseUrl === undefined || baseUrl !== defaultUrl || isPrivateHost(hostOf(new URL(baseUrl)))) return undefined
  return Object.keys(options.headers ?? {}).some((name) => keyHeaders.includes(name.toLowerCase()))
    ? undefined
    : `No API key is configured, and ${baseUrl} requires one. ` +
      "Set key: ${NAME}, or set baseUrl to another host"
}

const withoutKey = ({ models }: Resolved): ReadonlyArray<Problem> =>
  models.flatMap(({ deployments, name }) =>
    deployments.flatMap((deployment, index) => {
      const expected = missingKey(deployment)
      return expected === undefined ? [] : [{ path: formatPath(["models", name, "deployments", index]), expected }]
    })
  )

/** Models whose deployments all wait for a rollout: none of them would take requests, so all do. */
const onlyCandidates = ({ experiments = new Map(), models }: Resolved): ReadonlyArray<Problem> =>
  models.filter(({ deployments, name }) =>
    !experiments.has(name) && deployments.every(({ options }) => options.rollout === "candidate")
  ).map(({ deployments, name }) => ({
    path: formatPath(["models", name, "deployments"]),
    expected:
      `Every deployment of the model is a candidate (${namesOf(deployments)}), so they take requests without a ` +
      "rollout. Remove rollout: candidate from one that is in use"
  }))

/** Copies that go to a provider, of a model whose requests stay on this machine. */
const leavingCopies = ({ models, shadows = new Map() }: Resolved): ReadonlyArray<Problem> =>
  models.flatMap(({ deployments, name }) => {
    const candidate = deployments.find(({ id }) => id === shadows.get(name)?.candidate)
    const others = deployments.filter((one) => one !== candidate)
    if (candidate === undefined || !isRemote(candidate.options)) return []
    if (others.some(({ options }) => isRemote(options))) return []
    return [{
      path: formatPath(["models", name, "shadow", "candidate"]),
      expected:
        `The requests of the model stay on this machine, and their copies go to the provider of ${candidate.id}. ` +
        "Remove shadow, or choose a candidate on this machine, if they must not"
    }]
  })

/** Why `maxReplicas` does nothing. */
const unusedMost = ({ options }: Deployment, { scaling }: Resolved): string | undefined => {
  if (isRemote(options) || options.maxReplicas === undefined) return undefined
  const { maxReplicas, replicas = 1 } = options
  if (scaling === undefined) return "It has no effect, because scaling is not configured. Add the section scaling: {}"
  return maxReplicas < replicas
    ? `It has no effect, because replicas is ${replicas}. Set it to at least that`
    : undefined
}

const withoutScaling = (settings: Resolved): ReadonlyArray<Problem> =>
  settings.models.flatMap(({ deployments, name }) =>
    deployments.flatMap((deployment, index) => {
      const expected = unusedMost(deployment, settings)
      const path = formatPath(["models", name, "deployments", index, "maxReplicas"])
      return expected === undefined ? [] : [{ path, expected }]
    })
  )

/** Every warning, at its setting. */
export const warningsOf = (settings: Resolved): ReadonlyArray<Problem> => [
  ...withoutKey(settings),
  ...unmatchedIn(settings),
  ...unpriced(settings),
  ...onlyCandidates(settings),
  ...leavingCopies(settings),
  ...withoutScaling(settings)
]
