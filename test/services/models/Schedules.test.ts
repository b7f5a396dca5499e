/** Random schedules over all of `Models`: whatever comes, and in whatever order, what is promised holds. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Deployment } from "../../../src/domain/Deployment.ts"
import type { InferenceError } from "../../../src/domain/InferenceError.ts"
import type { ActorEvent } from "../../../src/services/models/Actor.ts"
import { Models } from "../../../src/services/models/Models.ts"
import type { ScriptedEngines } from "../../support/ScriptedEngines.ts"
import {
  crashed,
  indexOf,
  large,
  listen,
  loadFailed,
  MiB,
  scriptedEngines,
  settle,
  using
} from "../../support/ScriptedEngines.ts"
import type { Random } from "../../support/Seeded.ts"
import { randomOf } from "../../support/Seeded.ts"

const budget = 12
const slots = 2

const options = (mebibytes: number) => ({ engine: "fake", slots, memory: mebibytes * MiB }) as const

const deployments: ReadonlyArray<Deployment> = [
  // These two do not fit together.
  large("a", 6, { options: options(6), idleUnload: Duration.seconds(30) }),
  large("b", 6, { options: options(6), idleUnload: Duration.seconds(3), queueLimit: 20 }),
  large("c", 3, { options: options(3), idleUnload: Duration.zero }),
  large("p", 2, { options: options(2), pinned: true })
]

interface Caller {
  readonly fiber: Fiber.Fiber<void, InferenceError>
  readonly id: string
  readonly since: number
  served: boolean
}

/** What is watched while a schedule runs. */
const makeWatch = () => {
  const callers = new Set<Caller>()
  /** Who uses each engine now, by its number. */
  const users = new Map<number, number>()
  /** The last engine that a deployment's callers were given, by its setup in the order of readiness. */
  const lastGiven = new Map<string, number>()
  const faults: Array<string> = []
  const counts = { served: 0, failed: 0, left: 0 }
  const memory = (engines: ScriptedEngines["engines"]) => {
    const taken = engines.filter(({ open }) => open)
      .reduce(
        (sum, { deployment: { options } }) => sum + (options.engine === "fake" ? Number(options.memory ?? 0) : 0),
        0
      )
    if (taken > budget * MiB) faults.push(`${taken / MiB} of ${budget} MiB are in use`)
  }
  const enter = ({ engines }: ScriptedEngines, id: string, index: number) => {
    const count = (users.get(index) ?? 0) + 1
    users.set(index, count)
    if (count > slots) faults.push(`${count} jobs in ${slots} slots of ${id}`)
    const order = engines.find((engine) => engine.index === index)?.readyOrder ?? -1
    if (order < (lastGiven.get(id) ?? -1)) faults.push(`${id} lent an engine that another had replaced`)
    lastGiven.set(id, order)
  }
  const leave = (index: number) => users.set(index, users.get(index)! - 1)
  return { callers, counts, enter, faults, leave, memory, users }
}

type Watch = ReturnType<typeof makeWatch>

const callFor = Effect.fnUntraced(function*(setup: ScriptedEngines, watch: Watch, random: Random) {
  const { id } = random.pick(deployments)
  const chosen = deployments.find((one) => one.id === id)!
  const work = random.upTo(3_000)
  const options = {
    tenant: random.pick(["x", "y", "z"]),
    priority: random.pick(["low", "normal", "high"] as const),
    keepAlive: random.pick([undefined, undefined, Duration.zero, Duration.seconds(20), Duration.infinity])
  }
  const now = yield* Effect.clockWith((clock) => Effect.succeed(clock.currentTimeMillisUnsafe()))
  const use = (index: number) => Effect.sync(() => watch.enter(setup, id, index))
  const progress = { served: false }
  const fiber = yield* Effect.forkChild(
    using(chosen, (engine) => {
      progress.served = true
      return Effect.acquireUseRelease(
        use(indexOf(engine)),
        () => Effect.sleep(work),
        () => Effect.sync(() => watch.leave(indexOf(engine)))
      )
    }, options)
  )
  const caller: Caller = Object.assign(progress, { fiber, id, since: now })
  watch.callers.add(caller)
  fiber.addObserver((exit) => {
    watch.callers.delete(caller)
    if (Exit.isSuccess(exit)) watch.counts.served++
    else if (Exit.hasInterrupts(exit)) watch.counts.left++
    else watch.counts.failed++
  })
})

type ScheduledAction = (setup: ScriptedEngines, watch: Watch, random: Random) => Effect.Effect<unknown, never, Models>

const leave: ScheduledAction = (_, watch, random) => {
  const caller = random.pick([...watch.callers])
  return caller === undefined ? Effect.void : Effect.forkChild(Fiber.interrupt(caller.fiber))
}

const crash: ScheduledAction = (setup, _, random) => {
  const engine = random.pick(setup.engines.filter(({ open, readyOrder }) => open && readyOrder !== undefined))
  return engine === undefined ? Effect.void : engine.crash("Scripted failure.")
}

const unload: ScheduledAction = (_, __, random) =>
  Effect.forkChild(Models.use(({ unload }) => unload(random.pick(deployments))))

