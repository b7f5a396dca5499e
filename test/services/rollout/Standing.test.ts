import { assert, describe, it } from "@effect/vitest"
import type { Deployment, Model } from "../../../src/domain/Deployment.ts"
import * as KnownDeployment from "../../../src/services/rollout/KnownDeployment.ts"
import type { Outcome, Phase } from "../../../src/services/rollout/Rollout.ts"
import * as RolloutMachine from "../../../src/services/rollout/RolloutMachine.ts"
import { resolve } from "../../../src/services/rollout/RolloutSettings.ts"
import type { Stored } from "../../../src/services/rollout/RolloutStore.ts"
import type { Observer } from "../../../src/services/rollout/Split.ts"
import { takingRequests } from "../../../src/services/rollout/Split.ts"
import * as Standing from "../../../src/services/rollout/Standing.ts"
import { deployment } from "../../support/Deployments.ts"

const serving = (id: string, reply: string, more: object = {}): Deployment =>
  deployment(id, { options: { engine: "fake", reply, ...more } })

const model = (...deployments: readonly [Deployment, ...Array<Deployment>]): Model => ({ name: "chat", deployments })

const old = serving("chat#0", "old")
const waiting = serving("chat#1", "new", { rollout: "candidate" })

const outcome = (result: Outcome["result"]): Outcome => ({ result, cause: "operator", metric: null, reason: "So." })

const input = { id: "rollout-1", model: "chat", plan: resolve() }

const stored = (phase: Phase, more: Partial<Stored["rollout"]> = {}, candidate = waiting, stable = [old]): Stored => ({
  rollout: {
    ...RolloutMachine.start({ ...input, stable: stable[0]!.id, candidate: candidate.id }, 0).state,
    phase,
    ...more
  },
  candidate: KnownDeployment.knownOf(candidate),
  stable: stable.map(KnownDeployment.knownOf)
})

const ended = (result: Outcome["result"], ...more: ReadonlyArray<Deployment>) =>
  stored({ _tag: "Ended", at: 1, outcome: outcome(result) }, {}, more[0] ?? waiting, [more[1] ?? old])

const noObserver = (): Observer => ({ observe: () => {} })

const withheld = (given: Model, rollouts: ReadonlyArray<Stored>): ReadonlyArray<string> =>
  [...Standing.entryOf(given, rollouts, noObserver)?.split({}, 1).withheld ?? []].toSorted()

