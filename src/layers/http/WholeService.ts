/**
 * Answers of several processes of one service, as one.
 *
 * **Details**
 *
 * `make` asks the others, in the process that answers for all of them. The rest is pure.
 */
import { Effect, Stream } from "effect"
import type { Contents, QuestionContents, Selection, SemanticContents } from "../../services/cache/ResponseCache.ts"
import { contentsOf } from "../../services/cache/SemanticIndex.ts"
import * as Availability from "../../services/health/Availability.ts"
import type * as HealthDetails from "../../services/health/HealthDetails.ts"
import type { Models } from "../../services/models/Models.ts"
import type { CacheCleared, Circuit, Circuits, Deployment, Deployments } from "./AdminSchema.ts"
import { PeerProcesses } from "./Peers.ts"

const phases = ["closed", "half-open", "open"] as const

const states = ["ready", "draining", "loading", "failed", "cold"] as const

/** An adaptive limit is that of all processes. One of them may not have heard of a change yet. */
const limitOf = (one: Deployment, other: Deployment): Pick<Deployment, "limit"> => {
  const limits = [one, other].flatMap(({ limit }) => limit ?? [])
  return limits.length === 0 ? {} : { limit: Math.max(...limits) }
}

/** Processes share the slots of a remote deployment; only the first one has local models. */
const mostOf = (
  one: Deployment,
  other: Deployment
): Partial<Pick<Deployment, "oldestWaitMs" | "replicas" | "slots">> => {
  const most = (name: "oldestWaitMs" | "replicas" | "slots") => {
    const values = [one, other].flatMap((deployment) => deployment[name] ?? [])
    return values.length === 0 ? {} : { [name]: Math.max(...values) }
  }
  return { ...most("slots"), ...most("replicas"), ...most("oldestWaitMs") }
}

/** The keys of the process in which the next one may be used latest. */
const keysOf = (one: Deployment, other: Deployment): Deployment["keys"] => {
  if (one.keys === undefined || other.keys === undefined) return one.keys ?? other.keys
  return one.keys.retryAfterMs >= other.keys.retryAfterMs ? one.keys : other.keys
}

const restartsOf = ({ restarts = 0 }: Deployment, other: Deployment): Pick<Deployment, "restarts"> => {
  const sum = restarts + (other.restarts ?? 0)
  return sum === 0 ? {} : { restarts: sum }
}

/** It is drained if it is in both. */
const drainOf = (one: Deployment, other: Deployment): Pick<Deployment, "drain"> => {
  if (one.drain === undefined || other.drain === undefined) return {}
  return { drain: one.drain === "draining" ? one.drain : other.drain }
}

const add = (first: Deployment, other: Deployment): Deployment => {
  const { drain: _, ...one } = first
  const circuit = worse(one.circuit, other.circuit)
  const keys = keysOf(one, other)
  const lastFailure = one.lastFailure ?? other.lastFailure
  const threads = one.threads ?? other.threads
  return {
    ...one,
    ...(threads === undefined ? {} : { threads }),
    state: states.find((state) => state === one.state || state === other.state)!,
    running: one.running + other.running,
    queued: one.queued + other.queued,
    memoryBytes: one.memoryBytes + other.memoryBytes,
    ...(circuit === undefined ? {} : { circuit }),
    ...(keys === undefined ? {} : { keys }),
    ...(lastFailure === undefined ? {} : { lastFailure }),
    ...restartsOf(one, other),
    ...drainOf(first, other),
    ...mostOf(one, other),
    ...limitOf(one, other)
  }
}

const worse = <C extends Pick<Circuit, "phase">>(one: C | undefined, other: C | undefined): C | undefined => {
  if (one === undefined || other === undefined) return one ?? other
  return phases.indexOf(other.phase) > phases.indexOf(one.phase) ? other : one
}

