import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result, Stream } from "effect"
import * as fc from "fast-check"
import type { InvalidRequest } from "../../../src/domain/InferenceError.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import type { RoutingRequest } from "../../../src/domain/RoutingRequest.ts"
import type { Source } from "../../../src/domain/Source.ts"
import * as ModelFiles from "../../../src/layers/engines/ModelFiles.ts"
import * as Breaker from "../../../src/services/health/Breaker.ts"
import type { ActorEvent } from "../../../src/services/models/Actor.ts"
import { Models } from "../../../src/services/models/Models.ts"
import * as Registry from "../../../src/services/models/Registry.ts"
import type { Route } from "../../../src/services/routing/Route.ts"
import { noDeployment } from "../../../src/services/routing/Route.ts"
import * as Router from "../../../src/services/routing/Router.ts"
import { decode } from "../../../src/services/settings/Decode.ts"
import type { ResolveContext } from "../../../src/services/settings/Resolution.ts"
import { languageModel, modelWith } from "../../../src/services/settings/Resolution.ts"
import type { Resolved } from "../../../src/services/settings/Settings.ts"
import { Settings } from "../../../src/services/settings/Settings.ts"
import { repetitions } from "../../support/Repetitions.ts"

const context: ResolveContext = {
  environment: "test",
  variables: {},
  resolvePath: (path) => path,
  embedded: { "tiny-chat": { options: { engine: "fake" }, preload: true } },
  defaultEngineHost: "thread",
  defaultStoreFolder: "/store",
  defaultStorage: "memory",
  defaultDataFolder: "/data",
  findInStore: () => undefined
}

const settingsOf = (file: object): Resolved => Result.getOrThrow(decode(file, context))

const actorsWith = (events: ReadonlyArray<ActorEvent>) =>
  Layer.mock(Models)({
    drained: new Map(),
    tryLease: () => undefined,
    renew: () => {},
    snapshot: () => ({ queued: 0, state: "ready" }),
    events: Stream.fromIterable(events),
    status: ({ id }) => Effect.succeed({ deployment: id, state: "ready", running: 0, queued: 0, memoryBytes: 0 })
  })

const actors = actorsWith([])

const layerOf = (settings: Resolved, models = actors) =>
  Router.layer.pipe(
    Layer.provide([Breaker.layer, Registry.layer, models, ModelFiles.layer]),
    Layer.provide(Layer.succeed(Settings, settings))
  )

const preview = (
  settings: Resolved,
  request: Partial<RoutingRequest> & Pick<RoutingRequest, "model">,
  models = actors
) =>
  Router.Router.use((router) =>
    Effect.andThen(
      // The events of the models come first.
      Effect.repeat(Effect.yieldNow, { times: 9 }),
      Effect.suspend(() => Effect.fromResult(router.preview({ capabilities: ["generate"], ...request })))
    )
  ).pipe(Effect.provide(layerOf(settings, models)))

