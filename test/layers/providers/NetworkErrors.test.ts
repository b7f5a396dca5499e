import { assert, describe, it } from "@effect/vitest"
import type { Target } from "../../../src/dialects/shared/ProviderDialect.ts"
import { broken } from "../../../src/layers/providers/NetworkErrors.ts"

const target = { deployment: "a#0", options: { engine: "remote", provider: "openai", model: "m" } } as Target

const messageOf = (code: string, begun: boolean): string =>
  broken(target, 1, Object.assign(new Error("secret"), { code }), begun).message

describe("the message of a broken connection", () => {
  it.each([true, false])("has codes of the operating system, and none of the HTTP client: begun %s", (begun) => {
    assert.include(messageOf("ECONNRESET", begun), "(ECONNRESET)")
    assert.notInclude(messageOf("UND_ERR_SOCKET", begun), "UND_ERR")
  })
})
