/** Capability × kind of deployment × topology: which deployment is called, and the error if no deployment has the capability. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Capability from "../../../src/domain/Capability.ts"
import type { DeploymentOptions } from "../../../src/domain/Deployment.ts"
import type { EngineCapability } from "../../../src/domain/EngineProtocol.ts"
import { capabilityNames, engineCapabilities } from "../../../src/domain/EngineProtocol.ts"
import type { Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import { boundToModel } from "../../../src/domain/RoutingRequest.ts"
import { capabilitiesOf } from "../../../src/services/engines/EngineKinds.ts"
import { Breaker } from "../../../src/services/health/Breaker.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import type { Part, Setting } from "../../support/Routing.ts"
import { world } from "../../support/Routing.ts"

const inOrder: Partial<RoutingPolicy.Policy> = {
  selection: { ...RoutingPolicy.defaults.selection, strategy: "cost", keep: 9 }
}

const image = { type: "image", source: { type: "base64", mediaType: "image/png", data: "AAAA" } } as const

const chat = (more: Partial<Request> = {}) =>
  Inference.use((inference) =>
    inference.generate({ model: "a", messages: [{ role: "user", content: "Hello" }], ...more })
  )

type Asked = Effect.Effect<{ readonly deployment: string }, InferenceError.InferenceError, Inference>

/** A request that needs the capability, beside those that it needs anyway. */
const requests: Readonly<Record<EngineCapability, { readonly also?: EngineCapability; readonly ask: Asked }>> = {
  generate: { ask: chat() },
  complete: { ask: chat({ completion: {} }) },
  tools: { also: "generate", ask: chat({ tools: [{ name: "f" }] }) },
  format: { also: "generate", ask: chat({ format: { type: "json_object" } }) },
  logprobs: { also: "generate", ask: chat({ logprobs: 1 }) },
  echo: { also: "complete", ask: chat({ completion: { echo: true } }) },
  images: { also: "generate", ask: chat({ messages: [{ role: "user", content: [image] }] }) },
  embed: { ask: Inference.use(({ embed }) => embed({ model: "a", inputs: ["x"] })) },
  embedTokens: {
    also: "embed",
    ask: Inference.use(({ embed }) => embed({ model: "a", inputs: [""], tokens: [[1]] }))
  },
  rerank: { ask: Inference.use(({ rerank }) => rerank({ model: "a", query: "x", documents: ["y"] })) },
  classify: { ask: Inference.use(({ classify }) => classify({ model: "a", inputs: ["x"] })) },
  tokenize: { ask: Inference.use(({ tokenize }) => tokenize({ model: "a", input: "x" })) }
}

const free = { price: { input: 0, output: 0 }, quality: 1 }
const remote = (provider: "openai" | "azure-openai" | "anthropic" | "gemini" | "ollama" | "troupe") => ({
  engine: "remote" as const,
  provider,
  model: "m",
  baseUrl: "http://127.0.0.1:1",
  ...free
})

/** One deployment of each kind, and some that configuration narrows. */
const kinds: Readonly<Record<string, DeploymentOptions>> = {
  llama: { engine: "llama", file: "/m.gguf", ...free },
  onnx: { engine: "onnx", folder: "/m", ...free },
  fake: { engine: "fake", ...free },
  "language-model": { engine: "language-model", name: "m", ...free },
  openai: remote("openai"),
  "azure-openai": remote("azure-openai"),
  anthropic: remote("anthropic"),
  gemini: remote("gemini"),
  ollama: remote("ollama"),
  troupe: remote("troupe"),
  "llama for embeddings": { engine: "llama", file: "/m.gguf", ...free, abilities: ["embed"] },
  "openai without images": { ...remote("openai"), abilities: ["generate", "tools", "format"] }
}

/** Has every capability. */
const able: Part & { readonly options: DeploymentOptions } = { options: { ...remote("troupe"), quality: 0.9 } }

const settingOf = (own: ReadonlyArray<Setting["models"][string][number]>, more: Partial<Setting> = {}): Setting => ({
  policy: inOrder,
  models: { a: own, ...more.models },
  ...(more.fallbacks === undefined ? {} : { fallbacks: more.fallbacks })
})

/** The deployment that answers, or the error, and the deployments that were called. */
const outcome = (setting: Setting, ask: Asked) => {
  const made = world(setting)
  return ask.pipe(
    Effect.map(({ deployment }) => ({ deployment, error: undefined })),
    Effect.catch((error) => Effect.succeed({ deployment: undefined, error })),
    Effect.map((found) => ({ ...found, asked: made.jobs.map(({ deployment }) => deployment) })),
    Effect.provide(made.layer)
  )
}

