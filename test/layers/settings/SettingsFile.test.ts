import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync, readFileSync } from "node:fs"
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { isAbsolute, join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import * as SettingsFile from "../../../src/layers/settings/SettingsFile.ts"
import { pathOf } from "../../../src/services/engines/EngineKinds.ts"
import { Settings, SettingsError } from "../../../src/services/settings/Settings.ts"

/** A folder that is gone after the test. */
const folder = Effect.acquireRelease(
  Effect.promise(async () => realpath(await mkdtemp(join(tmpdir(), "settings-file-")))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)

const write = (file: string, content: string) => Effect.as(Effect.promise(() => writeFile(file, content)), file)

/** The current folder, until the scope ends. */
const enter = (path: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const before = process.cwd()
      process.chdir(path)
      return before
    }),
    (before) => Effect.sync(() => process.chdir(before))
  )

/** `NODE_ENV` and the like, until the scope ends. */
const setVariable = (name: string, value: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const before = process.env[name]
      process.env[name] = value
      return before
    }),
    (before) =>
      Effect.sync(() => {
        if (before === undefined) delete process.env[name]
        else process.env[name] = before
      })
  )

const failureOf = (options?: SettingsFile.Options) => Effect.flip(SettingsFile.load(options))

const ggufMagic = "GGUF"

