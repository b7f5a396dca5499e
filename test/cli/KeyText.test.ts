import { assert, describe, it } from "@effect/vitest"
import { keyTable, keyText } from "../../src/cli/KeyText.ts"
import type { VirtualKey } from "../../src/services/keys/VirtualKey.ts"

const keyWith = (expiresAt: number): VirtualKey => ({
  id: "key_1",
  name: "app",
  tenant: "app",
  origin: "store",
  createdAt: 0,
  expiresAt
})

describe("the text of a key", () => {
  it("has its end to the minute", () => {
    assert.match(keyTable([keyWith(Date.UTC(2027, 0, 31, 12))], 0), /valid +2027-01-31T12:00Z/)
    assert.match(keyText(keyWith(Date.UTC(2027, 0, 31, 12)), 0), /^expires +2027-01-31T12:00Z$/m)
  })

  it.each([1e300, 8.64e15 + 1, 8.64e15])(
    "shows an end of %s, for which a date has no four-digit year, as never",
    (end) => {
      assert.match(keyTable([keyWith(end)], 0), /valid +never/)
      assert.match(keyText(keyWith(end), 0), /^expires +never$/m)
    }
  )

  it("has an end before 1970, which was stored before ends were checked", () => {
    assert.match(keyTable([keyWith(-1e300)], 0), /expired +1970-01-01T00:00Z/)
  })
})
