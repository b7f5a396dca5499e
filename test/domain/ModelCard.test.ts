import { assert, describe, it } from "@effect/vitest"
import type { Deployment, Model } from "../../src/domain/Deployment.ts"
import type { DeploymentFacts } from "../../src/domain/DeploymentFacts.ts"
import { cardOf } from "../../src/domain/ModelCard.ts"

const local = { engine: "fake" } as const
const remote = { engine: "remote", provider: "openai", model: "gpt", maxTokens: 900 } as const

/** A model whose deployments have these facts and states. */
const card = (
  ...given: ReadonlyArray<
    readonly [
      options: Deployment["options"],
      facts: Omit<DeploymentFacts, "deployment">,
      state?: "cold" | "ready" | "failed"
    ]
  >
) => {
  const deployments = given.map(([options], index) => ({ id: `m#${index}`, options }) as Deployment)
  const model: Model = { name: "m", deployments: deployments as [Deployment, ...Array<Deployment>] }
  return cardOf(
    model,
    given.map(([, facts], index) => ({ ...facts, deployment: `m#${index}` })),
    (id) => given[Number(id.slice(2))]![2] ?? "cold"
  )
}

const price = (input: number, output: number) => ({ input, output })

describe("ModelCard", () => {
  it("has what any deployment can do, the largest window and the highest price", () => {
    assert.deepStrictEqual(
      card(
        [local, { capabilities: ["generate", "tokenize"], contextWindow: 512, price: price(0, 0) }],
        [remote, {
          capabilities: ["generate", "images"],
          contextWindow: 9_000,
          price: { ...price(1, 2), asOf: "2026-06" }
        }]
      ),
      {
        name: "m",
        owner: "troupe",
        contextWindow: 9_000,
        maxOutput: 900,
        capabilities: ["generate", "tokenize", "images"],
        input: ["text", "image"],
        output: ["text"],
        state: "remote",
        price: { input: 1, output: 2, asOf: "2026-06" }
      }
    )
  })

  it("does not claim a price or a window that is unknown", () => {
    const { contextWindow, maxOutput, owner, price: found } = card([remote, {}], [local, { price: price(0, 0) }])
    assert.deepStrictEqual([contextWindow, maxOutput, owner, found], [undefined, 900, "openai", undefined])
  })

  it("is in the best state of its deployments", () => {
    const state = (...states: ReadonlyArray<"cold" | "failed" | "ready">) =>
      card(...states.map((state) => [local, {}, state] as const)).state
    assert.strictEqual(state("failed", "cold"), "unloaded")
    assert.strictEqual(state("cold", "ready"), "loaded")
    assert.strictEqual(state("failed"), "failed")
  })

  it("names what embedding and ranking models return", () => {
    assert.deepStrictEqual(card([local, { capabilities: ["embed", "rerank"] }]).output, ["embeddings", "scores"])
  })
})