describe("Router", () => {
  describe("the configured policy default", () => {
    const policies = {
      default: { strategy: "speed", retries: 7, timeouts: { total: "3 seconds" } },
      own: { retries: 1 }
    }
    const fake = { deployments: [{ engine: "fake" }] }
    const models = {
      "fake/plain": fake,
      "fake/routed": { ...fake, fallbacks: ["fake/plain"] },
      "fake/own": { ...fake, policy: "own" }
    }
    const settings = settingsOf({ policies, models })
    // What programs and the command line add to the models of a file.
    const all: Resolved = {
      ...settings,
      models: [...settings.models, languageModel("provided"), modelWith("pulled", { engine: "fake" })]
    }

    it.effect.each(all.models.map(({ name }) => name))(
      "is how requests for %s go, as policy show prints",
      (name) =>
        Effect.gen(function*() {
          const model = all.models.find((one) => one.name === name)!
          const { policy } = yield* preview(all, { model: name })
          assert.deepStrictEqual(policy, RoutingPolicy.routingOf(model, all.policies).policy)
          assert.strictEqual(policy.selection.strategy, "speed")
          assert.strictEqual(policy.timeouts.totalMs, 3_000)
          assert.strictEqual(policy.retries, name === "fake/own" ? 1 : 7)
        })
    )

    it.effect("routes requests for the embedded model", () =>
      Effect.gen(function*() {
        const { policy } = yield* preview(settingsOf({ policies }), { model: "tiny-chat" })
        assert.strictEqual(policy.retries, 7)
      }))
  })

  describe("the context window", () => {
    const root = new URL("../../../models/", import.meta.url).pathname
    const tooSmall = "its context window of 512 tokens is too small for a prompt of about 2709 tokens"
    const request = { model: "chat", promptLength: 4 * 2_709 }

    const routed = (first: object, models = actors) => {
      const deployments = [{ ...first, quality: 0.9 }, {
        engine: "llama",
        file: `${root}tiny-chat-f16.gguf`,
        contextSize: 9_000,
        quality: 0.1
      }]
      return preview(settingsOf({ models: { chat: { strategy: "quality", deployments } } }), request, models)
    }

    it.effect.each([
      { engine: "llama", file: `${root}tiny-chat-q8_0.gguf` },
      { engine: "onnx", folder: `${root}tiny-chat-onnx` }
    ])("of an engine that is not loaded is that of its files: %o", (first) =>
      Effect.gen(function*() {
        const { decision, deployments } = yield* routed(first)
        assert.deepStrictEqual(deployments.map(({ id }) => id), ["chat#1"])
        assert.deepStrictEqual(decision.excluded, [{ deployment: "chat#0", reason: tooSmall }])
      }))

    it.effect("of a loaded engine is the engine's", () =>
      Effect.gen(function*() {
        const loaded = (contextWindow: number) =>
          actorsWith([{ deployment: "chat#0", state: "ready", capabilities: ["generate"], contextWindow, at: 0 }])
        const without = { engine: "llama", file: "/absent.gguf" }
        assert.deepStrictEqual((yield* routed(without, loaded(512))).decision.excluded.map(({ reason }) => reason), [
          tooSmall
        ])
        const file = { engine: "llama", file: `${root}tiny-chat-q8_0.gguf` }
        assert.lengthOf((yield* routed(file, loaded(4_096))).deployments, 2)
      }))
  })

  describe("the index of prompts", () => {
    const policies = { default: { strategy: "prefix" } }
    const prompt = "A long and winding text. ".repeat(40)

    /** What share of a prompt of tenant "one" a deployment of these options has for each tenant. */
    const sharesFor = (more: object) => {
      const settings = {
        ...settingsOf({ policies }),
        models: [modelWith("a", { engine: "onnx", folder: "x", ...more })]
      }
      const requestOf = (tenant: string | undefined): RoutingRequest => ({
        model: "a",
        capabilities: ["generate"],
        promptText: () => prompt,
        tenant
      })
      return Router.Router.use(({ measure, preview, route }) =>
        Effect.gen(function*() {
          const sent = yield* Effect.fromResult(route(requestOf("one")))
          measure(sent.deployments[0]!.id, sent).granted()
          return yield* Effect.forEach(["one", "two", undefined], (tenant) =>
            Effect.map(Effect.fromResult(preview(requestOf(tenant))), ({ decision }) =>
              decision.candidates[0]!.terms["share"]))
        })
      ).pipe(Effect.provide(layerOf(settings)))
    }

    it.effect("separates the prompts of tenants, as engines separate their caches", () =>
      Effect.map(sharesFor({}), (shares) => assert.deepStrictEqual(shares, [1, 0, 0])))

    it.effect("has the prompts of all tenants if the deployment shares them", () =>
      Effect.map(sharesFor({ sharePrefixes: true }), (shares) => assert.deepStrictEqual(shares, [1, 1, 1])))
  })

  describe("configured fallbacks", () => {
    const fake = { deployments: [{ engine: "fake" }] }
    const settings = settingsOf({
      models: {
        "fake/a": { ...fake, fallbacks: ["fake/b"], contextFallbacks: ["fake/b"], contentFallbacks: ["fake/b"] },
        "fake/b": fake,
        "fake/c": fake
      }
    })
    const routed = (capabilities: RoutingRequest["capabilities"], route?: RoutingRequest["route"]) =>
      Effect.map(preview(settings, { model: "fake/a", capabilities, route }), ({ decision, fallbacks }) => ({
        fallbacks: Object.values(fallbacks).flat().map(({ id }) => id),
        isExplained: decision.fallbacksUnused !== undefined
      }))

    it.effect.each(["embed", "tokenize"] as const)(
      "are not used where the result is the model's own: %s",
      (capability) =>
        Effect.gen(function*() {
          const capabilities = [capability]
          assert.deepStrictEqual(yield* routed(capabilities), { fallbacks: [], isExplained: true })
          assert.deepStrictEqual(yield* routed(capabilities, { fallbacks: ["fake/c"] }), {
            fallbacks: ["fake/c#0"],
            isExplained: false
          })
        })
    )

    it.effect.each(["generate", "rerank", "classify", "count"] as const)(
      "are used for other tasks: %s",
      (capability) =>
        Effect.gen(function*() {
          const { fallbacks, isExplained } = yield* routed([capability])
          assert.deepStrictEqual({ count: fallbacks.length > 0, isExplained }, { count: true, isExplained: false })
        })
    )
  })

  describe("fields that Troupe does not know", () => {
    const kinds = {
      local: { engine: "fake" },
      openai: { engine: "remote", provider: "openai", model: "m" },
      anthropic: { engine: "remote", provider: "anthropic", model: "m" }
    } as const
    const some = (maxLength: number, minLength = 0) =>
      fc.array(fc.constantFrom("local", "openai", "anthropic"), { minLength, maxLength })

    // Names of fakes begin with fake/ in files only.
    const model = (name: string, list: ReadonlyArray<keyof typeof kinds>) => {
      const { deployments: [deployment] } = modelWith(name, kinds.local)
      const [first, ...rest] = list.map((kind, index) => ({
        ...deployment,
        id: `${name}#${index}`,
        options: kinds[kind]
      }))
      return { name, deployments: [first!, ...rest] as const }
    }
    const fallbacks = { ordinary: ["b"], context: ["b"], content: ["b"] }
    const asked = (
      own: ReadonlyArray<keyof typeof kinds>,
      others: ReadonlyArray<keyof typeof kinds>,
      request: Partial<RoutingRequest> & { readonly source: Source },
      file: object = {}
    ) => {
      const settings: Resolved = {
        ...settingsOf(file),
        models: [
          { ...model("a", own), routing: { policy: RoutingPolicy.defaults, fallbacks } },
          model("b", others)
        ]
      }
      const capabilities = ["generate", `${request.source.dialect} fields`] as const
      return Effect.runPromise(Effect.result(preview(settings, { model: "a", capabilities, ...request })))
    }
    const sourceOf = (field: string, dialect: Source["dialect"] = "openai"): Source => ({
      dialect,
      body: { [field]: 1 },
      unknownFields: [{ path: [field] }]
    })
    const listed = (route: Route) =>
      [...route.deployments, ...Object.values(route.fallbacks).flat()].map(({ id }) => id)

    const isRefused = ({ dialect, field, isNamed, others, own }: {
      readonly own: ReadonlyArray<keyof typeof kinds>
      readonly others: ReadonlyArray<keyof typeof kinds>
      readonly field: string
      readonly dialect: string
      readonly isNamed: boolean
    }) => {
      if (own.every((kind) => kind === dialect)) return false
      const isMisspelt = field === "temprature"
      if (own.includes(dialect as "openai")) return isMisspelt || own.includes("local")
      return isNamed && (isMisspelt || others.includes("local"))
    }

    it("never send a prompt from this machine to another, unless the request names it", () =>
      fc.assert(
        fc.asyncProperty(
          some(3, 1),
          some(2, 1),
          fc.constantFrom("temprature", "reasoning_effort", "new_field"),
          fc.constantFrom("openai", "anthropic"),
          fc.boolean(),
          async (own, others, field, dialect, isNamed) => {
            const source = sourceOf(field, dialect)
            const found = await asked(own, others, isNamed ? { source, route: { fallbacks: ["b"] } } : { source })
            const isLocal = own.includes("local")
            assert.strictEqual(Result.isFailure(found), isRefused({ own, others, field, dialect, isNamed }))
            if (Result.isFailure(found)) {
              assert.deepInclude<object>(found.failure.reason, { _tag: "InvalidRequest", path: field })
              return
            }
            const route = found.success
            const kindOf = (id: string) => (id.startsWith("a") ? own : others)[Number(id.at(-1))]
            for (const id of listed(route)) assert.strictEqual(kindOf(id), dialect)
            if (!isLocal && own.includes(dialect)) return
            // Of other models, only those that the request names.
            const { content, context, ordinary } = route.fallbacks
            assert.deepStrictEqual([context, content], [[], []])
            if (!isNamed) assert.deepStrictEqual(ordinary, [])
            if (!isNamed) assert.isTrue(route.deployments.every(({ id }) => id.startsWith("a")))
          }
        )
      ))

    describe("in a route of several models", () => {
      const sizes = { local: 512, openai: 1_024, anthropic: 1_024 }
      const names = ["b", "c", "d"] as const
      const orders = fc.shuffledSubarray([...names])
      const routes = fc.record({
        models: fc.record({ a: some(3, 1), b: some(2, 1), c: some(2, 1), d: some(2, 1) }),
        configured: fc.record({ ordinary: orders, context: orders, content: orders }),
        named: fc.option(orders, { nil: undefined }),
        selected: fc.option(fc.subarray([0, 1, 2], { minLength: 1 }), { nil: undefined }),
        field: fc.constantFrom("temprature", "reasoning_effort", "thinking", "new_field"),
        dialect: fc.constantFrom("openai", "anthropic"),
        operation: fc.constantFrom<RoutingRequest["capabilities"]>(
          ["generate"],
          ["generate", "images"],
          ["count"],
          ["embed"],
          ["rerank"],
          ["classify"]
        ),
        promptLength: fc.constantFrom(undefined, 3_000, 9_000)
      })
      type Given = typeof routes extends fc.Arbitrary<infer A> ? A : never

      const routedBy = ({ configured, models, named, operation, promptLength, selected }: Given) => {
        const modelOf = (name: keyof typeof models) => {
          const made = model(name, models[name])
          const deployments = made.deployments.map((one, index) => ({
            ...one,
            options: { ...one.options, contextSize: sizes[models[name][index]!] }
          }))
          return { name, deployments: deployments as unknown as typeof made.deployments }
        }
        const settings: Resolved = {
          ...settingsOf({}),
          models: [
            { ...modelOf("a"), routing: { policy: RoutingPolicy.defaults, fallbacks: configured } },
            ...names.map(modelOf)
          ]
        }
        const deployments = selected?.filter((index) => index < models.a.length).map((index) => `a#${index}`)
        const request = {
          model: "a",
          promptLength,
          route: { fallbacks: named, deployments: deployments?.length === 0 ? undefined : deployments }
        }
        return (more: Partial<RoutingRequest>) => {
          const all = { ...request, capabilities: operation, ...more }
          return Effect.runPromise(
            preview(settings, all).pipe(
              Effect.filterOrFail(
                ({ deployments }) => deployments.length > 0,
                ({ decision }) => noDeployment(decision, all)
              ),
              Effect.result
            )
          )
        }
      }

      /** The orders in which deployments can be called, by kind of failure. */
      const ordersOf = ({ deployments, fallbacks: { content, context, ordinary } }: Route) => ({
        ordinary: [...deployments, ...ordinary].map(({ id }) => id),
        context: [...deployments, ...context, ...ordinary].map(({ id }) => id),
        content: [...deployments, ...content].map(({ id }) => id)
      })

      it("send no prompt to a provider before which this machine would get it without them", () =>
        fc.assert(
          fc.asyncProperty(routes, async (given) => {
            const { dialect, field, models, named, operation } = given
            const kindOf = (id: string) => models[id[0] as "a"][Number(id.at(-1))]!
            const routed = routedBy(given)
            const source = sourceOf(field, dialect)
            const found = await routed({ source, capabilities: [...operation, `${dialect} fields`] })
            const plain = await routed({})
            if (Result.isFailure(found)) {
              if (Result.isFailure(plain)) return
              const { _tag, ...reason } = found.failure.reason as InvalidRequest
              assert.strictEqual(_tag, "InvalidRequest")
              if (kindOf(plain.success.deployments[0]!.id) === "local") assert.strictEqual(reason.path, field)
              return
            }
            const without = ordersOf(Result.getOrThrow(plain))
            for (const [list, ids] of Object.entries(ordersOf(found.success))) {
              for (const id of ids) {
                assert.strictEqual(kindOf(id), dialect)
                const isNamed = named?.includes(id[0] as "b") === true
                const isRemote = models[id[0] as "a"].every((kind) => kind !== "local")
                if (isNamed && isRemote) continue
                const before = without[list as "ordinary"].slice(0, without[list as "ordinary"].indexOf(id))
                assert.notInclude(before.map(kindOf), "local", `${list}: ${id}`)
              }
            }
          }),
          { numRuns: repetitions(60, 300) }
        ))

      it("exclude a mixed fallback that the request names, and reach one that is remote only", async () => {
        const source = sourceOf("new_field")
        const to = async (others: ReadonlyArray<keyof typeof kinds>, field = source, file = {}) => {
          const found = await asked(["local"], others, { source: field, route: { fallbacks: ["b"] } }, file)
          return Result.isSuccess(found) ? listed(found.success) : found.failure.message
        }
        assert.deepStrictEqual(await to(["openai"]), ["b#0"])
        assert.match(String(await to(["local", "openai"])), /new_field.*"b" on this machine.*request "b" itself/)
        assert.match(String(await to(["local", "openai"], sourceOf("temprature"))), /Did you mean temperature\?/)
        assert.deepStrictEqual(await to(["local", "openai"], source, { guard: { unknownFields: "pass" } }), ["b#1"])
      })

      it("reach the remote model after a mixed one that the request names", async () => {
        const routed = routedBy({
          models: { a: ["local"], b: ["local", "openai"], c: ["openai"], d: ["local"] },
          configured: { ordinary: [], context: [], content: [] },
          named: ["b", "c"],
          selected: undefined,
          field: "new_field",
          dialect: "openai",
          operation: ["generate"],
          promptLength: undefined
        })
        const found = await routed({ source: sourceOf("new_field"), capabilities: ["generate", "openai fields"] })
        assert.deepStrictEqual(listed(Result.getOrThrow(found)), ["c#0"])
      })

      it("exclude configured fallbacks after one on this machine, which the decision says", async () => {
        const found = await asked(["openai"], ["local", "openai"], { source: sourceOf("new_field") })
        const { decision, ...route } = Result.getOrThrow(found)
        assert.deepStrictEqual(listed({ ...route, decision }), ["a#0"])
        assert.include(decision.fallbacksUnused, "\"b\" on this machine")
      })
    })

    it.each(["generate", "count", "embed"] as const)(
      "are refused by name where they exclude what is local: %s",
      async (task) => {
        const capabilities = [task, "openai fields"] as const
        const found = await asked(["local", "openai"], ["openai"], { source: sourceOf("new_field"), capabilities })
        assert.isTrue(Result.isFailure(found))
        if (Result.isSuccess(found)) return
        assert.deepInclude<object>(found.failure.reason, { _tag: "InvalidRequest", path: "new_field", inBody: true })
        assert.include(found.failure.message, "on this machine")
      }
    )

    it("are passed on where the request or the operator says so, or where nothing local could take the request", async () => {
      const source = sourceOf("new_field")
      const ids = async (request: Omit<Partial<RoutingRequest>, "source">, file?: object) => {
        const found = await asked(["local", "openai"], ["openai"], { source, ...request }, file)
        return Result.isSuccess(found) ? listed(found.success) : found.failure.message
      }
      assert.deepStrictEqual(await ids({ route: { deployments: ["a#1"] } }), ["a#1", "b#0", "b#0", "b#0"])
      assert.include(await ids({ route: { deployments: ["a#0", "a#1"] } }), "on this machine")
      assert.deepStrictEqual(await ids({}, { guard: { unknownFields: "pass" } }), ["a#1"])
      assert.deepStrictEqual(await ids({ capabilities: ["generate", "images", "openai fields"] }), ["a#1"])
    })
  })
})
