import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Logger } from "effect"
import { SqlError, UnknownError } from "effect/sql/SqlError"
import type { Policy } from "../../../src/domain/RoutingPolicy.ts"
import { defaults } from "../../../src/domain/RoutingPolicy.ts"
import { viewOf } from "../../../src/layers/http/RolloutSchema.ts"
import { loggedOnce } from "../../../src/services/rollout/Rollouts.ts"
import type { Stored } from "../../../src/services/rollout/RolloutStore.ts"
import { deployment } from "../../support/Deployments.ts"
import type { Behavior, Process, World } from "../../support/RolloutWorld.ts"
import {
  database,
  deployments,
  inTestTime,
  isOver,
  makeWorld,
  startProcess,
  until
} from "../../support/RolloutWorld.ts"

const settings = {
  steps: [0.5, 1],
  every: Duration.seconds(20),
  evaluateEvery: Duration.seconds(1),
  minRequests: 100
}

/** Long enough for a comparison in the first step. */
const long = { ...settings, every: Duration.minutes(10) }

const begin = { model: "chat", to: "chat#1" }

const outcomeOf = ({ rollout: { phase } }: Stored) => "outcome" in phase ? phase.outcome : undefined

const isStepping = ({ rollout: { phase } }: Stored): boolean => phase._tag === "Stepping"

/** The end of a rollout to `chat#1`. */
const run = (given: Partial<World>) =>
  inTestTime(Effect.gen(function*() {
    const world = makeWorld({ settings, ...given })
    const process = yield* startProcess(world, yield* database)
    yield* process.rollouts.start(begin)
    const stored = yield* until(process, isOver)
    return { world, rollout: stored.rollout, outcome: outcomeOf(stored) }
  }))

const sound: Behavior = () => ({})
const failsAll: Behavior = (index) => ({ fails: index > 0 })
const failsOften: Behavior = (index) => ({ fails: index % 5 === 4 })

