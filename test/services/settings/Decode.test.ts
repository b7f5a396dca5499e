import { assert, describe, it } from "@effect/vitest"
import { Duration, Redacted, Result } from "effect"
import * as fc from "fast-check"
import { inspect } from "node:util"
import * as Defaults from "../../../src/domain/Defaults.ts"
import type { DeploymentOptions } from "../../../src/domain/Deployment.ts"
import { isRemote } from "../../../src/domain/Deployment.ts"
import * as Problem from "../../../src/domain/Problem.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import { defaultLimit } from "../../../src/services/admission/AdmissionRules.ts"
import { decode } from "../../../src/services/settings/Decode.ts"
import { guardOf } from "../../../src/services/settings/GuardSettings.ts"
import type { ResolveContext } from "../../../src/services/settings/Resolution.ts"
import { defaultServer } from "../../../src/services/settings/Resolution.ts"
import { fileJsonSchema } from "../../../src/services/settings/Schema.ts"
import type { Resolved } from "../../../src/services/settings/Settings.ts"
import { environments, SettingsError } from "../../../src/services/settings/Settings.ts"

const contextWith = (over: Partial<ResolveContext> = {}): ResolveContext => ({
  environment: "development",
  variables: {},
  resolvePath: (path) => `/folder/${path}`,
  embedded: { engine: "llama", file: "embedded.gguf" },
  defaultEngineHost: "process",
  defaultStoreFolder: "/store",
  defaultStorage: "memory",
  defaultDataFolder: "/data",
  findInStore: (folder, name) => name === "stored" ? `${folder}/stored/model.gguf` : undefined,
  ...over
})

const resolved = (file: unknown, over?: Partial<ResolveContext>): Resolved =>
  Result.getOrThrowWith(decode(file, contextWith(over)), (problems) => new Error(problems.map(Problem.format).join()))

const problems = (file: unknown, over?: Partial<ResolveContext>): ReadonlyArray<Problem.Problem> =>
  Result.getOrThrowWith(Result.flip(decode(file, contextWith(over))), () => new Error("The file was taken."))

const paths = (file: unknown, over?: Partial<ResolveContext>): ReadonlyArray<string> =>
  problems(file, over).map(({ path }) => path).sort()

