/** A model file's texts on the terminal: its name, its template, and errors that quote it. */
import { assert } from "@effect/vitest"
import { Console, Effect, Logger } from "effect"
import * as fc from "fast-check"
import { execFile } from "node:child_process"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { describe, it } from "vitest"
import { plainConsole } from "../../src/cli/PlainConsole.ts"
import { plainLine, plainText } from "../../src/domain/PlainText.ts"
import { readGguf, withTexts, writeGguf } from "../support/GgufCopy.ts"
import { temporaryFolder } from "../support/Service.ts"

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
const tiny = fileURLToPath(new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url))

// oxlint-disable-next-line no-control-regex
const unsafe = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/

const hostile = "\u001b]0;owned\u0007\u001b[2Jname\u009b31m\u202eevil\r"

const run = async (...args: ReadonlyArray<string>) => {
  const { stderr, stdout } = await promisify(execFile)(process.execPath, [main, ...args]).catch((cause) =>
    cause as { readonly stdout: string; readonly stderr: string }
  )
  return stdout + stderr
}

describe("plainText", () => {
  it("leaves no control character, and all else as it is", () => {
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
      const output = await run(...args)
      assert.notMatch(output, unsafe)
      assert.include(output, "\\u001b[2Jname")
    }
    const failed = await run("models", "show", join(folder.path, `${hostile}.gguf`))
    assert.notMatch(failed, unsafe)
    assert.include(failed, "\\u001b[2Jname")
  })

  it("logs without control sequences", async () => {
    const lines: Array<unknown> = []
    const kept = Object.assign(Object.create(globalThis.console) as Console.Console, {
      error: (...values: ReadonlyArray<unknown>) => lines.push(...values)
    })
    await Effect.runPromise(
      Effect.logError(`Loading ${hostile} failed`).pipe(
        Effect.provide(Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)])),
        Effect.provideService(Console.Console, plainConsole(kept))
      )
    )
    assert.strictEqual(lines.length, 1)
    assert.notMatch(String(lines[0]), unsafe)
  })
})