describe("Rollouts", () => {
  it.effect("promotes an equal version and unloads the old one after its last request", () =>
    Effect.gen(function*() {
      const { outcome, world } = yield* run({})
      assert.strictEqual(outcome?.result, "promoted")
      assert.deepStrictEqual(world.errors, [])
      assert.deepStrictEqual(world.log, ["load chat#1", "unload chat#0 with 0"])
    }))

  it.effect("does not roll back an equal version that fails, too", () =>
    Effect.gen(function*() {
      const fails: Behavior = (index) => ({ fails: index % 50 === 49 })
      const { outcome } = yield* run({ behaviors: [fails, fails] })
      assert.strictEqual(outcome?.result, "promoted")
    }))

  it.effect("rolls back a version that fails 4 % of its requests, and no caller sees an error", () =>
    Effect.gen(function*() {
      const { outcome, rollout, world } = yield* run({
        behaviors: [sound, (index) => ({ fails: index % 25 === 24 })],
        settings: long
      })
      assert.deepStrictEqual([outcome?.result, outcome?.cause, outcome?.metric], ["rolledBack", "test", "errors"])
      const found = rollout.evidence!.metrics.find(({ metric }) => metric === "errors")!
      assert.isAbove(found.candidate.count, found.stable.count)
      assert.isAtLeast(found.logE, found.needed)
      assert.deepStrictEqual(world.errors, [])
      assert.deepStrictEqual(world.log, ["load chat#1", "unload chat#1 with 0"])
    }))

  it.effect("rolls back a version that is only slow", () =>
    Effect.gen(function*() {
      const { outcome } = yield* run({ behaviors: [sound, () => ({ firstMs: 200 })], settings: long })
      assert.deepStrictEqual([outcome?.result, outcome?.metric], ["rolledBack", "firstToken"])
    }))

  it.effect("rolls back a version that is slow, though hedges overtake it", () =>
    inTestTime(Effect.gen(function*() {
      const world = makeWorld({
        behaviors: [sound, () => ({ firstMs: 600 })],
        settings: long,
        policy: { ...defaults, retries: 0, hedge: { afterMs: 150, share: 1 } }
      })
      const process = yield* startProcess(world, yield* database)
      yield* process.rollouts.start(begin)
      // So few at once that the budget covers every hedge.
      const outcome = outcomeOf(yield* until(process, isOver, 8))
      assert.deepStrictEqual([outcome?.result, outcome?.metric], ["rolledBack", "firstToken"])
    })))

  it.effect("rolls back a version that fails long prompts only", () =>
    Effect.gen(function*() {
      const { outcome, world } = yield* run({
        behaviors: [sound, (_, prompt) => ({ fails: prompt.length > 1000 })],
        prompts: (index) => index % 20 === 0 ? "word ".repeat(1000) : "Hello",
        settings: long
      })
      assert.deepStrictEqual([outcome?.result, outcome?.metric], ["rolledBack", "errors"])
      assert.deepStrictEqual(world.errors, [])
    }))

  it.effect("rolls back a version that fails every request after its check, though its circuit opens", () =>
    Effect.gen(function*() {
      const { outcome, world } = yield* run({ behaviors: [sound, (index) => ({ fails: index > 0 })] })
      assert.strictEqual(outcome?.result, "rolledBack")
      assert.isBelow(world.counts[1], 100)
      assert.deepStrictEqual(world.errors, [])
    }))

  it.effect("rolls back a version that is rate limited while the old one answers", () =>
    inTestTime(Effect.gen(function*() {
      const world = makeWorld({ settings, behaviors: [sound, (index) => ({ isLimited: index > 0 })] })
      const process = yield* startProcess(world, yield* database)
      yield* process.rollouts.start(begin)
      const { rollout } = yield* until(process, isOver, 20, 60)
      const { phase } = rollout
      assert.deepStrictEqual(
        phase._tag === "Ended" && [phase.outcome.result, phase.outcome.metric],
        ["rolledBack", "errors"]
      )
      assert.match(phase._tag === "Ended" ? phase.outcome.reason : "", /\d+ rate limited/)
      assert.deepStrictEqual(world.errors, [])
    })))

  it.effect("gives no request to a version that fails its check", () =>
    Effect.gen(function*() {
      const { outcome, world } = yield* run({ behaviors: [sound, () => ({ fails: true })] })
      assert.deepStrictEqual([outcome?.result, outcome?.cause], ["rolledBack", "health"])
      assert.strictEqual(world.counts[1], 3)
      assert.deepStrictEqual(world.errors, [])
    }))

  it.effect("gives no request to a version whose check takes longer than configured", () =>
    Effect.gen(function*() {
      const health = { attempts: 1, timeout: Duration.seconds(5) }
      const { outcome } = yield* run({
        behaviors: [sound, () => ({ firstMs: 6_000 })],
        settings: { ...settings, health }
      })
      assert.strictEqual(outcome?.cause, "health")
      assert.include(outcome?.reason, "It did not answer within 5 seconds.")
    }))

  it.effect("waits where there are no requests, and sends probes where it has some", () =>
    inTestTime(Effect.gen(function*() {
      const world = makeWorld({ settings })
      const process = yield* startProcess(world, yield* database)
      yield* process.rollouts.start(begin)
      const waiting = yield* until(process, isOver, 0, 25)
      assert.strictEqual(waiting.rollout.phase._tag, "Stepping")
      assert.strictEqual(waiting.rollout.step, 0)
      yield* process.kill
      const probes = { probes: ["One?", "Two?", "Three?"], probeTokens: 8 }
      const limits = new Set<number | undefined>()
      const behavior: Behavior = (_, prompt, maxTokens) => {
        if (probes.probes.includes(prompt)) limits.add(maxTokens)
        return {}
      }
      const probed = makeWorld({ settings: { ...settings, ...probes }, behaviors: [behavior, behavior] })
      const other = yield* startProcess(probed, yield* database)
      yield* other.rollouts.start(begin)
      assert.strictEqual(outcomeOf(yield* until(other, isOver, 0))?.result, "promoted")
      assert.deepStrictEqual([...limits], [8])
    })))

  it.effect("does what an operator says, and refuses what has no effect", () =>
    inTestTime(Effect.gen(function*() {
      const world = makeWorld({ settings })
      const process = yield* startProcess(world, yield* database)
      const { rollouts } = process
      const { rollout: { id } } = yield* rollouts.start(begin)
      assert.strictEqual((yield* Effect.flip(rollouts.start(begin)))._tag, "RolloutError")
      yield* until(process, isStepping)
      yield* rollouts.act("chat", "pause")
      const refused = yield* Effect.flip(rollouts.act(id, "pause"))
      assert.strictEqual(refused.code, "rollout_refused")
      const paused = yield* until(process, isOver, 20, 25)
      assert.deepStrictEqual([paused.rollout.phase._tag, paused.rollout.step], ["Paused", 0])
      yield* rollouts.act("chat", "resume")
      yield* until(process, isStepping)
      yield* rollouts.act("chat", "promote")
      assert.strictEqual(outcomeOf(yield* until(process, isOver))?.cause, "operator")
      assert.strictEqual((yield* Effect.flip(rollouts.find("chut"))).code, "rollout_not_found")
      const back = yield* rollouts.start({ model: "chat", to: "chat#0" })
      yield* rollouts.act(back.rollout.id, "abort")
      assert.strictEqual(outcomeOf(yield* until(process, isOver))?.result, "aborted")
      const before = world.counts[0]
      yield* process.second(20)
      assert.strictEqual(world.counts[0], before)
      assert.deepStrictEqual((yield* rollouts.list).map(({ rollout }) => rollout.id), [back.rollout.id, id])
    })))

  it.effect("names what cannot be rolled out", () =>
    inTestTime(Effect.gen(function*() {
      const process = yield* startProcess(makeWorld({ settings }), yield* database)
      const codeOf = (to: string) =>
        Effect.map(
          Effect.flip(process.rollouts.start({ model: "chat", to })),
          (error) => error._tag === "RolloutError" ? error.code : error.reason._tag
        )
      assert.strictEqual(yield* codeOf("chat#7"), "deployment_not_found")
      assert.strictEqual(yield* codeOf("chat#0"), "deployment_in_use")
    })))

  it.effect("rejects a file that cannot be read", () =>
    inTestTime(Effect.gen(function*() {
      const local = deployment("chat#0", { options: { engine: "llama", file: "/a.gguf" } })
      const process = yield* startProcess(makeWorld({ settings, deployments: [local] }), yield* database)
      const error = yield* Effect.flip(process.rollouts.start({ model: "chat", to: "missing/b.gguf" }))
      assert.match(
        error.message,
        /missing\/b\.gguf.*A relative path begins at the folder in which the service was started/
      )
      assert.deepStrictEqual(yield* process.rollouts.list, [])
    })))
})

