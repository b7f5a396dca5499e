import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import * as fc from "fast-check"
import { modes, rules } from "../../../src/domain/GuardRule.ts"
import * as Problem from "../../../src/domain/Problem.ts"
import { allRules } from "../../../src/services/settings/GuardSettings.ts"
import { environments, SettingsError } from "../../../src/services/settings/Settings.ts"

import { llama, paths, problems, resolved } from "./support.ts"

describe("references in a configuration", () => {
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

    it("an unknown field needs no variable", () => {
      const remote = { provider: "openai", model: "m", apiKey: "${KEY}" }
      const unknown = ["models.a.deployments[0].apiKey: Unknown field. Did you mean key?"]
      const file = { models: { a: { deployments: [remote] } } }
      assert.deepStrictEqual(problems(file).map(Problem.format), unknown)
      assert.deepStrictEqual(problems(file, { variables: { KEY: "k" } }).map(Problem.format), unknown)
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

    it("a field that takes values of a list only has no secret, whatever its name is", () => {
      for (const mode of modes) {
        const guard = { rules: Object.fromEntries(rules.map((rule) => [rule, mode])) }
        assert.deepStrictEqual(resolved({ guard, environments: { test: { guard } } }).guard.modes, allRules(mode))
      }
      const typing = { guard: { rules: { apiKey: "redakt" } } }
      for (const file of [typing, { environments: { production: typing } }]) {
        const texts = problems(file).map(Problem.format)
        assert.lengthOf(texts, 1)
        assert.include(texts[0], "guard.rules.apiKey: Expected ")
      }
      const key = "sk-0123456789abcdef0123"
      const texts = problems({ guard: { rules: { apiKey: key } } }).map(Problem.format).join()
      assert.include(texts, "guard.rules.apiKey: A secret must not be written in the file.")
      assert.notInclude(texts, key)
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
})
