import { assert } from "@effect/vitest"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, it } from "vitest"
import * as Policy from "../../src/services/Policy.ts"
import { run, temporaryFolder } from "../support/Service.ts"

const file = `
policies:
  quick: { strategy: speed, retries: 0 }
models:
  fake/a: { deployments: [{ engine: fake }], policy: quick, strategy: latency, fallbacks: [fake/b] }
  fake/b: { deployments: [{ engine: fake }] }
`

describe("policy show", () => {
  const show = async (...args: ReadonlyArray<string>) => {
    using folder = temporaryFolder()
    writeFileSync(join(folder.path, "troupe.yaml"), file)
    return await run(["policy", "show", ...args], { cwd: folder.path })
  }

  it("prints every policy with its defaults filled in", async () => {
    const { stdout } = await show("--json")
    const quick = {
      ...Policy.defaults,
      name: "quick",
      selection: { ...Policy.defaults.selection, strategy: "speed" },
      retries: 0
    }
    assert.deepStrictEqual(JSON.parse(stdout), [Policy.defaults, quick])
  })

  it("prints how a model's requests go", async () => {
    const { stdout } = await show("fake/a")
    const lines = stdout.split("\n").map((line) => line.split(/ +/).join(" "))
    for (const line of ["model fake/a", "policy quick", "selection.strategy latency", "fallbacks.ordinary fake/b"]) {
      assert.include(lines, line)
    }
  })

  it("says what there is where the name is none of it", async () => {
    const { code, stderr } = await show("nobody")
    assert.notStrictEqual(code, 0)
    assert.include(stderr, "There is: default, quick, fake/a, fake/b.")
  })
})