describe("an A/B test", () => {
  const variants = [{ deployment: "chat#0", weight: 3 }, { deployment: "chat#1", weight: 1 }]

  it.effect("divides requests by fixed weights, compares the variants, and shows no caller the errors of one", () =>
    inTestTime(Effect.gen(function*() {
      const world = makeWorld({ settings, experiment: { variants }, behaviors: [sound, failsOften] })
      const process = yield* startProcess(world, yield* database)
      for (let seconds = 0; seconds < 60; seconds++) yield* process.second(20)
      const [report] = yield* process.rollouts.experiments
      assert.deepStrictEqual(report?.variants.map(({ verdict }) => verdict), ["control", "worse"])
      assert.closeTo(report!.variants[1]!.share, 0.25, 0.05)
      assert.deepStrictEqual(world.errors, [])
    })))

  it.effect("counts the requests of all processes, and goes on after they have ended", () =>
    inTestTime(Effect.gen(function*() {
      const experiment = { variants, evaluateEvery: Duration.seconds(1) }
      const world = makeWorld({ settings, experiment, behaviors: [sound, failsOften] })
      const folder = yield* database
      const one = yield* startProcess(world, folder)
      const other = yield* startProcess(world, folder)
      const requestsOf = Effect.fnUntraced(function*(process: Process) {
        const [report] = yield* process.rollouts.experiments
        return report!.variants.map(({ requests }) => requests)
      })
      const settle = Effect.fnUntraced(function*(...processes: ReadonlyArray<Process>) {
        // A period of the one that does not lead, and then one of the leader.
        for (let seconds = 0; seconds < 3; seconds++) {
          for (const process of processes) yield* process.second(0)
        }
      })
      for (let seconds = 0; seconds < 30; seconds++) {
        yield* one.second(10)
        yield* other.second(10)
      }
      yield* settle(one, other)
      const all = yield* requestsOf(one)
      assert.strictEqual(all[0]! + all[1]!, 600)
      assert.deepStrictEqual(yield* requestsOf(other), all)
      yield* Effect.all([one.kill, other.kill], { discard: true })
      const again = yield* startProcess(world, folder)
      assert.deepStrictEqual(yield* requestsOf(again), all)
      yield* again.second(20)
      // The lease of the process that led has to end, if it did not give it up.
      for (let seconds = 0; seconds < 8; seconds++) yield* again.second(0)
      const [report] = yield* again.rollouts.experiments
      assert.strictEqual(report!.variants[0]!.requests + report!.variants[1]!.requests, 620)
      assert.strictEqual(report!.variants[1]!.verdict, "worse")
    })))

  it.effect("begins again where a variant serves something else", () =>
    inTestTime(Effect.gen(function*() {
      const experiment = { variants, evaluateEvery: Duration.seconds(1) }
      const folder = yield* database
      const before = yield* startProcess(makeWorld({ settings, experiment }), folder)
      yield* before.second(20)
      yield* before.second(0)
      yield* before.kill
      const changed = makeWorld({ settings, experiment, deployments: [deployments.edited, deployments.candidate] })
      const after = yield* startProcess(changed, folder)
      const [report] = yield* after.rollouts.experiments
      assert.deepStrictEqual(report?.variants.map(({ requests }) => requests), [0, 0])
    })))

  it.effect("gives way to a rollout of its model", () =>
    inTestTime(Effect.gen(function*() {
      const world = makeWorld({ settings, experiment: { variants: [variants[0]!, { ...variants[1]!, weight: 0 }] } })
      const process = yield* startProcess(world, yield* database)
      yield* process.second(20)
      assert.strictEqual(world.counts[1], 0)
      yield* process.rollouts.start(begin)
      yield* until(process, isStepping)
      yield* process.second(20)
      assert.isAbove(world.counts[1], 1)
    })))

  it.effect("leaves a variant that was rolled back without requests, also after a restart, until it is resumed", () =>
    inTestTime(Effect.gen(function*() {
      const world = makeWorld({ settings, experiment: { variants }, behaviors: [sound, failsAll] })
      const folder = yield* database
      const process = yield* startProcess(world, folder)
      assert.deepInclude((yield* process.rollouts.start(begin)).experiment, { state: "running", withheld: [] })
      assert.strictEqual(outcomeOf(yield* until(process, isOver))?.result, "rolledBack")
      yield* process.kill
      const again = yield* startProcess(world, folder)
      const counted = world.counts[1]
      yield* again.second(40)
      assert.strictEqual(world.counts[1], counted)
      const [report] = yield* again.rollouts.experiments
      assert.deepStrictEqual(report!.variants.map(({ version }) => version), [
        { role: "variant", weight: 1 },
        { role: "withheld", weight: 0, reason: "rolledBack" }
      ])
      const [found] = yield* again.rollouts.list
      assert.deepInclude(found, { share: 0 })
      assert.deepInclude(found!.experiment, { state: "stopped", withheld: ["chat#1"] })
      const resumed = yield* again.rollouts.act("chat", "resume")
      assert.deepInclude(viewOf(resumed, 0), { weight: 0.25 })
      assert.deepInclude(resumed.experiment, { state: "running", withheld: [] })
      yield* again.second(40)
      assert.isAbove(world.counts[1], counted)
      assert.match((yield* Effect.flip(again.rollouts.act("chat", "resume"))).message, /^The rollout is over: /)
    })))
})

