/** Compiled code that Node.js keeps for the next start of the service. */
import { assert, describe, it } from "@effect/vitest"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { startService, temporaryFolder, until } from "../support/Service.ts"

const yaml = "models: { fake/parrot: { preload: false, deployments: [{ engine: fake }] } }"

describe("the compile cache", () => {
  it("is written once the service listens, so that a service that is killed has it too", async () => {
    using folder = temporaryFolder()
    const service = await startService(yaml, { NODE_COMPILE_CACHE: folder.path })
    try {
      await until(() => {
        const entries = readdirSync(folder.path, { recursive: true, withFileTypes: true })
        return entries.some((entry) => entry.isFile()) ? true : undefined
      })
    } finally {
      service.process.child.kill("SIGKILL")
      await service.process.finished
    }
  })

  it("may be a folder that cannot be written", async () => {
    using folder = temporaryFolder()
    const notFolder = join(process.execPath, "cache")
    const service = await startService(yaml, { NODE_COMPILE_CACHE: notFolder, HOME: folder.path, XDG_CACHE_HOME: "" })
    const { code, stderr } = await service.stop()
    assert.strictEqual(code, 0)
    assert.notInclude(stderr, "cache")
  })
})
