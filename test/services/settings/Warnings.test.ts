import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Problem from "../../../src/domain/Problem.ts"
import { decode } from "../../../src/services/settings/Decode.ts"
import { warningsOf } from "../../../src/services/settings/Warnings.ts"

const warnings = (file: unknown): ReadonlyArray<string> => {
  const decoded = decode(file, {
    environment: "development",
    variables: { KEY: "a-secret-of-a-caller", PROVIDER: "a-key" },
    resolvePath: (path) => path,
    embedded: { "tiny-chat": { options: { engine: "fake" }, preload: true } },
    defaultEngineHost: "process",
    defaultStoreFolder: "/store",
    defaultStorage: "memory",
    defaultDataFolder: "/data",
    findInStore: () => undefined
  })
  return Result.isSuccess(decoded)
    ? warningsOf(decoded.success).map(Problem.format)
    : assert.fail(decoded.failure.map(Problem.format).join())
}

const remote = { provider: "openai", model: "m", baseUrl: "https://api.example.com/v1", key: "${PROVIDER}" }
const priced = { ...remote, price: { input: 1, output: 2 } }
const models = { chat: { deployments: [priced, remote] }, "fake/a": { deployments: [{ engine: "fake" }] } }

describe("warnings", () => {
  it("name copies that leave this machine, where the requests do not", () => {
    const local = { engine: "llama", file: "/models/chat.gguf" }
    const shadow = (candidate: string) => ({ candidate, percent: 5 })
    assert.deepStrictEqual(
      warnings({
        models: {
          local: { deployments: [local, local], shadow: shadow("local#1") },
          mixed: { deployments: [local, priced, priced], shadow: shadow("mixed#2") },
          leaving: { deployments: [local, local, priced], shadow: shadow("leaving#2") }
        }
      }),
      [
        "models.leaving.shadow.candidate: The requests of the model stay on this machine, and their copies go to the " +
        "provider of leaving#2. Remove shadow, or choose a candidate on this machine, if they must not"
      ]
    )
  })

  it("name models whose deployments are all candidates", () => {
    const candidate = { ...priced, rollout: "candidate" }
    assert.deepStrictEqual(
      warnings({
        models: {
          one: { deployments: [candidate] },
          two: { deployments: [priced, candidate] },
          tested: {
            deployments: [candidate, candidate],
            experiment: { variants: [{ deployment: "tested#0", weight: 1 }, { deployment: "tested#1", weight: 1 }] }
          }
        }
      }),
      [
        "models.one.deployments: Every deployment of the model is a candidate (one#0), so they take requests without a " +
        "rollout. Remove rollout: candidate from one that is in use"
      ]
    )
  })

  it("name a maximum of replicas that does nothing", () => {
    const chat = (options: object) => ({ chat: { deployments: [{ engine: "llama", file: "/a", ...options }] } })
    const path = "models.chat.deployments[0].maxReplicas"
    assert.deepStrictEqual(
      [
        ...warnings({ models: chat({ maxReplicas: 2 }) }),
        ...warnings({ models: chat({ maxReplicas: 2, replicas: 3 }), scaling: {} }),
        ...warnings({ models: chat({ maxReplicas: 3, replicas: 3 }), scaling: {} })
      ],
      [
        `${path}: It has no effect, because scaling is not configured. Add the section scaling: {}`,
        `${path}: It has no effect, because replicas is 3. Set it to at least that`
      ]
    )
  })

  it("name patterns of limits, budgets and keys that match no model", () => {
    assert.deepStrictEqual(
      warnings({
        models,
        keys: { ann: { key: "${KEY}", models: ["fake/*", "chta"] } },
        limits: {
          default: { models: ["big-*"], requestsPerHour: 1 },
          few: { models: ["*"], parallel: 1 },
          none: { models: ["small-*"], parallel: 1 }
        },
        budgets: { b: { models: ["chat", "fake/b"], period: "day", tokens: 1 } }
      }),
      [
        "keys.ann.models[1]: No configured model matches \"chta\". Did you mean chat?",
        "limits.default.models[0]: No configured model matches \"big-*\"",
        "limits.none.models[0]: No configured model matches \"small-*\"",
        "budgets.b.models[1]: No configured model matches \"fake/b\". Did you mean fake/a?"
      ]
    )
  })

  it("name the deployments of unknown price that a budget in USD applies to", () => {
    const unknown = "The price of chat#1 is unknown, so"
    const there = "requests that may be sent there"
    const advice = "Set price: { input, output } of each deployment"
    assert.deepStrictEqual(
      warnings({
        models,
        keys: { ann: { key: "${KEY}", budgets: [{ period: "day", tokens: 5 }, { period: "day", usd: 5 }] } },
        budgets: {
          enforced: { period: "day", usd: 1 },
          shadow: { period: "day", usd: 1, mode: "shadow" },
          others: { period: "day", usd: 1, models: ["fake/*"] },
          tokens: { period: "day", tokens: 1 }
        }
      }),
      [
        `keys.ann.budgets[1].usd: ${unknown} a budget of the key ann rejects ${there}. ${advice}`,
        `budgets.enforced.usd: ${unknown} the budget enforced rejects ${there}. ${advice}`,
        `budgets.shadow.usd: ${unknown} the budget shadow does not count what is spent there. ${advice}`
      ]
    )
  })

  it("are none for the default configuration", () => {
    assert.deepStrictEqual(warnings({}), [])
  })
})