const replace: ScheduledAction = (_, __, random) => {
  const replacing = Effect.ignore(Models.use(({ replace }) => replace(random.pick(deployments))))
  return Effect.forkChild(random.chance(0.3) ? Effect.timeoutOption(replacing, random.upTo(2_000)) : replacing)
}

const load: ScheduledAction = (_, __, random) =>
  Effect.forkChild(Effect.ignore(Models.use(({ load }) => load(random.pick(deployments)))))

const unloadIdle: ScheduledAction = (_, __, random) =>
  Effect.forkChild(Models.use(({ unloadIdle }) => unloadIdle(Duration.seconds(random.upTo(3)))))

const pass: ScheduledAction = (_, __, random) => TestClock.adjust(random.upTo(random.chance(0.1) ? 10_000 : 400))

/** The frequency of each action, of 100. */
const actions: ReadonlyArray<readonly [weight: number, ScheduledAction]> = [
  [55, callFor],
  [10, leave],
  [3, crash],
  [3, unload],
  [3, replace],
  [3, load],
  [2, unloadIdle],
  [21, pass]
]

const runAction: ScheduledAction = (setup, watch, random) => {
  let choice = random.upTo(100)
  const [, chosen] = actions.find(([weight]) => (choice -= weight) < 0)!
  return chosen(setup, watch, random)
}

/** What an event does to the number of lives, and of those that drain. */
const effectOf = ({ cause, state }: ActorEvent): readonly [living: number, draining: number] => {
  if (state === "loading") return [cause === undefined ? 1 : 0, 0]
  if (state === "draining") return [0, 1]
  if (state === "gone") return [-1, -1]
  return [state === "failed" ? -1 : 0, 0]
}

/** Every engine instance ends once, and has no events before its start. */
const checkEvents = (events: ReadonlyArray<ActorEvent>) => {
  for (const { id } of deployments) {
    let living = 0
    let draining = 0
    for (const event of events.filter(({ deployment }) => deployment === id)) {
      if (event.state !== "loading") assert.isAbove(living, 0, `${id}: ${event.state} without a life`)
      const [lives, drains] = effectOf(event)
      living += lives
      draining += drains
      assert.isAtLeast(draining, 0, `${id}: gone without draining`)
      assert.isAtMost(draining, living, `${id}: draining twice`)
    }
    assert.strictEqual(living, 0, `${id}: as many ends as beginnings`)
  }
}

/** Loads take time, and some of them fail. */
const directed = (random: Random, faulty: boolean, onChange: () => void) => {
  const made: ScriptedEngines = scriptedEngines({
    budget,
    hold: Duration.seconds(2),
    onChange,
    load: () => {
      const fate = random.upTo(faulty ? 20 : Number.MAX_SAFE_INTEGER)
      const time = Effect.sleep(random.upTo(1_500))
      if (fate === 0) return Effect.andThen(time, Effect.fail(loadFailed))
      return fate === 1 ? Effect.andThen(time, Effect.fail(crashed("While loading."))) : time
    },
    close: () => Effect.sleep(random.upTo(300))
  })
  return made
}

const run = Effect.fnUntraced(function*(setup: ScriptedEngines, watch: Watch, random: Random, steps: number) {
  const received = yield* listen
  const checks = Effect.gen(function*() {
    yield* settle
    watch.memory(setup.engines)
    assert.deepStrictEqual(watch.faults, [])
    for (const { queued, running } of yield* Models.use(({ statuses }) => statuses)) {
      assert.isAtLeast(running, 0)
      assert.isAtLeast(queued, 0)
    }
  })
  for (let step = 0; step < steps; step++) {
    yield* runAction(setup, watch, random)
    if (random.chance(0.3)) yield* checks
  }
  // Nobody waits for ever, once nothing new comes.
  yield* TestClock.adjust("30 minutes")
  yield* checks
  assert.deepStrictEqual([...watch.callers].map(({ id, served, since }) => ({ id, served, since })), [])
  assert.isTrue([...watch.users.values()].every((count) => count === 0))
  for (const chosen of deployments) yield* Models.use(({ unload }) => unload(chosen)).pipe(Effect.forkChild)
  yield* TestClock.adjust("1 minute")
  for (const { deployment, queued, running, state } of yield* Models.use(({ statuses }) => statuses)) {
    assert.deepStrictEqual({ deployment, queued, running, state }, {
      deployment,
      queued: 0,
      running: 0,
      state: "failed"
    })
  }
  assert.isFalse(setup.engines.some(({ open }) => open), "no engine is left")
  checkEvents(received)
})

const scenario = (seed: number, steps: number, faulty: boolean) => {
  const random = randomOf(seed)
  const watch = makeWatch()
  const setup: ScriptedEngines = directed(random, faulty, () => watch.memory(setup.engines))
  return Effect.as(run(setup, watch, random, steps), watch.counts).pipe(Effect.provide(setup.layer))
}

describe("Models under random schedules", () => {
  for (const seed of Array.from({ length: 30 }, (_, index) => index + 1)) {
    it.effect(`keeps its invariants, seed ${seed}`, () =>
      Effect.gen(function*() {
        const { served } = yield* scenario(seed, 200, seed % 2 === 0)
        assert.isAbove(served, 10)
      }))
  }
})
