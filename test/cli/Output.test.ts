/** The output of commands: texts of model files without control sequences, and commands that can be typed. */
import { assert } from "@effect/vitest"
import { Console, Effect, Logger } from "effect"
import * as fc from "fast-check"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, it } from "vitest"
import * as Logging from "../../src/cli/Logging.ts"
import { asInvoked, invocation, modelTable, plainConsole } from "../../src/cli/Output.ts"
import { plainLine, plainText } from "../../src/domain/Text.ts"
import { resolveExperiment } from "../../src/services/rollout/RolloutSettings.ts"
import * as Deployments from "../support/Deployments.ts"
import { readGguf, withTexts, writeGguf } from "../support/GgufCopy.ts"
import { run, temporaryFolder } from "../support/Service.ts"

const tiny = fileURLToPath(new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url))

// oxlint-disable-next-line no-control-regex
const unsafe = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/

const hostile = "\u001b]0;owned\u0007\u001b[2Jname\u009b31m\u202eevil\r"

const outputOf = async (...args: ReadonlyArray<string>) => {
  const { stderr, stdout } = await run(args)
  return stdout + stderr
}

describe("plainText", () => {
  it("removes every control character, and nothing else", () => {
    const unit = fc.oneof(fc.constantFrom(...hostile.split(""), "\t", "\n", "é", "字"), fc.string())
    fc.assert(fc.property(fc.array(unit), (units) => {
      const text = units.join("")
      assert.notMatch(plainText(text), unsafe)
      assert.notMatch(plainLine(text), /[\n\t]/)
      if (!unsafe.test(text) && !/[\u061c\u200e\u200f\u2028\u2029]/.test(text)) {
        assert.strictEqual(plainText(text), text)
      }
    }))
    assert.strictEqual(plainText("a\u001b[2J\n"), "a\\u001b[2J\n")
  })
})

describe("the command line", () => {
  it("prints a model file's texts without their control sequences", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "copy.gguf")
    writeGguf(
      file,
      withTexts(readGguf(tiny), { "general.name": hostile, "tokenizer.chat_template": `{{ messages }}${hostile}` })
    )
    for (const args of [["models", "show", file], ["models", "show", file, "--json"]]) {
      const output = await outputOf(...args)
      assert.notMatch(output, unsafe)
      assert.include(output, "\\u001b[2Jname")
    }
    const failed = await outputOf("models", "show", join(folder.path, `${hostile}.gguf`))
    assert.notMatch(failed, unsafe)
    assert.include(failed, "\\u001b[2Jname")
  })

  it.each(["text", "json"] as const)("logs without control sequences, as %s", async (format) => {
    const lines: Array<unknown> = []
    const kept = Object.assign(Object.create(globalThis.console) as Console.Console, {
      error: (...values: ReadonlyArray<unknown>) => lines.push(...values)
    })
    await Effect.runPromise(
      Effect.logError(`Loading ${hostile} failed`).pipe(
        Effect.provide(Logger.layer([Logger.withConsoleError(Logging.formatted(format))])),
        Effect.provideService(Console.Console, plainConsole(kept))
      )
    )
    assert.strictEqual(lines.length, 1)
    assert.notMatch(String(lines[0]), unsafe)
  })
})

describe("invocation", () => {
  it.each([
    ["the sources, by npm in a clone", "/clone/src/main.ts", "/clone", "npm run troupe --"],
    ["the bundle, by npm in a clone", "/clone/start.mjs", "/clone", "npm run troupe --"],
    ["the bundle, from elsewhere", "/clone/start.mjs", "/home", "node /clone/start.mjs"],
    ["the sources, from elsewhere", "/clone/src/main.ts", "/home", "node /clone/src/main.ts"],
    ["the build, in a clone", "/clone/dist/main.js", "/clone", "node dist/main.js"],
    ["a path with a space", "/my clone/dist/main.js", "/home", "node \"/my clone/dist/main.js\""],
    ["a project's package", "/project/node_modules/.bin/troupe", "/project", "npx troupe"],
    ["a package by its file", "C:\\npm\\node_modules\\troupe\\dist\\main.js", "C:\\", "npx troupe"],
    ["an installed command", "/usr/local/bin/troupe", "/home", "troupe"]
  ])("names the command for %s", (_, entry, folder, expected) => {
    assert.strictEqual(invocation(entry, folder), expected)
  })
})

describe("asInvoked", () => {
  it.each([
    ["Start one with: troupe serve; or name another", "Start one with: node dist/main.js serve; or name another"],
    ["Use `troupe models rm`.", "Use `node dist/main.js models rm`."],
    ["echo 7 | troupe run a --json", "echo 7 | node dist/main.js run a --json"],
    ["troupe deploy status", "node dist/main.js deploy status"],
    ["troupe <subcommand> [flags]", "node dist/main.js <subcommand> [flags]"],
    ["/var/troupe models/a.gguf cannot be read", "/var/troupe models/a.gguf cannot be read"],
    ["What troupe.yaml says of a troupe of models", "What troupe.yaml says of a troupe of models"]
  ])("writes %j as it can be typed", (text, expected) => {
    assert.strictEqual(asInvoked(text, "node dist/main.js"), expected)
  })
})

describe("modelTable", () => {
  const fake = (id: string, more: object = {}) => Deployments.deployment(id, { options: { engine: "fake", ...more } })

  it("marks candidates of rollouts, and variants of A/B tests with their shares", () => {
    const models = [
      { name: "chat", deployments: [fake("chat#0"), fake("chat#1", { rollout: "candidate" })] as const },
      { name: "test", deployments: [fake("test#0"), fake("test#1")] as const }
    ]
    const variants = [{ deployment: "test#0", weight: 9 }, { deployment: "test#1", weight: 1 }]
    const experiments = new Map([["test", resolveExperiment({ variants })]])
    const marks = (text: string) => text.split("\n").map((line) => line.split(/ {2,}/)[3] ?? "")
    assert.deepStrictEqual(marks(modelTable({ models, experiments })), [
      "ROLLOUT",
      "",
      "candidate",
      "variant 90 %",
      "variant 10 %"
    ])
    const shadows = new Map([["test", { candidate: "test#1", percent: 20 }]])
    assert.deepStrictEqual(marks(modelTable({ models, shadows })), ["ROLLOUT", "", "candidate", "", "shadow 20 %"])
    assert.notInclude(modelTable({ models: models.slice(1) }), "ROLLOUT")
  })
})
