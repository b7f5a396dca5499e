/**
 * A schedule from a seed: models with their routing, the failures of their deployments over time, callers, and actions
 * of operators. Plain data that can be printed.
 */
import { Duration } from "effect"
import type { Deployment, Model } from "../../../src/domain/Deployment.ts"
import type { Policy } from "../../../src/domain/RoutingPolicy.ts"
import { defaults as selection } from "../../../src/domain/SelectionOptions.ts"
import { names as strategies } from "../../../src/domain/Strategies.ts"
import { deployment } from "../Deployments.ts"
import { MiB } from "../ScriptedEngines.ts"
import type { Random } from "../Seeded.ts"
import { randomOf } from "../Seeded.ts"
import type { Name as Reason } from "./Reasons.ts"
import { names as reasons } from "./Reasons.ts"

/** The outcome of one job. */
export interface Outcome {
  /** Time until the first piece, or the end without one, ms. */
  readonly firstMs: number
  /** Pieces of the answer before its end. */
  readonly pieces: number
  /** Time between two pieces, ms; 0 sends all at once, including the end. */
  readonly pieceMs: number
  /** Tokens of each piece. */
  readonly tokens: number
  /**
   * `cut`: the stream ends without a finish. `hang`: no further event comes, and the engine is killed. `crash`: the engine
   * crashes.
   */
  readonly end: "finish" | "cut" | "hang" | "crash" | Reason
  /** Time from the cancellation to the release of the slot, ms. */
  readonly releaseMs: number
}

/** The outcome of one load. */
export interface Load {
  readonly ms: number
  readonly end: "ready" | "fails" | "crashes" | "hangs"
}

/** The jobs that start before `until` have these outcomes in turn. */
export interface Phase {
  readonly until: number
  readonly outcomes: ReadonlyArray<Outcome>
}

export interface Script {
  readonly phases: ReadonlyArray<Phase>
  /** In turn; the last one repeats. */
  readonly loads: ReadonlyArray<Load>
}

export interface Caller {
  readonly id: string
  readonly at: number
  readonly model: string
  readonly streams: boolean
  /** Time after which the caller disconnects, ms. */
  readonly cancelsAfter?: number
  /** The number of events after which the caller stops reading. */
  readonly takes?: number
  /** Time to read one event, ms. */
  readonly readMs: number
  readonly tenant: string
  readonly priority: "low" | "normal" | "high"
  readonly maxTokens?: number
  readonly keepAlive?: Duration.Duration
}

export interface ScheduledAction {
  readonly at: number
  readonly what: "unload" | "replace" | "load" | "crash" | "unload idle"
  readonly deployment: string
}

export interface Schedule {
  readonly seed: number
  readonly models: ReadonlyArray<Model>
  readonly scripts: Readonly<Record<string, Script>>
  readonly callers: ReadonlyArray<Caller>
  readonly actions: ReadonlyArray<ScheduledAction>
  readonly budgetBytes: number
  readonly breaker: {
    readonly opensAfter: number
    readonly openFor: Duration.Duration
    readonly closesAfter: number
  }
}

/** The time in which all requests and actions begin, ms. */
export const span = 6_000

const times = <A>(count: number, make: (index: number) => A): ReadonlyArray<A> =>
  Array.from({ length: count }, (_, index) => make(index))

const endOf = (random: Random, faulty: number): Outcome["end"] => {
  if (!random.chance(faulty)) return "finish"
  return random.chance(0.25) ? random.pick(["cut", "hang", "crash"] as const) : random.pick(reasons)
}

const outcomeOf = (random: Random, faulty: number): Outcome => {
  const end = endOf(random, faulty)
  const early = end !== "finish" && random.chance(0.6)
  return {
    firstMs: random.upTo(random.pick([2, 50, 500, 3_000])),
    pieces: early ? 0 : 1 + random.upTo(4),
    pieceMs: random.chance(0.5) ? 0 : 1 + random.upTo(random.pick([20, 400])),
    tokens: random.pick([1, 3, 90]),
    end,
    releaseMs: random.upTo(random.pick([1, 30]))
  }
}

const scriptOf = (random: Random): Script => ({
  phases: times(1 + random.upTo(3), (index) => {
    const faulty = random.pick([0, 0.3, 0.7, 1])
    return {
      until: (index + 1) * (500 + random.upTo(3_000)),
      outcomes: times(1 + random.upTo(3), () => outcomeOf(random, faulty))
    }
  }),
  loads: times(1 + random.upTo(3), () => ({
    ms: random.upTo(random.pick([1, 200, 2_000])),
    end: random.chance(0.75) ? "ready" : random.pick(["fails", "crashes", "hangs"] as const)
  }))
})

