/** The command line's log entries. */
import { assert } from "@effect/vitest"
import { Cause, Console, Effect, Logger } from "effect"
import { describe, it } from "vitest"
import * as Logging from "../../src/cli/Logging.ts"

const printed = async (format: "text" | "json", entry: Effect.Effect<void>): Promise<string> => {
  const lines: Array<unknown> = []
  const console = Object.assign(Object.create(globalThis.console) as Console.Console, {
    error: (...values: ReadonlyArray<unknown>) => lines.push(...values)
  })
  await Effect.runPromise(
    entry.pipe(
      Effect.provide(Logger.layer([Logger.withConsoleError(Logging.formatted(format))])),
      Effect.provideService(Console.Console, console)
    )
  )
  return lines.join("\n")
}

describe("a log entry", () => {
  const entry = Effect.logWarning("Memory is short.\nAnd more.").pipe(
    Effect.annotateLogs({ alert: "memory", model: "a b" })
  )

  it("is one line with time, level, message and annotations as text", async () => {
    assert.match(
      await printed("text", entry),
      /^\d\d:\d\d:\d\d WARN {2}Memory is short\. And more\. alert=memory model="a b"$/
    )
  })

  it("is one object as JSON, without a fiber", async () => {
    const { timestamp, ...rest } = JSON.parse(await printed("json", entry)) as Record<string, unknown>
    assert.match(String(timestamp), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/)
    assert.deepStrictEqual(rest, {
      level: "WARN",
      message: "Memory is short.\nAnd more.",
      alert: "memory",
      model: "a b"
    })
  })

  it("has the cause of a failure", async () => {
    const failed = Effect.logError("It failed.", Cause.die(new Error("broken")))
    assert.match(await printed("text", failed), /^\S+ ERROR It failed\.\n.*broken/)
    assert.include(JSON.parse(await printed("json", failed)).cause, "broken")
  })
})
