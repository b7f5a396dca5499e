import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import { buildFor } from "../../../src/workers/llama/LlamaLoad.ts"

describe("buildFor", () => {
  it("takes Metal's build on Apple silicon, which has no other, and the CPU's everywhere else", () => {
    assert.strictEqual(buildFor("darwin", "arm64"), "metal")
    for (
      const [platform, arch] of [["darwin", "x64"], ["linux", "x64"], ["linux", "arm64"], ["win32", "x64"]] as const
    ) {
      assert.strictEqual(buildFor(platform, arch), false)
    }
  })
})