const policyOf = (random: Random): Policy => ({
  name: "engine",
  selection: {
    ...selection,
    strategy: random.pick(strategies),
    keep: 1 + random.upTo(4),
    exploration: random.pick([0, 0.05, 1]),
    spill: random.chance(0.7)
  },
  retries: random.upTo(4),
  continue: false,
  maxAttempts: 1 + random.upTo(6),
  backoff: { initialMs: random.pick([10, 250]), factor: random.pick([1, 2, 3]), capMs: random.pick([300, 10_000]) },
  maxWaitMs: random.pick([0, 400, 10_000]),
  timeouts: {
    ...(random.chance(0.3) ? { totalMs: random.pick([50, 800, 4_000]) } : {}),
    ...(random.chance(0.2) ? { firstTokenMs: random.pick([20, 300, 2_000]) } : {}),
    ...(random.chance(0.2) ? { stallMs: random.pick([20, 300, 2_000]) } : {}),
    ...(random.chance(0.15) ? { queueMs: random.pick([20, 300, 2_000]) } : {})
  },
  ...(random.chance(0.3)
    ? { hedge: { share: random.pick([0.1, 0.5, 1]), ...(random.chance(0.7) ? { afterMs: random.upTo(300) } : {}) } }
    : {}),
  retryOnce: [500],
  shorterBy: random.pick([0.5, 0.7])
})

const deploymentOf = (random: Random, model: string, index: number): Deployment =>
  deployment(`${model}#${index}`, {
    options: {
      engine: "fake",
      slots: 1 + random.upTo(3),
      memory: random.upTo(6) * MiB,
      abilities: ["generate"]
    },
    idleUnload: random.pick([Duration.zero, Duration.seconds(1), Duration.minutes(10)]),
    queueLimit: random.pick([1, 2, 512]),
    stallAfter: Duration.seconds(random.pick([5, 120]))
  })

const modelOf = (random: Random, name: string, others: ReadonlyArray<string>): Model => {
  const [first, ...rest] = times(random.pick([1, 1, 2, 2, 3, 4]), (index) => deploymentOf(random, name, index))
  const some = () => others.filter(() => random.chance(0.4))
  return {
    name,
    deployments: [first!, ...rest],
    ...(random.chance(0.9)
      ? { routing: { policy: policyOf(random), fallbacks: { ordinary: some(), context: some(), content: some() } } }
      : {})
  }
}

const callerOf = (random: Random, id: string, names: ReadonlyArray<string>): Caller => ({
  id,
  // Many at once, or one after another.
  at: random.chance(0.4) ? 100 : random.upTo(span),
  // Most requests are for the first model.
  model: random.chance(0.5) ? names[0]! : random.pick(names),
  streams: random.chance(0.6),
  readMs: random.chance(0.2) ? random.upTo(400) : 0,
  tenant: random.pick(["x", "y", "z"]),
  priority: random.pick(["low", "normal", "normal", "high"] as const),
  ...(random.chance(0.25) ? { cancelsAfter: random.upTo(random.pick([2, 300, 3_000])) } : {}),
  ...(random.chance(0.15) ? { takes: 1 + random.upTo(3) } : {}),
  ...(random.chance(0.3) ? { maxTokens: 1 + random.upTo(200) } : {}),
  ...(random.chance(0.2) ? { keepAlive: random.pick([Duration.zero, Duration.seconds(5), Duration.infinity]) } : {})
})

/** The schedule of a seed. */
export const scheduleOf = (seed: number): Schedule => {
  const random = randomOf(seed)
  const names = times(random.pick([1, 1, 2, 2, 3, 4]), (index) => `m${index}`)
  const models = names.map((name) => modelOf(random, name, names.filter((other) => other !== name)))
  const deployments = models.flatMap((model) => model.deployments)
  return {
    seed,
    models,
    scripts: Object.fromEntries(deployments.map(({ id }) => [id, scriptOf(random)])),
    callers: times(1 + random.upTo(6), (index) => callerOf(random, `c${index}`, names)),
    actions: times(random.chance(0.5) ? 0 : 1 + random.upTo(3), () => ({
      at: random.upTo(span),
      what: random.pick(["unload", "replace", "load", "crash", "unload idle"] as const),
      deployment: random.pick(deployments).id
    })),
    budgetBytes: random.chance(0.7) ? Number.POSITIVE_INFINITY : random.pick([4, 8]) * MiB,
    breaker: {
      opensAfter: 1 + random.upTo(4),
      openFor: Duration.millis(random.pick([300, 2_000, 60_000])),
      closesAfter: 1 + random.upTo(3)
    }
  }
}