describe("another configuration", () => {
  const policy: Policy = { ...defaults, retries: 0, selection: { ...defaults.selection, strategy: "round-robin" } }

  const whenPromoted = (test: (process: Process, world: World) => Effect.Effect<void>) =>
    inTestTime(Effect.gen(function*() {
      const world = makeWorld({ settings, policy })
      const process = yield* startProcess(world, yield* database)
      yield* process.rollouts.start(begin)
      assert.strictEqual(outcomeOf(yield* until(process, isOver))?.result, "promoted")
      yield* test(process, world)
      assert.deepStrictEqual(world.errors, [])
    }))

  it.effect("gives no request to a candidate that it adds", () =>
    inTestTime(Effect.gen(function*() {
      const world = makeWorld({ settings, policy, deployments: [deployments.old] })
      const process = yield* startProcess(world, yield* database)
      yield* process.second(20)
      process.replace([deployments.old, deployments.candidate])
      yield* process.second(20)
      assert.deepStrictEqual(world.counts, [40, 0])
    })))

  it.effect("keeps the promoted deployment in use if it has another id and no mark", () =>
    whenPromoted((process, world) =>
      Effect.gen(function*() {
        process.replace([deployments.renamed])
        const before = world.counts[0]
        yield* process.second(20)
        assert.strictEqual(world.counts[0], before + 20)
      })
    ))

  it.effect("gives requests to a deployment in place of a replaced one, from the first moment on", () =>
    whenPromoted((process, world) =>
      Effect.gen(function*() {
        process.replace([deployments.edited, deployments.candidate])
        for (let seconds = 0; seconds < 3; seconds++) {
          const before = [...world.counts]
          yield* process.second(20)
          assert.isAbove(world.counts[0], before[0]!)
          assert.isAbove(world.counts[1], before[1]!)
        }
      })
    ))

  it.effect("begins, changes and ends A/B tests from the first moment on", () =>
    inTestTime(Effect.gen(function*() {
      const world = makeWorld({ settings, policy })
      const process = yield* startProcess(world, yield* database)
      const weights = (one: number, other: number) => ({
        variants: [{ deployment: "chat#0", weight: one }, { deployment: "chat#1", weight: other }],
        evaluateEvery: Duration.seconds(1)
      })
      yield* process.test(weights(0, 1))
      yield* process.second(20)
      assert.deepStrictEqual(world.counts, [0, 20])
      for (let seconds = 0; seconds < 3; seconds++) yield* process.second(0)
      yield* process.test(weights(0, 1))
      const [report] = yield* process.rollouts.experiments
      assert.deepStrictEqual(report?.variants.map(({ requests }) => requests), [0, 20])
      yield* process.test(weights(1, 0))
      yield* process.second(20)
      assert.deepStrictEqual(world.counts, [20, 20])
      yield* process.test(undefined)
      assert.deepStrictEqual(yield* process.rollouts.experiments, [])
    })))

  it.effect("ends the rollout of a model that it removes; another one can be started when the model is back", () =>
    inTestTime(Effect.gen(function*() {
      const world = makeWorld({ settings })
      const process = yield* startProcess(world, yield* database)
      yield* process.rollouts.start(begin)
      yield* until(process, isStepping)
      process.replace(undefined)
      const ended = yield* until(process, isOver, 0, 5)
      assert.strictEqual(outcomeOf(ended)?.result, "rolledBack")
      assert.strictEqual(ended.rollout.phase._tag, "Ended")
      process.replace(world.deployments)
      yield* process.rollouts.start(begin)
      assert.strictEqual(outcomeOf(yield* until(process, isOver))?.result, "promoted")
      assert.deepStrictEqual(world.errors, [])
    })))
})