describe("Standing", () => {
  it("withholds a deployment that waits for its rollout", () => {
    assert.deepStrictEqual(withheld(model(old, waiting), []), ["chat#1"])
    assert.isUndefined(Standing.entryOf(model(old), [], noObserver))
    assert.deepStrictEqual(
      withheld(model(old, waiting), [stored({ _tag: "Checking", attempts: 0, nextAt: null, lastProblem: null })]),
      ["chat#1"]
    )
  })

  it("withholds a deployment that gets copies of requests, also where all others wait for a rollout", () => {
    const copied = serving("chat#2", "copied")
    const shadows = { copiesOf: () => ({ candidate: "chat#2", share: 0.2 }) }
    const of = (given: Model, ...rollouts: ReadonlyArray<Stored>) =>
      [...Standing.entryOf(given, rollouts, noObserver, undefined, shadows)?.split({}, 1).withheld ?? []].toSorted()
    assert.deepStrictEqual(of(model(old, copied)), ["chat#2"])
    assert.deepStrictEqual(of(model(old, waiting, copied)), ["chat#1", "chat#2"])
    assert.deepStrictEqual(of(model(waiting, copied)), ["chat#2"])
    assert.deepStrictEqual(of(model(old, waiting, copied), ended("promoted")), ["chat#0", "chat#2"])
    assert.deepStrictEqual(
      of(model(old, copied), stored({ _tag: "Stepping", since: 0 }, { step: 0 }, copied)),
      [],
      "it has requests of callers while a rollout gives it some"
    )
    assert.deepStrictEqual(
      Standing.stableOf(model(old, waiting, copied), [], "chat#1", shadows).map(({ id }) => id),
      ["chat#0"]
    )
  })

  it("loads what takes requests: the promoted version after a promotion, both while requests are divided", () => {
    const loaded = (...rollouts: ReadonlyArray<Stored>) => {
      const both = model(old, waiting)
      return takingRequests(both, Standing.entryOf(both, rollouts, noObserver)).map(({ id }) => id)
    }
    assert.deepStrictEqual(loaded(), ["chat#0"])
    assert.deepStrictEqual(loaded(ended("promoted")), ["chat#1"])
    assert.deepStrictEqual(loaded(ended("rolledBack")), ["chat#0"])
    assert.deepStrictEqual(loaded(stored({ _tag: "Stepping", since: 0 }, { step: 3 })), ["chat#0", "chat#1"])
  })

  it("divides requests while the rollout has steps, paused or not", () => {
    for (const phase of [{ _tag: "Stepping", since: 0 }, { _tag: "Paused", elapsedMs: 0 }] as const) {
      const entry = Standing.entryOf(model(old, waiting), [stored(phase, { step: 3 })], noObserver)!
      assert.deepStrictEqual(entry.split({}, 1), { withheld: new Set<string>(), first: "chat#1" })
      assert.isDefined(entry.observer)
    }
  })

  it("keeps embedding requests from a candidate with another model only", () => {
    const remote = (id: string, model: string, more: object = {}) =>
      deployment(id, { options: { engine: "remote", provider: "openai", model, ...more } })
    const [small, large] = [remote("chat#0", "small"), remote("chat#1", "large")]
    const again = remote("chat#1", "small", { weight: 2 })
    const firstOf = (candidate: Deployment) =>
      Standing.entryOf(
        model(small, candidate),
        [stored({ _tag: "Stepping", since: 0 }, { step: 3 }, candidate, [small])],
        noObserver
      )!.split({ capabilities: ["embed"] }, 1).first
    assert.deepStrictEqual([firstOf(large), firstOf(again)], [undefined, "chat#1"])
    // One that only embeds would have no requests.
    const onlyEmbeds = { abilities: ["embed"] } as const
    assert.strictEqual(Standing.otherVectorsThan(remote("chat#1", "large", onlyEmbeds), [small]), small)
    assert.isUndefined(Standing.otherVectorsThan(remote("chat#1", "small", onlyEmbeds), [small]))
    assert.isUndefined(Standing.otherVectorsThan(large, [small]))
    const adapted = (id: string, scale?: number) =>
      deployment(id, {
        options: {
          engine: "llama",
          file: "/a.gguf",
          ...onlyEmbeds,
          ...(scale && { lora: [{ path: "/b.gguf", scale }] })
        }
      })
    assert.isDefined(Standing.otherVectorsThan(adapted("chat#1", 1), [adapted("chat#0")]))
    assert.isDefined(Standing.otherVectorsThan(adapted("chat#1", 0.5), [adapted("chat#0", 1)]))
    assert.isUndefined(Standing.otherVectorsThan(adapted("chat#1", 1), [adapted("chat#0", 1)]))
  })

  it("gives all requests to the version that the rollout has ended with, from its draining on", () => {
    const draining = (result: Outcome["result"]) =>
      stored({ _tag: "Draining", deployment: "chat#0", drained: false, outcome: outcome(result) })
    for (const rollout of [draining("promoted"), ended("promoted")]) {
      assert.deepStrictEqual(withheld(model(old, waiting), [rollout]), ["chat#0"])
    }
    for (const rollout of [draining("rolledBack"), ended("rolledBack"), ended("aborted")]) {
      assert.deepStrictEqual(withheld(model(old, waiting), [rollout]), ["chat#1"])
    }
  })

  it("shows what each deployment without requests waits for, or that it is decided", () => {
    const copied = serving("chat#2", "copied")
    const shadows = { copiesOf: () => ({ candidate: "chat#2", share: 0.2 }) }
    const shown = (...rollouts: ReadonlyArray<Stored>) =>
      Standing.entryOf(model(old, waiting, copied), rollouts, noObserver, undefined, shadows)!.shares!.map(
        ({ deployment, role, weight }) => `${deployment} ${role} ${weight}`
      )
    const checking = stored({ _tag: "Checking", attempts: 0, nextAt: null, lastProblem: null })
    assert.deepStrictEqual(shown(), ["chat#1 candidate 0", "chat#2 shadow 0.2"])
    assert.deepStrictEqual(shown(ended("rolledBack")), ["chat#1 withheld 0", "chat#2 shadow 0.2"])
    assert.deepStrictEqual(shown(ended("rolledBack"), checking), ["chat#1 candidate 0", "chat#2 shadow 0.2"])
    assert.deepStrictEqual(shown(ended("promoted")), ["chat#0 withheld 0", "chat#2 shadow 0.2"])
    const entry = Standing.entryOf(model(old, waiting, copied), [], noObserver, undefined, shadows)!
    assert.strictEqual(entry.split({}, 1).copied, "chat#2")
  })

  it("lets a later rollout go back", () => {
    const back = { ...ended("promoted", old, waiting) }
    assert.deepStrictEqual(withheld(model(old, waiting), [ended("promoted"), back]), ["chat#1"])
  })

  it("recognizes a deployment by what it serves, wherever the configuration has it", () => {
    const promoted = [ended("promoted")]
    const moved = serving("chat#0", "new", { weight: 2 })
    assert.deepStrictEqual(withheld(model(moved), promoted), [])
    assert.deepStrictEqual(withheld(model(moved, serving("chat#1", "old")), promoted), ["chat#1"])
    assert.deepStrictEqual(withheld(model(moved, serving("chat#1", "newest")), promoted), [])
    assert.deepStrictEqual(withheld(model(serving("chat#0", "other"), waiting), promoted), [])
  })

  it("never withholds all deployments of a model", () => {
    assert.deepStrictEqual(withheld(model(waiting), []), [])
  })

  it("replaces the deployments that take requests", () => {
    const second = serving("chat#2", "third")
    const all = model(old, waiting, second)
    const ids = (rollouts: ReadonlyArray<Stored>, candidate: string) =>
      Standing.stableOf(all, rollouts, candidate).map(({ id }) => id)
    assert.deepStrictEqual(ids([], "chat#1"), ["chat#0", "chat#2"])
    assert.deepStrictEqual(ids([ended("promoted")], "chat#0"), ["chat#1", "chat#2"])
  })
})
