/** The source files of one proxied chat. */
import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const bench = fileURLToPath(new URL("../../bench/requestFiles.ts", import.meta.url))

describe("a proxied chat", () => {
  // What it costs, `bench/requestCost.ts`, is a step of `.ci/run`: pauses are longer beside other tests.
  it("runs through no more source files than the limit of bench/requestFiles.ts", async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [bench, "--check"])
    assert.include(stdout, "services/inference/Pipeline.ts")
  })
})
