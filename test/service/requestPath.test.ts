/** The source files, the Effect operations and the garbage of one proxied chat. */
import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { isBrief } from "../support/Repetitions.ts"

/** The output of a bench, which exits with 1 above its limit. */
const checked = async (bench: string): Promise<string> => {
  const file = fileURLToPath(new URL(`../../bench/${bench}`, import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [file, "--check"])
  return stdout
}

describe("a proxied chat", () => {
  it("runs through no more source files than the limit of bench/requestFiles.ts", async () => {
    assert.include(await checked("requestFiles.ts"), "services/inference/Pipeline.ts")
  })

  // A measurement that takes two cores for 20 s: only a step of `.ci/run` has the time.
  it.skipIf(process.platform === "win32" || isBrief)(
    "costs no more operations, garbage and pauses than the limits of bench/requestCost.ts, buffered and streamed",
    { timeout: 300_000 },
    async () => {
      assert.match(await checked("requestCost.ts"), /buffered: \d.*\nstreamed: \d.*\npauses: \d/)
    }
  )
})
