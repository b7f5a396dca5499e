import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Deployment, Model } from "../../../src/domain/Deployment.ts"
import { Deployments } from "../../../src/services/models/Deployments.ts"
import * as AddedDeployment from "../../../src/services/rollout/AddedDeployment.ts"
import * as KnownDeployment from "../../../src/services/rollout/KnownDeployment.ts"
import type { Outcome, Phase } from "../../../src/services/rollout/Rollout.ts"
import * as RolloutMachine from "../../../src/services/rollout/RolloutMachine.ts"
import { resolve } from "../../../src/services/rollout/RolloutSettings.ts"
import type { Stored } from "../../../src/services/rollout/RolloutStore.ts"
import { deployment } from "../../support/Deployments.ts"

const remote = (id: string, model: string): Deployment =>
  deployment(id, { options: { engine: "remote", provider: "openai", model } })

const old = remote("chat#0", "old")
const added = AddedDeployment.make(old, "chat#rollout-1", "new")

const ended = (result: Outcome["result"]): Phase => ({
  _tag: "Ended",
  at: 1,
  outcome: { result, cause: "steps", metric: null, reason: "So." }
})

const stored = (phase: Phase): Stored => ({
  rollout: {
    ...RolloutMachine.start({ id: "rollout-1", model: "chat", stable: old.id, candidate: added.id, plan: resolve() }, 0)
      .state,
    phase
  },
  candidate: KnownDeployment.knownOf(added),
  stable: [KnownDeployment.knownOf(old)],
  added: { sibling: KnownDeployment.knownOf(old), to: "new" }
})

/** What is done for a rollout in this phase, of a model with these deployments. */
const settled = (phase: Phase, ...deployments: Model["deployments"]) => {
  const done: Array<string> = []
  const recorder = Deployments.of({
    add: ({ id }) => Effect.sync(() => void done.push(`add ${id}`)),
    retire: (id) => Effect.sync(() => void done.push(`retire ${id}`)),
    withAdded: (configured) => configured
  })
  const inBackground = (effect: Effect.Effect<void, unknown>) => Effect.runSync(Effect.ignore(effect))
  Effect.runSync(AddedDeployment.settle(recorder, { name: "chat", deployments }, stored(phase), inBackground))
  return done
}

describe("AddedDeployment", () => {
  const stepping: Phase = { _tag: "Stepping", since: 0 }

  it("is added while its rollout runs and after its promotion, and retired after its rollback", () => {
    for (const phase of [stepping, ended("promoted")]) {
      assert.deepStrictEqual(settled(phase, old), ["add chat#rollout-1"])
      assert.deepStrictEqual(settled(phase, old, added), [])
    }
    assert.deepStrictEqual(settled(ended("rolledBack"), old, added), ["retire chat#rollout-1"])
  })

  it("has the LoRA adapters of its sibling with another file", () => {
    const sibling = deployment("chat#0", { options: { engine: "llama", file: "/a.gguf", lora: "/c.gguf" } })
    assert.isTrue(AddedDeployment.canBeMade(sibling))
    assert.deepStrictEqual<object>(AddedDeployment.make(sibling, "chat#rollout-1", "/b.gguf").options, {
      engine: "llama",
      file: "/b.gguf",
      lora: "/c.gguf"
    })
  })

  it("gives way after its promotion to a configured deployment that serves the same", () => {
    const permanent = remote("chat#0", "new")
    assert.deepStrictEqual(settled(ended("promoted"), permanent, added), ["retire chat#rollout-1"])
    assert.deepStrictEqual(settled(ended("promoted"), permanent), [])
    assert.deepStrictEqual(settled(stepping, permanent, added), [])
  })
})
