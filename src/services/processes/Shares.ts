/**
 * How a service of several processes divides its models and its limits. Pure.
 *
 * **Details**
 *
 * A local model is loaded once: by the first process, which serves all requests that can reach it, as the model itself or
 * as a fallback. Models that have remote deployments only are served by every process. The concurrency of their deployments is
 * leased (`SlotLeases`); limits that count what one process holds are divided here. Rates and budgets are counted by the supervisor
 * (`SupervisedCounters`), or in Redis or Postgres. Keys and usage are in the database, which cannot be in memory.
 */
import type { Bounds } from "../../domain/AdaptiveConcurrency.ts"
import { boundsOf, mostConcurrent } from "../../domain/AdaptiveConcurrency.ts"
import type { Deployment, DeploymentOptions, Model } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import * as Problem from "../../domain/Problem.ts"
import { routingOf } from "../../domain/RoutingPolicy.ts"
import { isWildcard, wildcardFor, wildcardsIn } from "../models/Wildcards.ts"
import type { Resolved } from "../settings/Settings.ts"

/** The process that loads local models and answers administration. */
export const first = 1

/**
 * The part of a limit for one of several processes; the parts add up to the limit.
 *
 * @param index from 1 up to `count`
 */
export const shareOf = (limit: number, index: number, count: number): number =>
  Math.floor(limit / count) + (index <= limit % count ? 1 : 0)

const fallbacksOf = (model: Model): ReadonlyArray<string> => {
  const { content, context, ordinary } = routingOf(model, []).fallbacks
  return [...ordinary, ...context, ...content]
}

/** The own name of the model that serves a name: that of the name or the alias, else a wildcard. */
const makeOwnName = (models: ReadonlyArray<Model>): (name: string) => string => {
  const names = new Map(models.flatMap(({ aliases = [], name }) => [name, ...aliases].map((one) => [one, name])))
  const wildcards = wildcardsIn(models)
  return (name) => names.get(name) ?? wildcardFor(wildcards, name)?.name ?? name
}

/** The own names of the models that only the first process serves: those that have a local deployment or can reach one. */
const modelsOfFirst = (models: ReadonlyArray<Model>): ReadonlySet<string> => {
  const found = new Set<string>()
  const ownName = makeOwnName(models)
  const reaches = (model: Model): boolean =>
    model.deployments.some(({ options }) => !isRemote(options)) ||
    fallbacksOf(model).some((name) => found.has(ownName(name)))
  for (let before = -1; before < found.size;) {
    before = found.size
    for (const model of models) if (reaches(model)) found.add(model.name)
  }
  return found
}

/** Whether only the first process serves a name: that of a model, an alias, or a name of a wildcard. */
export const makeIsOfFirst = (models: ReadonlyArray<Model>): (name: string) => boolean => {
  const own = modelsOfFirst(models)
  const ownName = makeOwnName(models)
  return (name) => own.has(ownName(name))
}

/** The models that every process serves. */
const sharedModels = (models: ReadonlyArray<Model>): ReadonlyArray<Model> => {
  const own = modelsOfFirst(models)
  return models.filter(({ name }) => !own.has(name) && !isWildcard(name))
}

/** The wildcards that every process serves. */
const dividedWildcards = (models: ReadonlyArray<Model>): ReadonlyArray<Model> => {
  const own = modelsOfFirst(models)
  return models.filter(({ name }) => isWildcard(name) && !own.has(name))
}

/** An adaptive limit that several processes share. */
export interface AdaptiveLease extends Bounds {
  /** The model and its host: what was measured holds for these. */
  readonly server: ReadonlyArray<string | undefined>
}

/** The concurrency of a deployment that several processes call. */
export type LeasedLimit = AdaptiveLease | number

/** Where an adaptive limit begins, or the number. */
export const firstOf = (limit: LeasedLimit): number => typeof limit === "number" ? limit : limit.initial

