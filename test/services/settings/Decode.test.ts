import { assert, describe, it } from "@effect/vitest"
import { Duration, Redacted } from "effect"
import { inspect } from "node:util"
import * as Defaults from "../../../src/domain/Defaults.ts"
import type { DeploymentOptions, Model } from "../../../src/domain/Deployment.ts"
import { isRemote } from "../../../src/domain/Deployment.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import { streamDefaults } from "../../../src/domain/StreamLimits.ts"
import { defaultLimit } from "../../../src/services/admission/AdmissionRules.ts"
import { defaultRules } from "../../../src/services/alerts/AlertRule.ts"
import { guardOf } from "../../../src/services/settings/GuardSettings.ts"
import { defaultServer } from "../../../src/services/settings/Resolution.ts"
import { fileJsonSchema } from "../../../src/services/settings/Schema.ts"

import { fake, llama, paths, problems, resolved } from "./support.ts"

describe("a parsed configuration", () => {
  describe("remote deployments", () => {
    const file = {
      models: {
        a: {
          deployments: [{
            provider: "openai",
            model: "gpt",
            keys: [{ key: "${ONE}", weight: 2 }, { key: "${TWO}" }],
            headers: { "x-team": "${TEAM}" },
            timeouts: { stall: "3 seconds" }
          }]
        }
      }
    }
    const variables = { ONE: "first secret", TWO: "12345678", TEAM: "third secret" }

    it("are recognized by their provider, without an engine", () => {
      const [model] = resolved(file, { variables }).models
      const { options } = model!.deployments[0]
      assert.strictEqual(options.engine, "remote")
      if (!isRemote(options)) return
      assert.deepStrictEqual(options.keys?.map(({ key }) => Redacted.value(key)), ["first secret", "12345678"])
      assert.deepStrictEqual(options.timeouts?.stall, Duration.seconds(3))
    })

    it("show no key wherever they are printed", () => {
      const settings = resolved(file, { variables })
      for (const shown of [JSON.stringify(settings), inspect(settings, { depth: 20 })]) {
        for (const secret of Object.values(variables)) assert.notInclude(shown, secret)
      }
    })

    it("take a key only from the environment", () => {
      const written = { provider: "openai", model: "gpt", key: "spelled out", keys: [{ key: "and again" }] }
      const found = problems({ models: { a: { deployments: [written] } } })
      assert.includeMembers(found.map(({ path }) => path), [
        "models.a.deployments[0].key",
        "models.a.deployments[0].keys[0].key"
      ])
      assert.notMatch(JSON.stringify(found), /spelled out|and again/)
    })
  })

  describe("the server", () => {
    it("takes an IPv6 address with and without brackets", () => {
      for (const host of ["::1", "[::1]"]) assert.strictEqual(resolved({ server: { host } }).server.host, "::1")
    })

    it("refuses limits of zero, and origins that no browser sends", () => {
      const server = {
        headersTimeout: 0,
        bodyTimeout: "0 seconds",
        maxConnections: 0,
        cors: { origins: ["app.example"] }
      }
      assert.deepStrictEqual(paths({ server }), [
        "server.bodyTimeout",
        "server.cors.origins[0]",
        "server.headersTimeout",
        "server.maxConnections"
      ])
    })
  })

  describe("the end of a key", () => {
    it("is a time, or the end of a day that exists", () => {
      const ends = (expires: string) => ({ keys: { ann: { key: "${KEY}", expires } } })
      const over = { variables: { KEY: "a-secret-of-a-caller" } }
      assert.strictEqual(resolved(ends("2028-02-29"), over).keys[0]!.expiresAt, Date.UTC(2028, 2, 1))
      const time = resolved(ends("2028-02-29T12:00:00+02:00"), over).keys[0]!.expiresAt
      assert.strictEqual(time, Date.UTC(2028, 1, 29, 10))
      for (const day of ["2027-02-29", "2027-02-30T10:00:00Z", "tomorrow"]) {
        assert.deepStrictEqual(paths(ends(day), over), ["keys.ann.expires"], day)
      }
    })
  })

  describe("aliases", () => {
    it("are names that no model and no other alias has", () => {
      const found = problems({
        models: {
          "fake/a": { aliases: ["x", "fake/b", "x"], deployments: [fake] },
          "fake/b": { aliases: ["x"], deployments: [fake] }
        }
      })
      assert.deepStrictEqual(found, [
        { path: "models.fake/a.aliases[1]", expected: "Expected a name that the model fake/b does not have" },
        { path: "models.fake/a.aliases[2]", expected: "Expected a name that the model fake/a does not have" },
        { path: "models.fake/b.aliases[0]", expected: "Expected a name that the model fake/a does not have" }
      ])
    })
  })

  describe("wildcards", () => {
    const openai = { provider: "openai", model: "*" }

    it("have one * at their end, and in the model of each deployment, which is remote", () => {
      const { models: [model] } = resolved({ models: { "openai/*": { deployments: [openai] } } })
      assert.strictEqual(model?.name, "openai/*")
      assert.deepStrictEqual(
        problems({
          models: {
            "a*b": { deployments: [openai] },
            "b/*": { deployments: [{ ...openai, model: "gpt" }] },
            "c/*": { deployments: [openai], aliases: ["c"] },
            "fake/*": { deployments: [fake] }
          }
        }).map(({ path }) => path),
        ["models.a*b", "models.b/*", "models.c/*.aliases", "models.fake/*"]
      )
    })

    it("serve the fallbacks of other models", () => {
      const models = (fallback: string) => ({
        models: { "openai/*": { deployments: [openai] }, "fake/a": { deployments: [fake], fallbacks: [fallback] } }
      })
      assert.strictEqual(resolved(models("openai/gpt-4o")).models.length, 2)
      assert.deepStrictEqual(paths(models("openai")), ["models.fake/a.fallbacks[0]"])
      for (const name of ["openai/*", "openai/gpt-*"]) {
        assert.deepStrictEqual(problems(models(name)), [{
          path: "models.fake/a.fallbacks[0]",
          expected: `\`${name}\` stands for many models: write the name of one in place of \`*\``
        }])
      }
    })
  })

  describe("limits and budgets", () => {
    it("have the endpoints that exist", () => {
      const rule = { endpoints: ["chat", "embedings"] }
      const found = problems({
        limits: { a: { ...rule, parallel: 1 } },
        budgets: { b: { ...rule, period: "day", tokens: 1 } }
      })
      assert.deepStrictEqual(found.map(({ path }) => path), ["limits.a.endpoints[1]", "budgets.b.endpoints[1]"])
      for (const { expected } of found) {
        assert.include(expected, "\"chat\", \"embeddings\", \"rerank\", \"classify\", \"tokenize\"")
        assert.include(expected, "Did you mean embeddings?")
      }
    })

    it("have one problem for one invalid number, with the largest one where it is too large", () => {
      const expected = "Expected a whole number from 1 to 9007199254740991 (2^53 - 1), not 1e+30"
      const found = problems({
        limits: { default: { requestsPerHour: 1e30 }, few: { parallel: 1.5 } },
        budgets: { b: { period: "day", tokens: 1e30 } }
      })
      assert.deepStrictEqual(found, [
        { path: "limits.default.requestsPerHour", expected },
        { path: "limits.few.parallel", expected: "Expected a whole number of at least 1" },
        { path: "budgets.b.tokens", expected }
      ])
      assert.deepStrictEqual(paths({ limits: { none: { by: ["key"] } } }), ["limits.none"])
    })
  })

  describe("amounts of bytes", () => {
    const remote = { provider: "openai", model: "m" }
    const fileWith = (bytes: unknown) => ({
      server: { maxBodyBytes: bytes, maxRequestMemory: bytes },
      memory: { budget: bytes },
      store: { maxBytes: bytes },
      models: {
        a: { deployments: [{ ...remote, maxResponseBytes: bytes }] },
        "fake/b": { deployments: [{ engine: "fake", memory: bytes }] }
      }
    })
    const places = [
      "memory.budget",
      "models.a.deployments[0].maxResponseBytes",
      "models.fake/b.deployments[0].memory",
      "server.maxBodyBytes",
      "server.maxRequestMemory",
      "store.maxBytes"
    ]

    it.each([["16 MiB"], [16 * 2 ** 20], ["${SIZE}"]])("of %j are taken everywhere", (bytes) => {
      const { memory, models, server, store } = resolved(fileWith(bytes), { variables: { SIZE: "16777216" } })
      const [remote, fake] = models.map(({ deployments: [{ options }] }) => options)
      assert.deepStrictEqual([server.maxBodyBytes, server.maxRequestMemory, memory.budgetBytes, store.maxBytes], [
        16 * 2 ** 20,
        16 * 2 ** 20,
        16 * 2 ** 20,
        16 * 2 ** 20
      ])
      assert.deepInclude(remote, { maxResponseBytes: 16 * 2 ** 20 })
      assert.deepInclude(fake, { memory: 16 * 2 ** 20 })
    })

    it.each([["much"], ["0 B"], [0], [1.5], [true], ["-1 GiB"]])("of %j are refused everywhere", (bytes) => {
      assert.deepStrictEqual(paths(fileWith(bytes)), places)
    })

    it("are all of one schema", () => {
      const found: Array<string> = []
      const look = (part: unknown): void => {
        if (typeof part !== "object" || part === null) return
        for (const [name, field] of Object.entries("properties" in part ? part.properties as object : {})) {
          if (!/(?:bytes|memory|budget)$/i.test(name) || "properties" in field) continue
          // A share of the memory.
          if (/"maximum":1\b/.test(JSON.stringify(field))) continue
          found.push(name)
          assert.include(JSON.stringify(field), "\"type\":\"string\"", name)
          assert.match(field.description, /as \d+ (?:MiB|GiB) or in bytes/, name)
        }
        Object.values(part).forEach(look)
      }
      look(fileJsonSchema())
      assert.includeMembers(found, [
        "maxBodyBytes",
        "maxRequestMemory",
        "budget",
        "maxBytes",
        "maxResponseBytes",
        "memory"
      ])
    })
  })

  describe("without a file", () => {
    it.each([undefined, null, {}])("%j means the defaults", (file) => {
      const settings = resolved(file)
      assert.deepStrictEqual(settings.server, {
        host: "127.0.0.1",
        allowAnonymous: false,
        port: 3000,
        processes: 1,
        supervised: false,
        shutdownGrace: Duration.seconds(30),
        maxBodyBytes: 10 * 1024 * 1024,
        headersTimeout: Duration.seconds(15),
        bodyTimeout: Duration.seconds(30),
        streamKeepAlive: Duration.seconds(15),
        maxConnections: 16_384,
        admin: {},
        trustedProxies: []
      })
      assert.strictEqual(settings.environment, "development")
      assert.strictEqual(settings.engineHost, "process")
    })

    it("serves the embedded models", () => {
      const embedded = (name: string, options: DeploymentOptions, preload: boolean): Model => ({
        name,
        deployments: [{
          id: `${name}#0`,
          model: name,
          options,
          idleUnload: Duration.minutes(10),
          preload,
          pinned: false,
          queueLimit: 512,
          stallAfter: Duration.minutes(2),
          loadTimeout: Duration.minutes(5)
        }]
      })
      assert.deepStrictEqual(resolved(undefined).models, [
        embedded("tiny-chat", { engine: "llama", file: "/package/chat.gguf" }, true),
        embedded("tiny-embed", { engine: "onnx", folder: "/package/embed" }, false)
      ])
    })

    it.each([
      ["development", "Debug"],
      ["test", "Warn"],
      ["production", "Info"]
    ])("in %s prints from level %s", (environment, level) => {
      const settings = resolved(undefined, { environment })
      assert.strictEqual(settings.logLevel, level)
      assert.strictEqual(settings.environment, environment)
    })

    it.each([
      ["development", undefined],
      ["test", undefined],
      ["production", "json"]
    ])("in %s has the log format %s", (environment, format) => {
      assert.strictEqual(resolved(undefined, { environment }).logFormat, format)
    })

    it("without NODE_ENV is development", () => {
      assert.strictEqual(resolved(undefined, { environment: undefined }).environment, "development")
    })

    it("runs engines where the context says", () => {
      assert.strictEqual(resolved(undefined, { defaultEngineHost: "thread" }).engineHost, "thread")
    })
  })

  describe("of a file", () => {
    it("takes every value from it", () => {
      const settings = resolved({
        server: { host: "0.0.0.0", port: 0, shutdownGrace: "5 seconds", maxBodyBytes: 1024 },
        engines: { host: "thread" },
        logLevel: "error",
        logFormat: "text",
        store: { folder: "models", maxBytes: 1000 },
        models: { chat: { deployments: [llama()], idleUnload: "1.5 seconds", preload: false } }
      })
      assert.deepStrictEqual(settings, {
        environment: "development",
        server: { ...defaultServer, host: "0.0.0.0", port: 0, shutdownGrace: Duration.seconds(5), maxBodyBytes: 1024 },
        engineHost: "thread",
        logLevel: "Error",
        logFormat: "text",
        memory: {
          budgetBytes: undefined,
          hold: Duration.seconds(5),
          reserve: 0.2,
          pressure: Defaults.memoryPressure,
          quantization: { int4Below: 2 * 2 ** 30, int8Below: 4 * 2 ** 30 }
        },
        engineRestarts: Defaults.engineRestarts,
        sampleEvery: Duration.seconds(5),
        streams: streamDefaults,
        deploy: { steps: [0.1, 0.3, 0.7, 1], every: Duration.minutes(5), errorRate: 0.05 },
        embeddingBatches: { size: 10, wait: Duration.millis(100), waitIdle: false },
        reload: { watch: true, wait: Duration.millis(250) },
        circuits: Defaults.breaker,
        keyCooldowns: Defaults.keyCooldowns,
        keys: [],
        admission: {
          limits: [],
          budgets: [],
          defaultLimit,
          budgetAlerts: { percents: [50, 80, 95], timesLastCost: 10 },
          countsAll: false
        },
        alerts: { every: Duration.seconds(15), rules: defaultRules },
        store: { folder: "/folder/models", maxBytes: 1000 },
        storage: { type: "memory" },
        responses: { store: "database", ttl: Duration.days(30), maxBytes: 2 ** 30 },
        cache: { memoryBytes: 64 * 2 ** 20, compactEntries: 1_000, storedEntries: 100_000 },
        guard: guardOf(),
        answerModel: "served",
        policies: [RoutingPolicy.defaults],
        models: [{
          name: "chat",
          deployments: [{
            id: "chat#0",
            model: "chat",
            options: { engine: "llama", file: "/folder/model.gguf" },
            idleUnload: Duration.millis(1500),
            preload: false,
            pinned: false,
            queueLimit: 512,
            stallAfter: Duration.minutes(2),
            loadTimeout: Duration.minutes(5)
          }]
        }]
      })
    })

    it("takes the figures of circuits and of keys' cooldowns from it, the others by default", () => {
      const { circuits, keyCooldowns } = resolved({
        circuits: { failures: 2, openFor: "5 seconds", probes: 1 },
        keyCooldowns: { rejected: "2 seconds", rateLimitedMax: "1 minute" }
      })
      assert.deepStrictEqual(circuits, { opensAfter: 2, openFor: Duration.seconds(5), closesAfter: 3, probes: 1 })
      assert.deepStrictEqual(keyCooldowns, { limited: 1000, longest: 60_000, refused: 2000, longestRefused: 60_000 })
    })

    it("takes alerts of budgets, steps of a deploy and the limits of streams from it", () => {
      const { admission, deploy, streams } = resolved({
        budgetAlerts: { percents: [90] },
        deploy: { steps: [0.5, 1], every: "5 minutes" },
        engines: { streamWindow: 32, streams: { tokens: 1, delay: "1 ms", slowAfter: "1 second" } }
      })
      assert.deepStrictEqual(admission.budgetAlerts, { percents: [90], timesLastCost: 10 })
      assert.deepStrictEqual(deploy, { steps: [0.5, 1], every: Duration.minutes(5), errorRate: 0.05 })
      assert.deepStrictEqual(streams, {
        ...streamDefaults,
        window: 32,
        tokens: 1,
        delayMs: 1,
        slowAfterMs: 1_000
      })
    })

    it("takes restarts of engines and the interval of samples from it, the others by default", () => {
      const { engineRestarts, sampleEvery } = resolved({
        engines: { restarts: { times: 2, first: "50 ms", retryAfter: "5 seconds" }, sampleEvery: "1 second" }
      })
      assert.deepStrictEqual(engineRestarts, {
        ...Defaults.engineRestarts,
        times: 2,
        first: Duration.millis(50),
        retryAfter: Duration.seconds(5)
      })
      assert.deepStrictEqual(sampleEvery, Duration.seconds(1))
    })

    for (
      const [section, field, value] of [
        ["circuits", "failures", 0],
        ["circuits", "openFor", "0 seconds"],
        ["circuits", "successes", 0],
        ["circuits", "probes", 1.5],
        ["circuits", "closeAfter", 1],
        ["keyCooldowns", "rejected", "0 millis"],
        ["keyCooldowns", "rateLimited", -1]
      ] as const
    ) {
      it(`refuses ${section}.${field}: ${value} by its path`, () => {
        assert.deepStrictEqual(problems({ [section]: { [field]: value } }).map(({ path }) => path), [
          `${section}.${field}`
        ])
      })
    }

    it("takes policies from it, which extend the one named default", () => {
      const { policies } = resolved({
        policies: {
          careful: {
            strategy: "cost",
            limits: { cost: 1 },
            backoff: { cap: "1 second" },
            hedge: { share: 0.1 },
            continue: true
          },
          default: { retries: 1, timeouts: { total: "1 minute" }, weights: { speed: 1 } }
        }
      })
      const base = {
        ...RoutingPolicy.defaults,
        selection: { ...RoutingPolicy.defaults.selection, weights: { speed: 1, quality: 0.4, cost: 0.3, task: 1 } },
        retries: 1,
        timeouts: { ...RoutingPolicy.defaults.timeouts, totalMs: 60_000 }
      }
      assert.deepStrictEqual(policies, [base, {
        ...base,
        name: "careful",
        selection: { ...base.selection, strategy: "cost", limits: { quality: 0.8, cost: 1 } },
        backoff: { initialMs: 250, factor: 2, capMs: 1_000 },
        hedge: { share: 0.1 },
        continue: true
      }])
    })

    it("routes models by their policies, strategies and fallbacks", () => {
      const { models, policies } = resolved({
        policies: { quick: { strategy: "speed" } },
        models: {
          a: { deployments: [llama()], policy: "quick", fallbacks: ["b"], contentFallbacks: ["c"] },
          b: { deployments: [llama()], strategy: "latency", contextFallbacks: ["c", "a"] },
          c: { deployments: [llama()] }
        }
      })
      const [a, b, c] = models.map(({ routing }) => routing)
      assert.deepStrictEqual(a, {
        policy: policies[1]!,
        fallbacks: { ordinary: ["b"], context: [], content: ["c"] }
      })
      assert.strictEqual(b!.policy.selection.strategy, "latency")
      assert.deepStrictEqual(b!.fallbacks.context, ["c", "a"])
      assert.strictEqual(c, undefined)
    })

    it("is refused if it names an unknown policy or model, or the model itself", () => {
      const file = {
        policies: { quick: { strategy: "fastest", retries: 11, hedge: { share: 2 } } },
        models: { a: { deployments: [llama()] } }
      }
      assert.deepStrictEqual(problems(file).map(({ path }) => path), [
        "policies.quick.strategy",
        "policies.quick.retries",
        "policies.quick.hedge.share"
      ])
      assert.deepStrictEqual(problems({ policies: { quick: { strategy: "custom/mine" } } }), [{
        path: "policies.quick.strategy",
        expected:
          "Expected one of balanced, speed, quality, cost, weighted, least-busy, latency, round-robin, session, " +
          "prefix: only an embedding program provides custom/mine"
      }])
      assert.deepStrictEqual(
        problems({
          policies: { quick: {} },
          models: { a: { deployments: [llama()], fallbacks: ["a", "x"] }, b: { deployments: [llama()] } },
          environments: { production: { models: { b: { policy: "slow" } } } }
        }),
        [
          { path: "models.a.fallbacks[0]", expected: "Expected the name of another model. Available models: b" },
          { path: "models.a.fallbacks[1]", expected: "Expected the name of another model. Available models: b" },
          {
            path: "environments.production.models.b.policy",
            expected: "Unknown policy. Available policies: default, quick"
          }
        ]
      )
    })

    it("has cached responses as the last of the ordinary fallbacks only, and no model of that name", () => {
      const cached = "cached-responses"
      const { models } = resolved({ models: { a: { deployments: [llama()], fallbacks: [cached] } } })
      assert.deepStrictEqual(models[0]?.routing?.fallbacks.ordinary, [cached])
      const file = {
        models: {
          a: { deployments: [llama()], fallbacks: [cached, "b"], contextFallbacks: [cached] },
          b: { deployments: [llama()] },
          [cached]: { deployments: [llama()] }
        }
      }
      assert.deepStrictEqual(problems(file), [
        {
          path: `models.${cached}`,
          expected: `The name ${cached} is reserved for cached answers in fallbacks. Choose another name`
        },
        {
          path: "models.a.fallbacks[0]",
          expected: `${cached} may be only the last entry of \`fallbacks\``
        },
        {
          path: "models.a.contextFallbacks[0]",
          expected: `${cached} may be only the last entry of \`fallbacks\``
        }
      ])
    })

    it("finds embedded models by name, and lists them where there is no such model", () => {
      const { models } = resolved({
        models: { embedder: { deployments: [{ engine: "onnx", folder: "builtin:tiny-embed" }] } }
      })
      assert.deepStrictEqual(models[0]!.deployments[0].options, { engine: "onnx", folder: "/package/embed" })
      assert.isTrue(models[0]!.deployments[0].preload)
      assert.deepStrictEqual(problems({ models: { a: { deployments: [llama("builtin:toString")] } } }), [{
        path: "models.a.deployments[0].file",
        expected: "Expected an embedded model: builtin:tiny-chat or builtin:tiny-embed"
      }])
    })

    it("finds embedded adapters by name, and lists them where there is no such adapter", () => {
      const adapted = (lora: unknown) => ({ models: { a: { deployments: [{ ...llama("a.gguf"), lora }] } } })
      const { models } = resolved(adapted("builtin:recall"))
      assert.deepInclude(models[0]!.deployments[0].options, { lora: "/package/recall.gguf" })
      assert.deepStrictEqual(problems(adapted([{ path: "builtin:recal" }, { path: "store:gone" }])), [
        { path: "models.a.deployments[0].lora[0].path", expected: "Expected an embedded adapter: builtin:recall" },
        {
          path: "models.a.deployments[0].lora[1].path",
          expected: "The store has no model \"gone\". Pull it with: troupe models pull <source> --name gone"
        }
      ])
    })

    it("finds models of the store by name, and names the command to pull a missing one", () => {
      const { models, store } = resolved({ models: { chat: { deployments: [llama("store:stored")] } } })
      assert.deepStrictEqual(store, { folder: "/store" })
      assert.deepStrictEqual(models[0]!.deployments[0].options, llama("/store/stored/model.gguf"))
      const elsewhere = resolved({
        store: { folder: "here" },
        models: { chat: { deployments: [llama("store:stored")] } }
      })
      assert.deepStrictEqual(elsewhere.models[0]!.deployments[0].options, llama("/folder/here/stored/model.gguf"))
      assert.deepStrictEqual(problems({ models: { chat: { deployments: [llama(), llama("store:none")] } } }), [{
        path: "models.chat.deployments[1].file",
        expected: "The store has no model \"none\". Pull it with: troupe models pull <source> --name none"
      }])
    })

    it("keeps models and deployments in their order, each with its own id", () => {
      const { models } = resolved({
        models: { b: { deployments: [llama("1"), llama("2")] }, a: { deployments: [llama("3")] } }
      })
      assert.deepStrictEqual(
        models.map(({ deployments, name }) => [name, deployments.map(({ id }) => id)]),
        [["b", ["b#0", "b#1"]], ["a", ["a#0"]]]
      )
    })

    it("makes paths of model files absolute", () => {
      const { models } = resolved({ models: { a: { deployments: [llama("x/y.gguf")] } } }, {
        resolvePath: (path) => `/elsewhere/${path}`
      })
      assert.deepInclude(models[0]?.deployments[0].options, { file: "/elsewhere/x/y.gguf" })
    })

    it("serves no tiny-chat beside configured models", () => {
      assert.deepStrictEqual(
        resolved({ models: { a: { deployments: [llama()] } } }).models.map(({ name }) => name),
        ["a"]
      )
    })

    it.each([[[]], ["text"], [5], [true]])("that is %j is refused", (file) => {
      assert.deepStrictEqual(problems(file), [{ path: "", expected: "Expected a mapping" }])
    })
  })

  describe("fake deployments", () => {
    it("are served under a name that begins with fake/", () => {
      assert.strictEqual(resolved({ models: { "fake/a": { deployments: [fake, fake] } } }).models[0]?.name, "fake/a")
    })

    it("are refused under any other name", () => {
      assert.deepStrictEqual(problems({ models: { a: { deployments: [llama(), fake] } } }), [
        { path: "models.a", expected: "A model with a fake deployment must be named fake/a" }
      ])
    })

    it("have no other kind under the same name", () => {
      assert.deepStrictEqual(problems({ models: { "fake/a": { deployments: [fake, llama()] } } }), [
        { path: "models.fake/a", expected: "A model whose name begins with fake/ can have fake deployments only" }
      ])
    })

    it("all wrong names are reported together", () => {
      assert.deepStrictEqual(
        paths({
          models: { a: { deployments: [fake] }, b: { deployments: [llama()] }, "fake/c": { deployments: [llama()] } }
        }),
        ["models.a", "models.fake/c"]
      )
    })

    it("from the rest of the file are named there, for any overlay of the model", () => {
      const file = {
        models: { a: { deployments: [fake] } },
        environments: { test: { models: { a: { preload: false } } } }
      }
      assert.deepStrictEqual(paths(file), ["models.a"])
    })

    it("from an overlay are named in it", () => {
      const file = {
        models: { a: { deployments: [llama()] } },
        environments: { test: { models: { a: { deployments: [fake] } } } }
      }
      assert.deepStrictEqual(paths(file), ["environments.test.models.a"])
    })
  })
})
