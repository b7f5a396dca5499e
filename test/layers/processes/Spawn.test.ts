import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { once } from "node:events"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { checkPort, NoSharedPort, PortError, sharingError } from "../../../src/layers/processes/Spawn.ts"

describe("checkPort", () => {
  it.effect("fails on a port in use, though its owner would share it", () =>
    Effect.gen(function*() {
      const taken = createServer().listen({ host: "127.0.0.1", port: 0, reusePort: true })
      yield* Effect.promise(() => once(taken, "listening"))
      const { port } = taken.address() as AddressInfo
      const error = yield* Effect.flip(checkPort("127.0.0.1", port))
      assert.instanceOf(error, PortError)
      assert.strictEqual((error.cause as NodeJS.ErrnoException).code, "EADDRINUSE")
      taken.close()
    }))

  it("says on a platform without shared ports what to do", () => {
    const error = sharingError(
      new PortError({ cause: Object.assign(new Error("listen ENOTSUP"), { code: "ENOTSUP" }) }),
      "darwin"
    )
    assert.instanceOf(error, NoSharedPort)
    assert.include(error.message, "on this platform (darwin)")
    assert.include(error.message, "Set server.processes to 1")
  })
})
