/** The number of source files that one proxied chat runs through. */
import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const bench = fileURLToPath(new URL("../../bench/requestFiles.ts", import.meta.url))

describe("a proxied chat", () => {
  it("runs through no more source files than the limit of bench/requestFiles.ts", async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [bench, "--check"])
    assert.include(stdout, "services/inference/Pipeline.ts")
  })
})