/** Sums of what the processes run; a deployment is in the state that takes most requests. */
export const deployments = (
  own: ReadonlyArray<Deployment>,
  others: ReadonlyArray<{ readonly deployments: ReadonlyArray<Deployment> }>
): ReadonlyArray<Deployment> =>
  own.map((deployment) =>
    others.flatMap(({ deployments }) => deployments.filter((other) => other.deployment === deployment.deployment))
      .reduce(add, deployment)
  )

/** Of each deployment, the circuit that lets least through. */
export const circuits = (
  own: ReadonlyArray<Circuit>,
  others: ReadonlyArray<{ readonly circuits: ReadonlyArray<Circuit> }>
): ReadonlyArray<Circuit> => {
  const all = new Map<string, Circuit>()
  for (const circuit of [...own, ...others.flatMap(({ circuits }) => circuits)]) {
    all.set(circuit.deployment, worse(all.get(circuit.deployment), circuit)!)
  }
  return [...all.values()]
}

const sumOf = (one: Contents["memory"], other: Contents["memory"]): Contents["memory"] => ({
  entries: one.entries + other.entries,
  bytes: one.bytes + other.bytes
})

const sumOfQuestions = (one: SemanticContents, other: SemanticContents): SemanticContents => {
  const all = new Map<string, QuestionContents>()
  for (const row of [...one.questions, ...other.questions]) {
    const name = JSON.stringify([row.model, row.tenant])
    const known = all.get(name)
    all.set(name, known === undefined ? row : { ...row, ...sumOf(known, row), hits: known.hits + row.hits })
  }
  const { questions } = contentsOf([...all.values()])
  return { ...sumOf(one, other), hits: one.hits + other.hits, questions }
}

/** What the memory of all processes holds. */
export const cacheContents = (own: Contents, others: ReadonlyArray<Contents>): Contents =>
  others.reduce((one, other) => ({
    ...one,
    memory: sumOf(one.memory, other.memory),
    compact: sumOf(one.compact, other.compact),
    semantic: sumOfQuestions(one.semantic, other.semantic)
  }), own)

type ModelHealth = HealthDetails.Report["models"][number]
type DeploymentHealth = ModelHealth["deployments"][number]

/** A deployment can answer if it can in one of the processes. */
const addHealth = (one: DeploymentHealth, other: DeploymentHealth): DeploymentHealth => {
  const { unavailable, ...own } = one
  return {
    ...own,
    state: states.find((state) => state === one.state || state === other.state)!,
    running: one.running + other.running,
    queued: one.queued + other.queued,
    ...(unavailable === undefined || other.unavailable === undefined ? {} : { unavailable })
  }
}

const addModel = (model: ModelHealth, others: ReadonlyArray<ModelHealth>): ModelHealth => {
  const deployments = model.deployments.map((deployment) =>
    others.flatMap(({ deployments }) => deployments.filter((other) => other.deployment === deployment.deployment))
      .reduce(addHealth, deployment)
  )
  return { ...model, available: deployments.some(({ unavailable }) => unavailable === undefined), deployments }
}

type Uptime = Pick<HealthDetails.Report, "processUptimeSeconds" | "uptimeSeconds">

/** The uptime of the service, which is the longest, and those of its processes: one that crashes is started again. */
export const uptimeOf = (all: ReadonlyArray<Uptime>): Uptime => {
  const each = all.flatMap(({ processUptimeSeconds = [] }) => processUptimeSeconds)
  return {
    uptimeSeconds: Math.max(...all.map(({ uptimeSeconds }) => uptimeSeconds)),
    ...(each.length === 0 ? {} : { processUptimeSeconds: each })
  }
}

/**
 * The windows and the models of all processes.
 *
 * @param isOfFirst whether a model is served by the first process only, whose answer this is
 */
export const health = (
  own: HealthDetails.Report,
  others: ReadonlyArray<HealthDetails.Report>,
  isOfFirst: (model: string) => boolean
): HealthDetails.Report => ({
  ...own,
  ...uptimeOf([own, ...others]),
  windows: own.windows.map((window) =>
    Availability.sumOf(window, others.flatMap(({ windows }) => windows.filter((one) => one.window === window.window)))
  ),
  models: own.models.map((model) =>
    isOfFirst(model.model)
      ? model
      : addModel(model, others.flatMap(({ models }) => models.filter((other) => other.model === model.model)))
  )
})