describe("a process that is killed after any write of a rollout", () => {
  const cases: ReadonlyArray<readonly [string, Behavior, string, string]> = [
    ["an equal version is promoted", sound, "promoted", "unload chat#0"],
    ["a version that fails is rolled back", failsAll, "rolledBack", "unload chat#1"]
  ]
  for (const [name, behavior, result, unloaded] of cases) {
    it.effect(`is followed by one that goes on: ${name}`, () =>
      Effect.gen(function*() {
        const quick = { ...settings, every: Duration.seconds(2), evaluateEvery: Duration.seconds(2), minRequests: 4 }
        for (let writes = 1; writes < 60; writes++) {
          const ended = yield* inTestTime(Effect.gen(function*() {
            const world = makeWorld({ settings: quick, behaviors: [sound, behavior], writesLeft: writes })
            const shared = yield* database
            const first = yield* startProcess(world, shared)
            yield* Effect.forkChild(first.rollouts.start(begin))
            for (let seconds = 0; seconds < 30 && world.writesLeft !== 0; seconds++) yield* first.second(8)
            const isDone = world.writesLeft !== 0
            yield* first.kill
            const second = yield* startProcess(world, shared)
            const stored = yield* until(second, isOver, 8)
            assert.strictEqual(outcomeOf(stored)?.result, result, `after ${writes} writes`)
            assert.deepStrictEqual(world.errors, [], `after ${writes} writes`)
            assert.include(world.log.join(), unloaded)
            assert.isTrue(
              world.log.filter((line) => line.startsWith("unload")).every((line) => line.startsWith(unloaded))
            )
            const before = [...world.counts]
            yield* second.second(8)
            const used = result === "promoted" ? 0 : 1
            assert.strictEqual(world.counts[used], before[used], `after ${writes} writes`)
            return isDone
          }))
          if (ended) return
        }
        assert.fail("The rollout has more writes than the test.")
      }))
  }
})