const llama = (file = "model.gguf"): DeploymentOptions => ({ engine: "llama", file })
const fake: DeploymentOptions = { engine: "fake" }

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
    it("is a day that exists", () => {
      const ends = (expires: string) => ({ keys: { ann: { key: "${KEY}", expires } } })
      const over = { variables: { KEY: "a-secret-of-a-caller" } }
      assert.strictEqual(resolved(ends("2028-02-29"), over).keys[0]!.expiresAt, Date.UTC(2028, 1, 29))
      for (const day of ["2027-02-29", "2027-02-30T10:00:00Z", "tomorrow"]) {
        assert.deepStrictEqual(paths(ends(day), over), ["keys.ann.expires"], day)
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
        shutdownGrace: Duration.seconds(30),
        maxBodyBytes: 10 * 1024 * 1024,
        headersTimeout: Duration.seconds(15),
        bodyTimeout: Duration.seconds(30),
        maxConnections: 16_384,
        admin: {},
        trustedProxies: []
      })
      assert.strictEqual(settings.environment, "development")
      assert.strictEqual(settings.engineHost, "process")
    })

    it("serves the embedded model as tiny-chat", () => {
      assert.deepStrictEqual(resolved(undefined).models, [{
        name: "tiny-chat",
        deployments: [{
          id: "tiny-chat#0",
          model: "tiny-chat",
          options: { engine: "llama", file: "/folder/embedded.gguf" },
          idleUnload: Duration.minutes(10),
          preload: true,
          pinned: false,
          queueLimit: 512,
          stallAfter: Duration.minutes(2),
          loadTimeout: Duration.minutes(5)
        }]
      }])
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
        memory: { budgetBytes: undefined, hold: Duration.seconds(5) },
        circuits: Defaults.breaker,
        keyCooldowns: Defaults.keyCooldowns,
        keys: [],
        admission: { limits: [], budgets: [], defaultLimit, countsAll: false },
        store: { folder: "/folder/models", maxBytes: 1000 },
        storage: { type: "memory" },
        cache: { memoryBytes: 64 * 2 ** 20, compactEntries: 1_000, storedEntries: 100_000 },
        guard: guardOf(),
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

  describe("overlays", () => {
    const file = {
      server: { host: "0.0.0.0", port: 80 },
      logLevel: "info",
      models: { a: { deployments: [llama("one"), llama("two")], preload: false } },
      environments: {
        test: { server: { port: 8080 }, logLevel: "error", models: { a: { deployments: [llama("three")] } } },
        production: { models: { b: { deployments: [llama("four")] } } }
      }
    }

    it("mappings merge", () => {
      const { models, server } = resolved(file, { environment: "test" })
      assert.deepInclude(server, { host: "0.0.0.0", port: 8080 })
      assert.isFalse(models[0]?.deployments[0].preload)
    })

    it("lists are replaced whole", () => {
      const { models } = resolved(file, { environment: "test" })
      assert.deepStrictEqual(models[0]?.deployments.map(({ options }) => options), [llama("/folder/three")])
    })

    it("scalars are replaced", () => {
      assert.strictEqual(resolved(file, { environment: "test" }).logLevel, "Error")
    })

    it("new keys are added", () => {
      const { models } = resolved(file, { environment: "production" })
      assert.deepStrictEqual(models.map(({ name }) => name), ["a", "b"])
    })

    it("of other environments change nothing", () => {
      const { environments: _, ...base } = file
      assert.deepStrictEqual(resolved(file), resolved(base))
    })

    it.each(["toString", "constructor", "a.b", "a/b", "0"])("leave a model named %s alone", (name) => {
      const { models } = resolved({
        models: { [name]: { deployments: [llama()] } },
        environments: { development: { models: { other: { deployments: [llama()] } } } }
      })
      assert.deepStrictEqual(models.map(({ name }) => name), [name, "other"])
    })

    it("may omit what the rest of the file sets", () => {
      const { models } = resolved({
        models: { a: { deployments: [llama()] } },
        environments: { development: { models: { a: { idleUnload: "1 minute" } } } }
      })
      assert.deepStrictEqual(models[0]?.deployments[0].idleUnload, Duration.minutes(1))
    })
  })

  describe("environments", () => {
    it("an empty NODE_ENV is development, like an unset one", () => {
      assert.strictEqual(resolved({}, { environment: "" }).environment, "development")
    })

    it("an empty section equals an absent one", () => {
      assert.deepStrictEqual(
        resolved({ server: null, models: null, environments: { test: null, production: { server: null } } }),
        resolved({})
      )
    })

    it.each(["staging", "Production", "prod"])("NODE_ENV %j is refused", (environment) => {
      const [problem, ...others] = problems({}, { environment })
      assert.deepStrictEqual(others, [])
      assert.strictEqual(problem?.path, "NODE_ENV")
      for (const known of environments) assert.include(problem?.expected, known)
    })

    it("an overlay for an unknown one is refused by its path", () => {
      assert.deepStrictEqual(paths({ environments: { staging: {}, test: {} } }), ["environments.staging"])
    })

    it("that are not a mapping are refused", () => {
      assert.deepStrictEqual(paths({ environments: ["test"] }), ["environments"])
    })
  })

  describe("problems", () => {
    it("names hosts of images by name or address, without a port", () => {
      const media = { allowHosts: ["pictures.local", "10.0.0.7", "fd00::7"] }
      assert.deepStrictEqual(resolved({ server: { media } }).server.media, media)
      assert.deepStrictEqual(
        paths({ server: { media: { allowHosts: ["Pictures.local", "http://10.0.0.7", ""] } } }),
        ["server.media.allowHosts[0]", "server.media.allowHosts[1]", "server.media.allowHosts[2]"]
      )
    })

    it("names every wrong value at once", () => {
      assert.deepStrictEqual(
        paths({
          server: { host: "", port: 65_536, shutdownGrace: "soon", maxBodyBytes: 0, hots: "x" },
          engines: { host: "moon" },
          logLevel: "loud",
          plugins: [],
          models: {
            a: { deployments: [] },
            b: { deployments: [llama(), { engine: "gpu" }] },
            c: { deployments: [{ engine: "llama" }], idleUnload: {}, preload: "yes" },
            d: { deployments: [{ engine: "llama", file: "x", slots: 0, replicas: 1.5, colour: "red" }] },
            e: {},
            "fake/f": { deployments: [{ engine: "fake", fault: { kind: "smoke", afterTokens: -1 } }] }
          }
        }),
        [
          "engines.host",
          "logLevel",
          "models.a.deployments",
          "models.b.deployments[1].engine",
          "models.c.deployments[0].file",
          "models.c.idleUnload",
          "models.c.preload",
          "models.d.deployments[0].colour",
          "models.d.deployments[0].replicas",
          "models.d.deployments[0].slots",
          "models.e.deployments",
          "models.fake/f.deployments[0].fault.afterTokens",
          "models.fake/f.deployments[0].fault.kind",
          "plugins",
          "server.host",
          "server.hots",
          "server.maxBodyBytes",
          "server.port",
          "server.shutdownGrace"
        ]
      )
    })

    it.each<[text: string | false, span: Duration.Duration]>([
      ["30 minutes", Duration.minutes(30)],
      ["1 second", Duration.seconds(1)],
      ["1.5 hours", Duration.minutes(90)],
      ["500 millis", Duration.millis(500)],
      ["500 milliseconds", Duration.millis(500)],
      ["1 millisecond", Duration.millis(1)],
      ["500 ms", Duration.millis(500)],
      ["500ms", Duration.millis(500)],
      ["10 s", Duration.seconds(10)],
      ["1.5 h", Duration.minutes(90)],
      ["5m", Duration.minutes(5)],
      ["1h30m", Duration.minutes(90)],
      [false, Duration.infinity]
    ])("takes %j as a span of time", (idleUnload, span) => {
      const { models } = resolved({ models: { a: { deployments: [llama()], idleUnload } } })
      assert.deepStrictEqual(models[0]!.deployments[0].idleUnload, span)
    })

    it.each([300, "300", "soon", "5 fortnights", "5 mss", true, 0, "0", "0s", "0 minutes"])(
      "asks for a unit where a span of time is %j",
      (idleUnload) => {
        assert.deepStrictEqual(problems({ models: { a: { deployments: [llama()], idleUnload } } }), [{
          path: "models.a.idleUnload",
          expected:
            "Expected a duration above 0 with its unit, such as 500 ms, 10 minutes or 1h30m, or false to turn it off"
        }])
      }
    )

    it("of time that runs backwards are named", () => {
      assert.deepStrictEqual(
        paths({ server: { shutdownGrace: -1 }, models: { a: { deployments: [llama()], idleUnload: "-5 minutes" } } }),
        ["models.a.idleUnload", "server.shutdownGrace"]
      )
    })

    it("of remote deployments are named at their fields", () => {
      const pathsOf = (deployment: object) => paths({ models: { a: { deployments: [deployment] } } })
      assert.deepStrictEqual(pathsOf({ provider: "openai", modle: "m" }), [
        "models.a.deployments[0].model",
        "models.a.deployments[0].modle"
      ])
      assert.deepStrictEqual(pathsOf({ provider: "unknown", model: "m" }), ["models.a.deployments[0].provider"])
      assert.deepStrictEqual(pathsOf({ provider: "troupe", model: "m" }), ["models.a.deployments[0].baseUrl"])
      for (const baseUrl of ["ftp://host", "host", "http://host/?key=1"]) {
        assert.deepStrictEqual(pathsOf({ provider: "openai", model: "m", baseUrl }), [
          "models.a.deployments[0].baseUrl"
        ])
      }
    })

    it("names the available engines if a deployment has another", () => {
      const [problem] = problems({ models: { a: { deployments: [{ engine: "gpu" }] } } })
      assert.deepStrictEqual(problem, {
        path: "models.a.deployments[0].engine",
        expected: "Expected \"llama\", \"onnx\", \"fake\" or \"language-model\", or `provider` for a remote model"
      })
    })

    it.each<[deployment: object, field: string, expected: RegExp]>([
      [{ engine: "llma", file: "a" }, "engine", /Expected "llama", .*Did you mean llama\?$/],
      [{ engin: "llama", file: "a" }, "engin", /^Unknown field\. Did you mean engine\?$/],
      [{ providr: "openai", model: "a" }, "providr", /^Unknown field\. Did you mean provider\?$/],
      [{ file: "a" }, "engine", /Did you mean engine: llama\?$/],
      [{ folder: "a" }, "engine", /Did you mean engine: onnx\?$/],
      [{ model: "a" }, "engine", /For a remote model, set provider to one of openai, /],
      [{ engine: "openai", model: "a" }, "engine", /Use provider: openai without engine$/],
      [{ engine: "ollama", model: "a" }, "engine", /Use provider: ollama without engine$/],
      [{ provider: "antropic", model: "a" }, "provider", /Did you mean anthropic\?$/],
      [
        { engine: "llama", file: "a", abilities: "embed" },
        "abilities",
        /^Expected a list, such as \[generate, embed\]$/
      ],
      [{ engine: "llama", provider: "openai", model: "a" }, "engine", /^Set either `engine` or `provider`, not both$/],
      [{ engine: "remote", provider: "openai", model: "a" }, "engine", /^Set either `engine` or `provider`, not both$/],
      [{ engine: "remote", model: "a" }, "engine", /^Expected "llama", .*or `provider` for a remote model/],
      [{ engine: "llama", file: "a", price: 2 }, "price", /^Expected a mapping, such as \{ input: /]
    ])("of the deployment %j are at %s, with a hint", (deployment, field, expected) => {
      const [problem, ...others] = problems({ models: { a: { deployments: [deployment] } } })
      assert.deepStrictEqual(others, [])
      assert.strictEqual(problem?.path, `models.a.deployments[0].${field}`)
      assert.match(problem!.expected, expected)
    })

    it.each<[file: object, line: RegExp]>([
      [{ models: ["a"] }, /^models: Expected a mapping, such as \{ assistant: \{ deployments: \[/],
      [{ models: { a: "a.gguf" } }, /^models\.a: Expected a mapping, such as \{ deployments: \[/],
      [
        { models: { a: { deployments: { engine: "llama" } } } },
        /^models\.a\.deployments: Expected a list, such as \[\{ /
      ],
      [{ models: { a: { deployments: ["a.gguf"] } } }, /^models\.a\.deployments\[0\]: Expected a mapping, such as \{ /],
      [{ server: 3000 }, /^server: Expected a mapping, such as \{ port: 3000 \}$/],
      [
        { models: { a: { deployments: [{ provider: "openai", model: "m", keys: ["sk-one"] }] } } },
        /keys\[0\]: Expected a mapping, such as \{ key: "\$\{NAME\}", weight: 2 \}$/
      ],
      [
        { models: { a: { deployments: [{ provider: "openai", model: "m", keys: ["${KEY}"] }] } } },
        /keys\[0\]: Expected a mapping, such as \{ key: "\$\{NAME\}", weight: 2 \}\. The value comes from the .* KEY$/
      ],
      [
        { models: { a: { deployments: [{ provider: "openai", model: "m", keys: "${KEY}" }] } } },
        /keys: Expected a list, such as \[\{ key: "\$\{NAME\}", weight: 2 \}\]\. The value comes from the .* KEY$/
      ],
      [{ server: { trustedProxies: "10.0.0.1" } }, /^server\.trustedProxies: Expected a list$/],
      [{ logLevel: "wran" }, /^logLevel: Expected .*Did you mean warn\?$/]
    ])("of the shape of %j show the right one", (file, line) => {
      assert.match(problems(file, { variables: { KEY: "secret" } }).map(Problem.format).join("\n"), line)
    })

    it("of unknown fields have the nearest name, also of fields that depend on the deployment's kind", () => {
      const file = {
        sever: { port: 1 },
        environment: { production: {} },
        models: {
          a: { deployments: [{ engine: "llama", file: "a.gguf", context_size: 512 }], idleunlod: "5 minutes" },
          b: {
            deployments: [{ provider: "openai", model: "m", key: "${KEY}", baseURL: "http://localhost", file: "x" }]
          }
        }
      }
      assert.deepStrictEqual(problems(file, { variables: { KEY: "x" } }).map(Problem.format).sort(), [
        "environment: Unknown field. Did you mean environments?",
        "models.a.deployments[0].context_size: Unknown field. Did you mean contextSize?",
        "models.a.idleunlod: Unknown field. Did you mean idleUnload?",
        "models.b.deployments[0].baseURL: Unknown field. Did you mean baseUrl?",
        "models.b.deployments[0].file: Unknown field",
        "sever: Unknown field. Did you mean server?"
      ])
    })

    it("of names and strategies are reported beside problems of fields, also of the same model and policy", () => {
      const file = {
        policies: { slow: { strategy: "custom/x", retries: -1, timeouts: { totl: "1 s" } } },
        models: {
          a: {
            policy: "absent",
            fallbacks: ["nothing"],
            idleUnload: 0,
            deployments: [{ engine: "llama", fil: "a.gguf" }, { engine: "llama", file: "store:none", slts: 2 }]
          },
          "fake/b": { deployments: [{ engine: "fake", slots: 0 }, { engine: "fak" }], fallbacks: ["a", "c"] }
        }
      }
      assert.deepStrictEqual(paths(file), [
        "models.a.deployments[0].fil",
        "models.a.deployments[0].file",
        "models.a.deployments[1].file",
        "models.a.deployments[1].slts",
        "models.a.fallbacks[0]",
        "models.a.idleUnload",
        "models.a.policy",
        "models.fake/b.deployments[0].slots",
        "models.fake/b.deployments[1].engine",
        "models.fake/b.fallbacks[1]",
        "policies.slow.retries",
        "policies.slow.strategy",
        "policies.slow.timeouts.totl"
      ])
    })

    it("of an overlay are named in it, whichever environment is chosen", () => {
      const file = {
        server: { port: 80 },
        environments: {
          test: { server: { port: "x", colour: 1 } },
          production: { models: { a: {} }, logLevel: "loud" }
        }
      }
      for (const environment of environments) {
        assert.deepStrictEqual(paths(file, { environment }), [
          "environments.production.logLevel",
          "environments.production.models.a.deployments",
          "environments.test.server.colour",
          "environments.test.server.port"
        ])
      }
    })

    it("of the rest of the file are named once, not once per environment", () => {
      const file = { server: { port: "x" }, environments: { test: { server: { host: "h" } }, production: {} } }
      assert.deepStrictEqual(paths(file), ["server.port"])
    })

    it.each([5, "text", [[]]])("an overlay that is %j is named by its place", (overlay) => {
      assert.deepStrictEqual(paths({ environments: { production: overlay } }), ["environments.production"])
    })

    it("are printed in lines that begin with the source", () => {
      const error = new SettingsError({ source: "troupe.yaml", problems: [...problems({ server: { port: "x" } })] })
      assert.deepStrictEqual(error.message.split("\n"), [
        "Invalid configuration: troupe.yaml",
        "  server.port: Expected a whole number from 0 to 65535"
      ])
    })
  })

  describe("interpolation", () => {
    it("replaces a reference by the variable's value", () => {
      const { models, server } = resolved({
        server: { host: "${HOST}" },
        models: { a: { deployments: [llama("${FOLDER}/models/${NAME}.gguf")] } }
      }, { variables: { HOST: "localhost", FOLDER: "data", NAME: "tiny" } })
      assert.strictEqual(server.host, "localhost")
      assert.deepInclude(models[0]?.deployments[0].options, { file: "/folder/data/models/tiny.gguf" })
    })

    it("a value that is one reference has the type of its text", () => {
      const { models, server } = resolved({
        server: { port: "${PORT}" },
        models: { a: { deployments: [llama()], preload: "${PRELOAD}", idleUnload: "${IDLE}" } }
      }, { variables: { PORT: "8080", PRELOAD: "false", IDLE: "2 minutes" } })
      assert.strictEqual(server.port, 8080)
      assert.isFalse(models[0]?.deployments[0].preload)
      assert.deepStrictEqual(models[0]?.deployments[0].idleUnload, Duration.minutes(2))
    })

    it("a value with more than one reference remains a text", () => {
      const reply = (text: string) =>
        resolved({ models: { "fake/a": { deployments: [{ engine: "fake", reply: text }] } } }, {
          variables: { A: "1", B: "2" }
        }).models[0]?.deployments[0].options
      assert.deepInclude(reply("${A}.${B}"), { reply: "1.2" })
      assert.deepInclude(reply("${A}${B}"), { reply: "12" })
    })

    it("a number of the wrong kind is refused by its path", () => {
      assert.deepStrictEqual(paths({ server: { port: "${PORT}" } }, { variables: { PORT: "80.5" } }), ["server.port"])
      assert.deepStrictEqual(paths({ server: { port: "${PORT}" } }, { variables: { PORT: "eighty" } }), ["server.port"])
    })

    it("a variable whose value is empty or of the wrong kind is named", () => {
      const deployment = { provider: "openai", model: "${MODEL}", key: "${KEY}", headers: { "x-team": "${TEAM}" } }
      const file = { server: { port: "${PORT}" }, models: { a: { deployments: [deployment, llama("${A}${B}")] } } }
      const variables = { MODEL: "", KEY: "", TEAM: "", PORT: "eighty", A: "", B: "" }
      const empty = (names: string) => `Expected the environment variable${names} not to be empty`
      const place = "models.a.deployments"
      assert.sameMembers(problems(file, { variables }).map(Problem.format), [
        "server.port: Expected a whole number from 0 to 65535. The value comes from the environment variable PORT",
        `${place}[0].model: ${empty(" MODEL")}`,
        `${place}[0].key: ${empty(" KEY")}`,
        `${place}[0].headers.x-team: ${empty(" TEAM")}`,
        `${place}[1].file: ${empty("s A and B")}`
      ])
      assert.sameMembers([...paths(file, { variables, secretsMayBeUnset: true })], [
        "server.port",
        `${place}[0].model`,
        `${place}[1].file`
      ])
    })

    it("the value of a variable is not interpolated again", () => {
      const { server } = resolved({ server: { host: "${A}" } }, { variables: { A: "${B}", B: "b" } })
      assert.strictEqual(server.host, "${B}")
    })

    it("an unset variable is named with the path that needs it", () => {
      const found = problems({
        server: { host: "${HOST}" },
        models: { a: { deployments: [llama("${FOLDER}/a"), llama("b/${NAME}")] } },
        environments: { development: { logLevel: "${LEVEL}" } }
      })
      const missing = found.filter(({ expected }) => expected.includes("environment variable"))
      assert.deepStrictEqual(missing.map(Problem.format).sort(), [
        "environments.development.logLevel: Expected the environment variable LEVEL to be set",
        "models.a.deployments[0].file: Expected the environment variable FOLDER to be set",
        "models.a.deployments[1].file: Expected the environment variable NAME to be set",
        "server.host: Expected the environment variable HOST to be set"
      ])
    })

    it("a variable of a secret may be unset for a command that calls no provider, and no other", () => {
      const remote = {
        provider: "openai",
        model: "${MODEL}",
        keys: [{ key: "${KEY}" }],
        headers: { "x-mark": "${MARK}" }
      }
      const file = { models: { a: { deployments: [remote] } } }
      const place = (field: string) => `models.a.deployments[0].${field}`
      assert.sameMembers([...paths(file)], [place("keys[0].key"), place("headers.x-mark"), place("model")])
      assert.deepStrictEqual(paths(file, { secretsMayBeUnset: true }), [place("model")])
      const { models: [model] } = resolved(file, { secretsMayBeUnset: true, variables: { MODEL: "m" } })
      assert.strictEqual(model?.name, "a")
    })

    it("a variable that another environment needs may be unset", () => {
      const file = { environments: { production: { server: { host: "${HOST}", port: "${PORT}" } } } }
      assert.strictEqual(resolved(file).server.host, "127.0.0.1")
      assert.includeMembers([...paths(file, { environment: "production" })], [
        "environments.production.server.host",
        "environments.production.server.port"
      ])
    })

    it("a variable that another environment needs hides no other problem there", () => {
      const server = { host: "${HOST}", hostname: "x", port: 70_000 }
      assert.deepStrictEqual(paths({ environments: { production: { server } } }), [
        "environments.production.server.hostname",
        "environments.production.server.port"
      ])
    })

    it("no problem prints the value of a variable", () => {
      const places = fc.constantFrom(
        { server: { port: "${SECRET}", host: "${SECRET}", unknown: "${SECRET}" } },
        { logLevel: "${SECRET}", models: { a: { deployments: ["${SECRET}"], idleUnload: "${SECRET}" } } },
        { models: { a: { deployments: [{ engine: "${SECRET}", file: "x" }] } } },
        { environments: { test: { engines: "${SECRET}" } }, models: "${SECRET}" },
        { environments: { development: { "${SECRET}": "${SECRET}" } } }
      )
      const value = fc.string({ minLength: 6, maxLength: 20, unit: fc.constantFrom("§", "Ж", "7") })
      fc.assert(fc.property(places, value, (file, value) => {
        const texts = problems(file, { variables: { SECRET: value } }).map(Problem.format)
        assert.isAbove(texts.length, 0)
        assert.notInclude(texts.join("\n"), value)
      }))
    })
  })

  describe("secrets", () => {
    const word = (alphabet: string, minLength: number, maxLength = minLength + 20) =>
      fc.string({ unit: fc.constantFrom(...alphabet.split("")), minLength, maxLength })
    const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    const capitals = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    const after = (prefix: string, rest: fc.Arbitrary<string>) => rest.map((text) => prefix + text)

    const keys = fc.oneof(
      fc.constantFrom("sk-", "pk-", "rk-", "sk-ant-api03-", "sk-proj-").chain((prefix) =>
        after(prefix, word(`${letters}_-`, 16))
      ),
      after("AKIA", word(capitals, 16, 16)),
      after("ASIA", word(capitals, 16, 16)),
      after("AIza", word(`${letters}_-`, 30)),
      fc.constantFrom("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "hf_", "gsk_").chain((prefix) =>
        after(prefix, word(letters, 20))
      ),
      after("glpat-", word(`${letters}_-`, 16)),
      after("xoxb-", word(`${letters}-`, 10)),
      fc.tuple(word(letters, 8), word(letters, 8), word(letters, 8)).map((parts) => `eyJ${parts.join(".")}`),
      after("Bearer ", word(letters, 12)),
      word(letters, 12).map((text) => `-----BEGIN RSA PRIVATE KEY-----\n${text}\n-----END RSA PRIVATE KEY-----`)
    ).chain((key) => fc.constantFrom(key, ` ${key}\n`))

    const name = fc.constantFrom(
      "server",
      "models",
      "engines",
      "memory",
      "host",
      "file",
      "deployments",
      "reply",
      "token",
      "x",
      "y"
    )
    const place = fc.array(fc.oneof({ weight: 3, arbitrary: name }, fc.nat({ max: 2 })), { maxLength: 5 }).chain((
      rest
    ) =>
      fc.constantFrom<ReadonlyArray<string | number>>(
        ["x", ...rest],
        ["server", ...rest],
        ["models", "m", ...rest],
        ["models", "m", "deployments", 0, ...rest],
        ["environments", "test", "server", ...rest],
        ["environments", "production", ...rest, "host"]
      )
    )

    /** A tree that has nothing but the value in this place. */
    const treeOf = (path: ReadonlyArray<string | number>, value: unknown): unknown =>
      path.reduceRight(
        (inner, key) => typeof key === "number" ? Array.from({ length: key + 1 }, () => inner) : { [key]: inner },
        value
      )

    it("a literal that looks like a key is refused by its path and never printed, at any path", () => {
      fc.assert(
        fc.property(place, keys, fc.constantFrom(...environments), (path, key, environment) => {
          const found = problems(treeOf(path, key), { environment })
          const texts = found.map(Problem.format).join("\n")
          assert.include(texts, `${Problem.formatPath(path)}: A secret must not be written in the file. Use \${NAME}`)
          assert.notInclude(texts, key.trim())
          assert.notInclude(new SettingsError({ source: "troupe.yaml", problems: [...found] }).message, key.trim())
        }),
        { numRuns: 500 }
      )
    })

    it("any text in a field that is named like a secret is refused by its path and never printed", () => {
      const field = fc.constantFrom(
        "apiKey",
        "api_key",
        "api-key",
        "API_KEY",
        "openaiApiKey",
        "password",
        "dbPassword",
        "passphrase",
        "secret",
        "client_secret",
        "credential",
        "credentials",
        "authorization",
        "accessToken",
        "auth_token",
        "bearerToken"
      )
      const value = fc.string({ minLength: 6, unit: fc.constantFrom("§", "Ж", "7", " ") }).filter((text) =>
        text.trim().length > 3
      )
      fc.assert(fc.property(place, field, value, (rest, field, value) => {
        const path = [...rest, field]
        const texts = problems(treeOf(path, value)).map(Problem.format).join("\n")
        assert.include(texts, `${Problem.formatPath(path)}: A secret must not be written in the file. Use \${NAME}`)
        assert.notInclude(texts, value.trim())
      }))
    })

    it("a reference to a variable is no secret", () => {
      const reply = "${OPENAI_API_KEY}"
      const { models } = resolved({ models: { "fake/a": { deployments: [{ engine: "fake", reply }] } } }, {
        variables: { OPENAI_API_KEY: "sk-0123456789abcdef0123" }
      })
      assert.deepInclude(models[0]?.deployments[0].options, { reply: "sk-0123456789abcdef0123" })
    })

    it("a reference with more text in a field named like a secret is refused", () => {
      const texts = problems({ apiKey: "${PREFIX}-rest-of-it" }, { variables: { PREFIX: "sk" } }).map(Problem.format)
      assert.isTrue(
        texts.some((text) => text.startsWith("apiKey: A secret must not be written in the file. Use ${NAME}"))
      )
      assert.notInclude(texts.join("\n"), "rest-of-it")
    })

    it.each(["models/sk-tiny.gguf", "task-force.gguf", "hf_tiny.gguf", "skeleton", "./a/b.gguf"])(
      "%s is an ordinary text",
      (file) => {
        const { models } = resolved({ models: { a: { deployments: [llama(file)] } } })
        assert.deepInclude(models[0]?.deployments[0].options, { file: `/folder/${file}` })
      }
    )
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

  describe("JSON Schema", () => {
    const schema = fileJsonSchema() as {
      readonly $schema: string
      readonly type?: string
      readonly properties?: object
    }
    const text = JSON.stringify(schema)
    const missing = (fields: ReadonlyArray<string>) => fields.filter((field) => !text.includes(`"${field}":{`))

    it("is draft 2020-12, of a mapping with the sections of the file", () => {
      assert.strictEqual(schema.$schema, "https://json-schema.org/draft/2020-12/schema")
      assert.strictEqual(schema.type, "object")
      assert.sameMembers(Object.keys(schema.properties ?? {}), [
        "server",
        "engines",
        "memory",
        "circuits",
        "keys",
        "keyCooldowns",
        "limits",
        "budgets",
        "ledger",
        "store",
        "storage",
        "redis",
        "cache",
        "guard",
        "policies",
        "logLevel",
        "logFormat",
        "models",
        "environments"
      ])
    })

    it("has the fields of the sections and the environments", () => {
      assert.deepStrictEqual(missing(["host", "port", "shutdownGrace", "maxBodyBytes", ...environments]), [])
    })

    it("has the fields of a model and of its deployments", () => {
      const ofModel = ["deployments", "idleUnload", "preload"]
      const ofDeployment = ["engine", "file", "contextSize", "threads", "slots", "replicas", "reply", "fault"]
      assert.deepStrictEqual(missing([...ofModel, ...ofDeployment]), [])
    })

    it("describes every field that is not a section", () => {
      const wordless = (part: unknown): ReadonlyArray<string> => {
        if (typeof part !== "object" || part === null) return []
        const properties = Object.entries(("properties" in part ? part.properties : {}) as Record<string, object>)
        return [
          ...properties.filter(([name, field]) =>
            name !== "engine" && !("description" in field) && !("properties" in field)
          ).map(([name]) => name),
          ...Object.values(part).flatMap(wordless)
        ]
      }
      assert.deepStrictEqual(wordless(schema), [])
    })

    it("has no reference outside itself", () => {
      assert.notInclude(text, "$ref")
    })
  })
})