/** The concurrency of each deployment that several processes call, by its id. */
export const leasedLimits = (models: ReadonlyArray<Model>): ReadonlyMap<string, LeasedLimit> =>
  new Map(
    sharedModels(models).flatMap(({ deployments }) =>
      deployments.flatMap(({ id, options }): ReadonlyArray<readonly [string, LeasedLimit]> => {
        if (!isRemote(options)) return []
        const { baseUrl, maxConcurrent, model, provider } = options
        const bounds = boundsOf(maxConcurrent)
        return [[
          id,
          bounds === undefined ? mostConcurrent(maxConcurrent) : { ...bounds, server: [provider, baseUrl, model] }
        ]]
      })
    )
  )

const least = (
  path: ReadonlyArray<number | string>,
  limit: number | undefined,
  count: number
): ReadonlyArray<Problem.Problem> =>
  limit === undefined || limit >= count
    ? []
    : [{
      path: Problem.formatPath(path),
      expected: `Expected at least ${count}, 1 for each of the ${count} processes (server.processes)`
    }]

/** The parts of an adaptive limit would adapt by themselves, and so grow above what the provider takes. */
const wildcardProblem = (
  path: ReadonlyArray<number | string>,
  options: DeploymentOptions,
  count: number
): ReadonlyArray<Problem.Problem> => {
  if (!isRemote(options)) return []
  return boundsOf(options.maxConcurrent) === undefined
    ? least(path, mostConcurrent(options.maxConcurrent), count)
    : [{
      path: Problem.formatPath(path),
      expected:
        `Expected a number, because the ${count} processes (server.processes) cannot share an adaptive limit of a wildcard. ` +
        "Set server.processes: 1, or list its models"
    }]
}

/** Problems of settings that cannot be divided among this number of processes. */
export const problemsOf = ({ models, server, storage }: Resolved, count: number): ReadonlyArray<Problem.Problem> => [
  ...(storage.type === "memory"
    ? [{
      path: "storage.type",
      expected:
        `Expected sqlite or postgres, because in memory each of the ${count} processes (server.processes) would have ` +
        "keys and usage of its own"
    }]
    : []),
  ...least(["server", "maxConnections"], server.maxConnections, count),
  ...[...sharedModels(models), ...dividedWildcards(models)].flatMap(({ deployments: [{ queueLimit }], name }) =>
    least(["models", name, "queueLimit"], queueLimit, count)
  ),
  ...dividedWildcards(models).flatMap(({ deployments, name }) =>
    deployments.flatMap(({ options }, index) =>
      wildcardProblem(["models", name, "deployments", index, "maxConcurrent"], options, count)
    )
  )
]

/** The part of a wildcard's concurrency: its models are not known before they are requested, and so not leased. */
const sharedOptions = (options: DeploymentOptions, index: number, count: number): DeploymentOptions =>
  isRemote(options)
    ? {
      ...options,
      maxConcurrent: shareOf(mostConcurrent(options.maxConcurrent), index, count)
    }
    : options

/**
 * The settings of one process: its part of the connections, of the memory of bodies, and of the queues of shared models. Only
 * the first loads local models.
 *
 * @param index from 1 up to `count`
 */
export const settingsOf = (settings: Resolved, index: number, count: number): Resolved => {
  const { maxConnections, maxRequestMemory } = settings.server
  const own = modelsOfFirst(settings.models)
  const divided = (deployment: Deployment): Deployment =>
    own.has(deployment.model)
      ? { ...deployment, preload: deployment.preload && index === first }
      : {
        ...deployment,
        queueLimit: shareOf(deployment.queueLimit, index, count),
        options: isWildcard(deployment.model)
          ? sharedOptions(deployment.options, index, count)
          : deployment.options
      }
  return {
    ...settings,
    server: {
      ...settings.server,
      maxConnections: shareOf(maxConnections, index, count),
      ...(maxRequestMemory === undefined ? {} : { maxRequestMemory: shareOf(maxRequestMemory, index, count) })
    },
    models: settings.models.map((model) => {
      const [head, ...others] = model.deployments
      return { ...model, deployments: [divided(head), ...others.map(divided)] }
    })
  }
}
