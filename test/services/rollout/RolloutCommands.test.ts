import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { CheckOf } from "../../../src/domain/Caller.ts"
import type { Model } from "../../../src/domain/Deployment.ts"
import type { Event } from "../../../src/domain/Inference.ts"
import type { Inference } from "../../../src/services/inference/Inference.ts"
import type { Models } from "../../../src/services/models/Models.ts"
import { knownOf } from "../../../src/services/rollout/KnownDeployment.ts"
import type { Command, Event as RolloutEvent } from "../../../src/services/rollout/Rollout.ts"
import type { Given } from "../../../src/services/rollout/RolloutCommands.ts"
import { RolloutCommands } from "../../../src/services/rollout/RolloutCommands.ts"

const deployments = ["old", "new"].map((reply, index) => ({
  id: `m#${index}`,
  model: "m",
  options: { engine: "fake", reply }
}))
const model = { name: "m", deployments } as unknown as Model

interface Seen {
  readonly call: string
  readonly check: string | undefined
  readonly deployments: ReadonlyArray<string> | undefined
}

/** Carries out a command; the requests that it sends, what it reports and what it measures. */
const carriedOut = (command: Command) =>
  Effect.gen(function*() {
    const seen: Array<Seen> = []
    const reported: Array<RolloutEvent> = []
    const measured: Array<string | undefined> = []
    const note = (call: string, { route }: { readonly route?: { readonly deployments?: ReadonlyArray<string> } }) =>
      Effect.map(CheckOf, (check) => void seen.push({ call, check, deployments: route?.deployments }))
    const finish = { type: "finish", reason: "stop", usage: { promptTokens: 1, completionTokens: 1 } } as Event
    const inference = {
      generate: (request: object) => note("generate", request),
      stream: (request: object) =>
        Stream.concat(Stream.fromEffectDrain(note("stream", request)), Stream.succeed(finish))
    } as unknown as Inference["Service"]
    const models = {
      load: ({ id }: { readonly id: string }) => note("load", { route: { deployments: [id] } })
    } as unknown as Models["Service"]
    const given = {
      command,
      model,
      stored: {
        rollout: { id: "r", candidate: "m#1", plan: { health: { timeoutMs: 1_000 }, probeTokens: 8 } },
        candidate: knownOf(deployments[1] as never),
        stable: [knownOf(deployments[0] as never)]
      },
      report: (event: RolloutEvent) => Effect.sync(() => void reported.push(event)),
      observe: (version: string | undefined) => void measured.push(version)
    } as unknown as Given
    yield* new RolloutCommands(inference, models).workOf(given)!
    return { seen, reported, measured, after: yield* CheckOf }
  })

describe("the requests of a rollout", () => {
  it.effect("are marked as health checks, the load of the candidate included", () =>
    Effect.gen(function*() {
      const { after, reported, seen } = yield* carriedOut({ _tag: "CheckHealth", deployment: "m#1" })
      assert.deepStrictEqual(seen, [
        { call: "load", check: "health", deployments: ["m#1"] },
        { call: "generate", check: "health", deployments: ["m#1"] }
      ])
      assert.deepStrictEqual(reported, [{ _tag: "Healthy" }])
      assert.isUndefined(after)
    }))

  it.effect("are marked as probes, of both versions", () =>
    Effect.gen(function*() {
      const command = { _tag: "Probe", deployments: ["m#0", "m#1"], prompts: ["one", "two"] } as Command
      const { measured, seen } = yield* carriedOut(command)
      assert.deepStrictEqual(seen.map(({ check, deployments: [id] = [] }) => `${check} ${id}`).toSorted(), [
        "probe m#0",
        "probe m#0",
        "probe m#1",
        "probe m#1"
      ])
      assert.deepStrictEqual(measured.map((version) => version ?? "old").toSorted(), ["m#1", "m#1", "old", "old"])
    }))
})
