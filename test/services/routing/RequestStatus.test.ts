import { assert, describe, it } from "@effect/vitest"
import type { Ended } from "../../../src/services/routing/RequestStatus.ts"
import { expected, matcher, names, plainNames } from "../../../src/services/routing/RequestStatus.ts"

const requests: Readonly<Record<string, Ended>> = {
  running: { status: "running" },
  answered: { status: "success" },
  refused: { status: "failure", refused: true, error: { status: 429 } },
  failed: { status: "failure", error: { status: 502 } },
  left: { status: "interruption" }
}

const found = (text: string) =>
  Object.entries(requests).flatMap(([name, request]) => matcher(text)!(request) ? [name] : [])

describe("the status of a request", () => {
  it.each([
    ["running", ["running"]],
    ["ended", ["answered", "refused", "failed", "left"]],
    ["served", ["answered"]],
    ["answered", ["answered"]],
    ["success", ["answered"]],
    ["failed", ["refused", "failed"]],
    ["FAILURE", ["refused", "failed"]],
    ["refused", ["refused"]],
    ["canceled", ["left"]],
    ["cancelled", ["left"]],
    ["200", ["answered"]],
    ["429", ["refused"]],
    ["5xx", ["failed"]],
    ["503", []]
  ])("%s", (text, expected) => assert.deepStrictEqual(found(text), expected))

  it.each(["", "x", "42", "999", "6xx", "constructor", "toString"])("is not %j", (text) => {
    assert.isUndefined(matcher(text))
  })

  it("has each word that it lists", () => {
    for (const name of [...names, ...plainNames]) assert.isDefined(matcher(name), name)
    assert.match(expected("faled", plainNames), /Did you mean failed\?$/)
  })
})