describe("several processes", () => {
  it.effect("divide requests by the same weights, and compare what all of them have measured", () =>
    inTestTime(Effect.gen(function*() {
      const world = makeWorld({ settings: { ...settings, minRequests: 200 } })
      const shared = yield* database
      const [one, two] = [yield* startProcess(world, shared), yield* startProcess(world, shared)]
      yield* one.rollouts.start(begin)
      yield* until(two, isStepping)
      const before = world.counts[1]
      // Only the one that does not lead has requests.
      const ended = yield* until(two, isOver)
      assert.strictEqual(outcomeOf(ended)?.result, "promoted")
      assert.isAtLeast(world.counts[1] - before, 400)
      assert.strictEqual(world.log.filter((line) => line.startsWith("unload")).length, 1)
    })))

  it.effect("have another leader after the end of the first", () =>
    inTestTime(Effect.gen(function*() {
      const world = makeWorld({ settings, behaviors: [sound, failsOften] })
      const shared = yield* database
      const [one, two] = [yield* startProcess(world, shared), yield* startProcess(world, shared)]
      yield* one.rollouts.start(begin)
      yield* until(two, isStepping)
      yield* one.kill
      assert.strictEqual(outcomeOf(yield* until(two, isOver))?.result, "rolledBack")
      assert.deepStrictEqual(world.errors, [])
    })))
})

describe("a process without the candidate", () => {
  const another = () => makeWorld({ settings, deployments: [deployments.old] })

  it.effect("does not judge a rollout of another service", () =>
    inTestTime(Effect.gen(function*() {
      const shared = yield* database
      const foreign = yield* startProcess(another(), shared)
      const own = yield* startProcess(makeWorld({ settings }), shared)
      yield* own.rollouts.start(begin)
      for (let seconds = 0; seconds < 5; seconds++) yield* foreign.second(0)
      assert.isFalse((yield* foreign.rollouts.find("chat")).isAbandoned)
      const refusals = yield* Effect.forEach([own, foreign], ({ rollouts }) => Effect.flip(rollouts.start(begin)))
      assert.match(refusals[0]!.message, /has not ended\. Promote or abort it first\.$/)
      assert.match(refusals[1]!.message, /another configuration, which shares this storage: chat#1 is not configured/)
      assert.strictEqual(outcomeOf(yield* until(own, isOver))?.result, "promoted")
    })))

  it.effect("leaves one that no service has, and ends it after an operator has aborted it", () =>
    inTestTime(Effect.gen(function*() {
      const shared = yield* database
      const own = yield* startProcess(makeWorld({ settings }), shared)
      yield* own.rollouts.start(begin)
      yield* until(own, isStepping)
      yield* own.kill
      const foreign = yield* startProcess(another(), shared)
      const left = yield* until(foreign, isOver, 1, 30)
      assert.isTrue(isStepping(left))
      const view = viewOf(yield* foreign.rollouts.find("chat"), 0)
      assert.strictEqual(
        view.waitingFor,
        "No running service has chat#1. Start one that has it, or abort the rollout."
      )
      yield* foreign.rollouts.act("chat", "abort")
      assert.strictEqual(outcomeOf(yield* until(foreign, isOver, 1, 30))?.result, "aborted")
    })))

  it.effect("goes on where a service with the candidate starts again", () =>
    inTestTime(Effect.gen(function*() {
      const shared = yield* database
      const own = yield* startProcess(makeWorld({ settings }), shared)
      yield* own.rollouts.start(begin)
      yield* own.kill
      const foreign = yield* startProcess(another(), shared)
      yield* until(foreign, isOver, 1, 30)
      const again = yield* startProcess(makeWorld({ settings }), shared)
      assert.strictEqual(outcomeOf(yield* until(again, isOver))?.result, "promoted")
    })))
})

describe("a rollout whose store fails", () => {
  it.effect("logs that once until the store succeeds again, in words", () => {
    const log: Array<ReadonlyArray<unknown>> = []
    const logger = Logger.make(({ message }) => void log.push([message].flat()))
    const error = new SqlError({ reason: new UnknownError({ cause: new Error("connect ECONNREFUSED") }) })
    let isLost = true
    const once = loggedOnce(Effect.suspend(() => isLost ? Effect.fail(error) : Effect.void))
    return Effect.gen(function*() {
      yield* once
      yield* once
      isLost = false
      yield* once
      isLost = true
      yield* once
      const text = "Rollouts stand still: the database failed (connect ECONNREFUSED)."
      assert.deepStrictEqual(log, [[text], [text]])
    }).pipe(Effect.provide(Logger.layer([logger])))
  })
})
