import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Binding from "../../../src/layers/http/Binding.ts"

const settingsOf = (
  host: string,
  allowAnonymous = false,
  environment: "development" | "production" = "development"
) => ({
  environment,
  server: { host, allowAnonymous }
})

describe("a service without keys", () => {
  it.each(["127.0.0.1", "127.8.8.8", "::1", "localhost", "a.localhost"])("may listen on %s", (host) => {
    assert.isTrue(Result.isSuccess(Binding.check(settingsOf(host, false, "production"), false)))
  })

  it.each([
    "0.0.0.0",
    "::",
    "192.168.1.5",
    "::ffff:127.0.0.1",
    "host.example",
    "localhost.example",
    "127.0.0.1.example"
  ])(
    "may not listen on %s",
    (host) => {
      const checked = Binding.check(settingsOf(host), false)
      if (!Result.isFailure(checked)) return assert.fail("accepted")
      for (const way of [host, "troupe keys create", "server.allowAnonymous", "127.0.0.1"]) {
        assert.include(checked.failure.message, way)
      }
    }
  )

  it("may listen anywhere if that is set, but not in production", () => {
    assert.isTrue(Result.isSuccess(Binding.check(settingsOf("0.0.0.0", true), false)))
    const checked = Binding.check(settingsOf("0.0.0.0", true, "production"), false)
    if (!Result.isFailure(checked)) return assert.fail("accepted")
    assert.include(checked.failure.message, "does not apply in production")
  })
})

describe("a service with keys", () => {
  it("may listen anywhere", () => {
    assert.isTrue(Result.isSuccess(Binding.check(settingsOf("0.0.0.0", false, "production"), true)))
  })
})