/** Configured fallbacks that a request which needs the capability may use. */
const fallbacksFor = (...capabilities: ReadonlyArray<EngineCapability | undefined>): ReadonlyArray<string> =>
  boundToModel({ capabilities: capabilities.filter((one) => one !== undefined) }) === undefined ? ["b#0"] : []

for (const [kind, options] of Object.entries(kinds)) {
  describe(`a deployment of the kind ${kind}`, () => {
    const has = capabilitiesOf(options)
    it.effect.each(engineCapabilities)("with a request for %s", (capability) =>
      Effect.gen(function*() {
        const { also, ask } = requests[capability]
        const isAble = has.includes(capability) && (also === undefined || has.includes(also))
        const alone = yield* outcome(settingOf([{ options }]), ask)
        const beside = yield* outcome(settingOf([{ options }, able]), ask)
        const behind = yield* outcome(
          settingOf([{ options }], { models: { b: [able] }, fallbacks: { a: ["b"] } }),
          ask
        )
        const hopeless = yield* outcome(
          settingOf([{ options }, { options }], { models: { b: [{ options }] }, fallbacks: { a: ["b"] } }),
          ask
        )
        if (isAble) {
          for (const { asked, deployment } of [alone, beside, behind, hopeless]) {
            assert.deepStrictEqual([deployment, asked], ["a#0", ["a#0"]])
          }
          return
        }
        assert.deepStrictEqual([beside.deployment, beside.asked], ["a#1", ["a#1"]])
        const missing = has.includes(capability) ? also! : capability
        const fallbacks = fallbacksFor(capability, also)
        assert.deepStrictEqual([behind.deployment, behind.asked], [fallbacks[0], fallbacks])
        for (
          const [{ asked, error }, looked] of [[alone, ["a#0"]], [hopeless, ["a#0", "a#1", ...fallbacks]]] as const
        ) {
          assert.deepStrictEqual([error?.reason._tag, asked], ["InvalidRequest", []])
          for (const word of [capabilityNames[missing], ...looked]) assert.include(error?.message, word)
        }
      }))
  })
}

describe("a request that needs several missing capabilities", () => {
  it.effect("fails with the path of each field", () =>
    Effect.gen(function*() {
      const { error } = yield* outcome(
        settingOf([{ options: { engine: "fake", abilities: ["generate"] } }]),
        chat({ tools: [{ name: "f" }], format: { type: "json_object" } })
      )
      assert.deepInclude(error?.reason, { _tag: "InvalidRequest", path: "tools", alsoAt: ["format"] })
      assert.isTrue(error?.message.startsWith("tools, format: "), error?.message)
    }))
})

describe("a request to count tokens", () => {
  const ask = Inference.use(({ count }) =>
    count({ model: "a", input: { messages: [{ role: "user", content: "Hello" }] } })
  )

  it.effect.each(Object.keys(kinds))("goes to %s where its kind counts, else on", (kind) =>
    Effect.gen(function*() {
      const options = kinds[kind]!
      const isAble = ["llama", "onnx", "fake", "troupe", "anthropic"].includes(kind)
      const beside = yield* outcome(settingOf([{ options }, able]), ask)
      assert.strictEqual(beside.deployment, isAble ? "a#0" : "a#1")
      const { error } = yield* outcome(settingOf([{ options }]), ask)
      if (isAble) assert.isUndefined(error)
      else assert.include(error?.message, "token counting")
    }))
})

