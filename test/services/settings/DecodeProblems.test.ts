import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import * as Problem from "../../../src/domain/Problem.ts"
import { environments, SettingsError } from "../../../src/services/settings/Settings.ts"

import { llama, paths, problems, resolved } from "./support.ts"

describe("problems", () => {
  it("names hosts of images by name or address, without a port", () => {
    const media = { allowHosts: ["pictures.local", "10.0.0.7", "fd00::7"] }
    assert.deepStrictEqual(resolved({ server: { media } }).server.media, media)
    assert.deepStrictEqual(
      paths({ server: { media: { allowHosts: ["Pictures.local", "http://10.0.0.7", ""] } } }),
      ["server.media.allowHosts[0]", "server.media.allowHosts[1]", "server.media.allowHosts[2]"]
    )
  })

  it("stores responses in Redis if there is one and no Postgres, or where it is told to", () => {
    const storeOf = (more: object) => resolved({ models: { a: { deployments: [llama()] } }, ...more }).responses.store
    const redis = { url: "redis://127.0.0.1:6379" }
    const postgres = { type: "postgres", url: "postgres://u@127.0.0.1/d" }
    assert.strictEqual(storeOf({}), "database")
    assert.strictEqual(storeOf({ redis }), "redis")
    assert.strictEqual(storeOf({ redis, storage: postgres }), "database")
    assert.strictEqual(storeOf({ redis, storage: postgres, responses: { store: "redis" } }), "redis")
    assert.strictEqual(storeOf({ redis, responses: { store: "database" } }), "database")
    assert.deepStrictEqual(paths({ responses: { store: "redis" } }), ["responses.store"])
  })

  it("wants the levels of memory pressure in their order", () => {
    const { memory } = resolved({ memory: { reserve: 0.1, pressure: { warning: 0.5, every: "5 seconds" } } })
    assert.deepInclude(memory, { reserve: 0.1 })
    assert.deepInclude(memory.pressure, { warning: 0.5, critical: 0.85, every: Duration.seconds(5) })
    const [problem] = problems({ memory: { pressure: { warning: 0.9 } } })
    assert.deepStrictEqual(problem, {
      path: "memory.pressure",
      expected: "Expected warning below critical, and critical below emergency"
    })
  })

  it("wants factors of the scaling that do not add and remove replicas in turns", () => {
    const { scaling } = resolved({ scaling: { up: 1.1, targets: { cpu: 0.5 }, cooldown: "1 hour" } })
    assert.deepInclude(scaling, { up: 1.1, down: 0.5, maxReplicas: 2, cooldown: Duration.hours(1) })
    assert.deepStrictEqual(scaling?.targets, { slots: 0.7, cpu: 0.5, memory: 0.8, gpu: 0.85 })
    assert.isUndefined(resolved({}).scaling)
    const [problem] = problems({ scaling: { up: 1, down: 0.6 } })
    assert.strictEqual(problem?.path, "scaling")
    assert.include(problem?.expected, "Expected down to be at most half of up (0.5)")
    assert.deepStrictEqual(
      paths({ scaling: { targets: { cpu: 1.2, disk: 1 }, every: 5, maxReplicas: 0 } }),
      ["scaling.every", "scaling.maxReplicas", "scaling.targets.cpu", "scaling.targets.disk"]
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
    [
      { engine: "onnx", folder: "a", lora: "b.gguf" },
      "lora",
      /^Only deployments with engine: llama have LoRA adapters/
    ],
    [
      { provider: "ollama", model: "a", lora: "b.gguf" },
      "lora",
      /^Only .* adapters\. .* served under its own name: `model`$/
    ],
    [{ engine: "llama", file: "a", lora: [] }, "lora", /^Expected at least one element$/],
    [{ engine: "llama", file: "a", lora: [{ path: "b", scale: "1" }] }, "lora[0].scale", /^Expected a number$/],
    [{ engine: "llama", file: "a", lora: [{}] }, "lora[0].path", /^`path` is required/],
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

  it("of a deployment's fields have the name for what other programs call otherwise", () => {
    const file = {
      models: {
        a: { deployments: [{ engine: "llama", file: "a.gguf", num_ctx: 512, constructor: 1 }] },
        b: { deployments: [{ provider: "openai", model: "m", apiKey: "${KEY}", api_base: "http://localhost" }] },
        c: { deployments: [{ engine: "llama", path: "c.gguf", url: "http://localhost" }] }
      }
    }
    const found = problems(file, { variables: { KEY: "x" } }).map(Problem.format)
    assert.deepStrictEqual(found.map((line) => line.replace(/ The value comes from .*/, "")).sort(), [
      "models.a.deployments[0].constructor: Unknown field",
      "models.a.deployments[0].num_ctx: Unknown field. Did you mean contextSize?",
      "models.b.deployments[0].apiKey: Unknown field. Did you mean key?",
      "models.b.deployments[0].api_base: Unknown field. Did you mean baseUrl?",
      "models.c.deployments[0].file: `file` is required",
      "models.c.deployments[0].path: Unknown field. Did you mean file?",
      "models.c.deployments[0].url: Unknown field"
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