describe("SettingsFile", () => {
  describe("where there is no file", () => {
    it.effect("serves the embedded models, whose files exist", () =>
      Effect.gen(function*() {
        yield* enter(yield* folder)
        const { models } = yield* SettingsFile.load()
        assert.deepStrictEqual(models.map(({ name }) => name), ["tiny-chat", "tiny-embed"])
        const { options } = models[0]!.deployments[0]
        assert.strictEqual(options.engine, "llama")
        const file = pathOf(options) ?? ""
        assert.isTrue(isAbsolute(file))
        assert.strictEqual(readFileSync(file).subarray(0, 4).toString("latin1"), ggufMagic)
        assert.deepStrictEqual(models.map(({ deployments: [{ preload }] }) => preload), [true, false])
      }))

    it.effect("runs engines on threads by default", () =>
      Effect.gen(function*() {
        yield* enter(yield* folder)
        assert.strictEqual((yield* SettingsFile.load()).engineHost, "thread")
        assert.strictEqual((yield* SettingsFile.load({ engineHost: "process" })).engineHost, "process")
      }))

    it.effect("an unknown NODE_ENV is refused without the name of a file, and so it is beside a file", () =>
      Effect.gen(function*() {
        yield* setVariable("NODE_ENV", "prod")
        const place = yield* folder
        yield* enter(place)
        for (const prepare of [Effect.void, write(join(place, "troupe.yaml"), "logLevel: info\n")]) {
          yield* prepare
          const { message } = yield* failureOf({})
          assert.strictEqual(
            message,
            "Invalid configuration: the environment variables\n" +
              "  NODE_ENV: Expected one of development, test, production, not \"prod\""
          )
        }
      }))

    it.effect("and one was named, fails with its path", () =>
      Effect.gen(function*() {
        const file = join(yield* folder, "missing.yaml")
        const error = yield* failureOf({ file })
        assert.instanceOf(error, SettingsError)
        assert.strictEqual(error.source, file)
        assert.deepStrictEqual(error.problems, [{ path: "", expected: "No such file" }])
      }))

    it.effect("but a folder, fails with its path", () =>
      Effect.gen(function*() {
        const file = join(yield* folder, "troupe.yaml")
        yield* Effect.promise(() => mkdir(file))
        const error = yield* failureOf({ file })
        assert.strictEqual(error.source, file)
        assert.strictEqual(error.problems.length, 1)
        assert.notInclude(error.problems[0]?.expected, "No such file")
      }))
  })

  describe("of a file", () => {
    const yaml = [
      "server:",
      "  port: 4000",
      "models:",
      "  chat:",
      "    deployments:",
      "      - engine: llama",
      "        file: models/chat.gguf",
      "environments:",
      "  production:",
      "    server: { port: 80 }",
      ""
    ].join("\n")

    it.effect("are read from troupe.yaml in the current folder", () =>
      Effect.gen(function*() {
        const path = yield* folder
        yield* write(join(path, SettingsFile.defaultFile), yaml)
        yield* enter(path)
        const { models, server } = yield* SettingsFile.load()
        assert.strictEqual(server.port, 4000)
        assert.deepStrictEqual(models.map(({ name }) => name), ["chat"])
      }))

    it.effect("find model files beside it, in any working directory", () =>
      Effect.gen(function*() {
        const path = yield* folder
        yield* Effect.promise(() => mkdir(join(path, "etc")))
        const file = yield* write(join(path, "etc", "any.yaml"), yaml)
        yield* enter(path)
        for (const name of [file, join("etc", "any.yaml")]) {
          const { models } = yield* SettingsFile.load({ file: name })
          assert.deepInclude(models[0]?.deployments[0].options, { file: join(path, "etc", "models", "chat.gguf") })
        }
      }))

    it.effect("take absolute paths as they are", () =>
      Effect.gen(function*() {
        const path = yield* folder
        const absolute = join(path, "elsewhere.gguf")
        const file = yield* write(
          join(path, "troupe.yaml"),
          `models: { chat: { deployments: [{ engine: llama, file: ${JSON.stringify(absolute)} }] } }`
        )
        const { models } = yield* SettingsFile.load({ file })
        assert.deepInclude(models[0]?.deployments[0].options, { file: absolute })
      }))

    it.effect("are those of the environment that NODE_ENV names", () =>
      Effect.gen(function*() {
        const file = yield* write(join(yield* folder, "troupe.yaml"), yaml)
        yield* setVariable("NODE_ENV", "production")
        const settings = yield* SettingsFile.load({ file })
        assert.strictEqual(settings.environment, "production")
        assert.strictEqual(settings.server.port, 80)
      }))

    it.effect("may refer to environment variables", () =>
      Effect.gen(function*() {
        const file = yield* write(
          join(yield* folder, "troupe.yaml"),
          "server: { port: \"${SETTINGS_FILE_TEST_PORT}\" }"
        )
        yield* setVariable("SETTINGS_FILE_TEST_PORT", "4321")
        assert.strictEqual((yield* SettingsFile.load({ file })).server.port, 4321)
      }))

    it.effect.each(["", "# nothing but a comment\n", "---\n"])(
      "that holds %j are the defaults",
      (content) =>
        Effect.gen(function*() {
          const file = yield* write(join(yield* folder, "troupe.yaml"), content)
          const { models, server } = yield* SettingsFile.load({ file })
          assert.strictEqual(server.port, 3000)
          assert.deepStrictEqual(models.map(({ name }) => name), ["tiny-chat", "tiny-embed"])
        })
    )

    it.effect("are refused with every problem and the file's path", () =>
      Effect.gen(function*() {
        const file = yield* write(join(yield* folder, "troupe.yaml"), "server: { port: x }\nlogLevel: loud\n")
        const error = yield* failureOf({ file })
        assert.strictEqual(error.source, file)
        assert.deepStrictEqual(error.problems.map(({ path }) => path).sort(), ["logLevel", "server.port"])
      }))

    it.effect.each<readonly [content: string, place: string]>([
      ["server:\n  port: 1\n   host: x\n", "at line 3, column 8"],
      ["server:\n\tport: 1\n", "at line 2, column 2"],
      ["logLevel: info\nserver: {}\nlogLevel: warn\n", "at line 3, column 1"],
      ["logLevel: info\nserver: *none\n", "at line 2, column 9"],
      ["logLevel: info\r\nserver:\r\n  host: \"x\r\n", "at line 3, column 9"],
      ["server: [1,\n  2]\nlogLevel: [1] x\n", "at line 3, column 15"],
      ["server: { port: 1 ]\nlogLevel: info\n", "at line 1, column 19"],
      ["server: {\n  port: 1,\n  host: x\nlogLevel: info\n", "in the value that begins at line 1, column 9"],
      [`logLevel: info\nserver: ["${"x".repeat(600)}\n`, "at line 2"],
      [`${"\n".repeat(2000)}server: *none\n`, "(its name is not shown)"]
    ])("that is not YAML is refused with the place: %j", ([content, place]) =>
      Effect.gen(function*() {
        const file = yield* write(join(yield* folder, "troupe.yaml"), content)
        const error = yield* failureOf({ file })
        assert.strictEqual(error.source, file)
        assert.strictEqual(error.problems.length, 1)
        assert.isTrue(error.message.includes("Invalid YAML: ") && error.message.endsWith(place), error.message)
      }))

    it.effect.each(["models: [1, 2\n", "server:\n  host: \"x\n", "server: *none\n"])(
      "that cannot be parsed is refused with its path: %j",
      (content) =>
        Effect.gen(function*() {
          const file = yield* write(join(yield* folder, "troupe.yaml"), content)
          const error = yield* failureOf({ file })
          assert.instanceOf(error, SettingsError)
          assert.match(error.message, /^Invalid configuration: .+troupe\.yaml\n {2}Invalid YAML: .+$/)
        })
    )

    const laughs = ["a0: &a0 [x, x, x]"]
    for (let level = 1; level < 30; level++) {
      laughs.push(`a${level}: &a${level} [${Array.from({ length: 9 }, () => `*a${level - 1}`).join(", ")}]`)
    }
    it.effect.each<readonly [what: string, content: string, problem: RegExp]>([
      ["aliases of aliases", laughs.join("\n"), /more than 100000 values after its aliases/],
      [
        "aliases of aliases in block style",
        laughs.join("\n").replaceAll("[x, x, x]", "\n  - x"),
        /more than 100000 values/
      ],
      [
        "merges",
        `a: &a { x: 1 }\n${Array.from({ length: 2_000 }, (_, at) => `b${at}: { <<: *a }`).join("\n")}`,
        /1000 aliases/
      ],
      ["nested lists", `a: ${"[".repeat(200)}${"]".repeat(200)}`, /nested deeper than 100 levels/],
      ["very deep lists", `a: ${"[".repeat(200_000)}`, /nested deeper than 100 levels/],
      ["a very long text", `a: ${"x".repeat(2 ** 21)}`, /larger than 1048576 characters/]
    ])("that is too large is refused: %s", ([, content, problem]) =>
      Effect.gen(function*() {
        const file = yield* write(join(yield* folder, "troupe.yaml"), content)
        const error = yield* failureOf({ file })
        assert.lengthOf(error.problems, 1)
        assert.match(error.message, problem)
      }))

    it.effect("may use aliases and merges", () =>
      Effect.gen(function*() {
        const content = "policies:\n  a: &a { retries: 1, maxAttempts: 2 }\n  b: { <<: *a, retries: 3 }\n  c: *a\n"
        const { policies } = yield* SettingsFile.load({
          file: yield* write(join(yield* folder, "troupe.yaml"), content)
        })
        assert.deepStrictEqual(policies.map(({ maxAttempts, retries }) => [retries, maxAttempts]), [[2, 6], [1, 2], [
          3,
          2
        ], [1, 2]])
      }))

    it.effect("that is not YAML prints no value of it", () =>
      Effect.gen(function*() {
        const file = yield* write(join(yield* folder, "troupe.yaml"), "server:\n  password: *hunter2\n")
        assert.notInclude((yield* failureOf({ file })).message, "hunter2")
      }))
  })

  it("the files of the embedded models are in the package", () => {
    const root = fileURLToPath(new URL("../../..", import.meta.url))
    const { files } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { readonly files: Array<string> }
    for (const { options } of Object.values(SettingsFile.embedded)) {
      const path = relative(root, pathOf(options) ?? "")
      assert.isTrue(existsSync(join(root, path)))
      assert.include(files, path)
    }
  })

  it.effect("provides Settings", () =>
    Effect.gen(function*() {
      const file = yield* write(join(yield* folder, "troupe.yaml"), "server: { host: \"::1\" }")
      const settings = yield* Settings.pipe(Effect.provide(SettingsFile.layer({ file })))
      assert.strictEqual(settings.server.host, "::1")
    }))
})