describe("a capability that an engine does not have", () => {
  const lacking = new InferenceError.NotSupported({
    deployment: "a#0",
    path: "model",
    detail: "no",
    capability: "embed"
  })
  const llama = kinds["llama"]!

  it.effect("excludes the deployment from the load on, before a call", () => {
    const made = world({
      ...settingOf([{ options: llama }, able]),
      events: [{ deployment: "a#0", state: "ready", capabilities: ["embed", "tokenize"], at: 0 }]
    })
    return Effect.gen(function*() {
      yield* Effect.yieldNow
      assert.strictEqual((yield* requests.generate.ask).deployment, "a#1")
      assert.strictEqual((yield* requests.embed.ask).deployment, "a#0")
      assert.deepStrictEqual(made.jobs.map(({ deployment }) => deployment), ["a#1", "a#0"])
    }).pipe(Effect.provide(made.layer))
  })

  it.effect.each(["sibling", "fallback"] as const)("to a request is learnt, and a %s answers it", (place) => {
    const first = { options: llama, fails: { reason: lacking } }
    const made = world(
      place === "sibling"
        ? settingOf([first, able])
        : settingOf([first], { models: { b: [able] }, fallbacks: { a: ["b"] } })
    )
    const route = place === "sibling" ? {} : { fallbacks: ["b"] }
    const ask = Inference.use(({ embed }) => embed({ model: "a", inputs: ["x"], route }))
    return Effect.gen(function*() {
      const other = place === "sibling" ? "a#1" : "b#0"
      assert.strictEqual((yield* ask).deployment, other)
      assert.strictEqual((yield* ask).deployment, other)
      assert.deepStrictEqual(made.jobs.map(({ deployment }) => deployment), ["a#0", other, other])
    }).pipe(Effect.provide(made.layer))
  })

  it.effect("to a request for its lone deployment is the request's mistake from then on", () => {
    const made = world(settingOf([{ options: llama, fails: { reason: lacking } }]))
    return Effect.gen(function*() {
      assert.strictEqual((yield* Effect.flip(requests.embed.ask)).reason._tag, "NotSupported")
      assert.strictEqual((yield* Effect.flip(requests.embed.ask)).reason._tag, "InvalidRequest")
      assert.lengthOf(made.jobs, 1)
    }).pipe(Effect.provide(made.layer))
  })
})

describe("a capability that a provider has refused", () => {
  const cases = {
    embed: { provider: "openai", ask: requests.embed.ask },
    count: {
      provider: "anthropic",
      ask: Inference.use(({ count }) =>
        count({ model: "a", input: { messages: [{ role: "user", content: "Hello" }] } })
      )
    }
  } as const

  it.effect.each(Object.keys(cases) as ReadonlyArray<keyof typeof cases>)(
    "is excluded from later requests for a while, and the circuit stays closed: %s",
    (capability) => {
      const { ask, provider } = cases[capability]
      const lacking = new InferenceError.NotSupported({ deployment: "a#0", path: "model", detail: "no", capability })
      const made = world(settingOf([{ options: remote(provider), fails: { reason: lacking }, failures: 2 }]))
      return Effect.gen(function*() {
        assert.strictEqual((yield* Effect.flip(ask)).reason._tag, "NotSupported")
        for (let request = 0; request < 6; request++) {
          assert.strictEqual((yield* Effect.flip(ask)).reason._tag, "InvalidRequest")
        }
        assert.lengthOf(made.jobs, 1)
        assert.deepStrictEqual((yield* (yield* Breaker).states).map(({ phase }) => phase), ["closed"])
        yield* TestClock.adjust("5 minutes")
        assert.strictEqual((yield* Effect.flip(ask)).reason._tag, "NotSupported")
        assert.lengthOf(made.jobs, 2)
        yield* chat()
      }).pipe(Effect.provide(made.layer))
    }
  )
})

describe("Observed", () => {
  it("holds a refusal until its time is over", () => {
    const observed = new Capability.Observed()
    observed.refused("a", "embed", 10)
    observed.refused("a", "count", 20)
    observed.refused("b", "tools", 30)
    assert.isFalse(observed.expire(9))
    assert.deepStrictEqual(observed.narrow("a", ["embed"]), [])
    assert.isTrue(observed.expire(10))
    assert.deepStrictEqual(observed.narrow("a", ["embed"]), ["embed"])
    assert.isTrue(observed.hasRefusedCount("a"))
    assert.isFalse(observed.expire(19))
    assert.isTrue(observed.expire(20))
    assert.isFalse(observed.hasRefusedCount("a"))
    assert.deepStrictEqual(observed.narrow("b", ["tools"]), [])
    assert.isTrue(observed.expire(30))
    assert.isFalse(observed.expire(40))
  })

  it("forgets refusals when another engine is loaded", () => {
    const observed = new Capability.Observed()
    assert.isTrue(observed.refused("a", "embed", 1))
    assert.isFalse(observed.refused("a", "embed", 1))
    assert.deepStrictEqual(observed.narrow("a", ["embed", "tools"]), ["tools"])
    assert.isTrue(observed.loaded("a", ["embed", "tools"]))
    assert.isFalse(observed.loaded("a", ["tools", "embed"]))
    assert.deepStrictEqual(observed.narrow("a", ["embed", "tools", "format"]), ["embed", "tools"])
    assert.deepStrictEqual(observed.narrow("b", ["format"]), ["format"])
  })
})