/** A sample of Prometheus' text format: its series, and its value. */
const sample = /^([^#\s][^\s{]*(?:\{.*\})?) (\S+)$/

/** The series of one name in two processes together. */
const joined = (series: string, one: string, other: string): string =>
  String(
    /^(?:\w+_max|troupe_(?:concurrency_limit|memory_budget_bytes|model_available))(?:\{|$)/.test(series)
      ? Math.max(Number(one), Number(other))
      : Number(one) + Number(other)
  )

/**
 * Metrics in Prometheus' text format: the values of each series added, of names that end in `_max` the highest one. The others
 * are counters, buckets of histograms, and gauges of memory and queues, whose sum is that of the service.
 */
export const metrics = (own: string, others: ReadonlyArray<string>): string => {
  const values = new Map<string, string>()
  const lines: Array<string> = []
  const heads = new Set<string>()
  for (const line of [own, ...others].flatMap((text) => text.split("\n"))) {
    const [, series, value] = sample.exec(line) ?? []
    if (series === undefined || value === undefined) {
      if (line !== "" && !heads.has(line)) lines.push(line)
      heads.add(line)
      continue
    }
    const known = values.get(series)
    values.set(series, known === undefined ? value : joined(series, known, value))
    if (known === undefined) lines.push(series)
  }
  return grouped(lines, values)
}

const nameOf = (line: string): string =>
  (/^# \w+ (\S+)/.exec(line) ?? /^([^\s{]+)/.exec(line))![1]!.replace(/_(?:bucket|sum|count)$/, "")

/** The lines of each metric together, as the format requires. */
const grouped = (lines: ReadonlyArray<string>, values: ReadonlyMap<string, string>): string => {
  const byName = new Map<string, Array<string>>()
  for (const line of lines) {
    const value = values.get(line)
    const text = value === undefined ? line : `${line} ${value}`
    const name = nameOf(line)
    byName.set(name, [...byName.get(name) ?? [], text])
  }
  return `${[...byName.values()].flat().join("\n")}\n`
}

const queryOf = (which: Selection): string => {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(which)) if (typeof value === "string") query.set(name, value)
  return query.size === 0 ? "?all=true" : `?${query.toString()}`
}

/** Administration of the whole service: adds what the other processes answer. */
export const make = Effect.map(PeerProcesses, (peers) => {
  const others = peers?.isFirst === true ? peers : undefined
  /** Adds the answers of the others at this path. */
  const merged = <A>(path: string, own: A, add: (own: A, answers: ReadonlyArray<never>) => A): Effect.Effect<A> =>
    others === undefined
      ? Effect.succeed(own)
      : Effect.map(others.askJson<never>("GET", path), (answers) => add(own, answers))
  return {
    events: (own: Models["Service"]["events"]) => others === undefined ? own : Stream.merge(own, others.events),
    deployments: (own: Deployments["deployments"]) => merged("/admin/deployments", own, deployments),
    circuits: (own: Circuits["circuits"]) => merged("/admin/circuits", own, circuits),
    cache: (own: Contents) => merged("/admin/cache", own, cacheContents),
    /** Also clears the memory of the others; the number of answers that were cleared there. */
    clearCache: (which: Selection) =>
      others === undefined
        ? Effect.succeed(0)
        : Effect.map(
          others.askJson<CacheCleared>("DELETE", `/admin/cache${queryOf(which)}`),
          (answers) => answers.reduce((sum, { cleared }) => sum + cleared, 0)
        ),
    /** Also does something in the others, unless they do not serve the model. */
    post: (model: string, path: string) =>
      others === undefined || others.isOfFirst(model) ? Effect.void : others.ask("POST", path),
    /** Also does something in all others. */
    postToAll: (path: string) => others === undefined ? Effect.void : others.ask("POST", path)
  }
})
