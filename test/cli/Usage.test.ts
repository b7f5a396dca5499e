/** `troupe usage` and `troupe budgets` without a service. */
import { assert, describe, it } from "@effect/vitest"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { invoke } from "../support/CommandLine.ts"
import { temporaryFolder } from "../support/Service.ts"

describe("the ledger of a service that does not run", () => {
  for (const command of ["usage", "budgets"]) {
    it(`is named by troupe ${command}, with what to do`, async () => {
      using folder = temporaryFolder()
      const file = join(folder.path, "troupe.yaml")
      const data = join(folder.path, "data")
      writeFileSync(file, `server: { port: 9 }\nstorage: { type: sqlite, folder: ${data} }\n`)
      const { code, stderr } = await invoke([command, "--config", file])
      assert.strictEqual(code, 1)
      assert.include(stderr, "No service is running at ")
      assert.include(stderr, `The ledger is in ${data}: a service that is started with this configuration`)
      const other = await invoke([command, "--url", "http://127.0.0.1:9"])
      assert.notInclude(other.stderr, "The ledger is in")
    })
  }
})
