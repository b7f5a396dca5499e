import { assert, describe, it } from "@effect/vitest"
import { dataOf } from "../../../src/layers/http/ResponsesSocket.ts"

const created = `{"type":"response.created","note":"data: 1"}`

describe("the messages of a stream of events", () => {
  it("are the data of complete events; comments that keep a stream alive and the terminator are none", () => {
    const text =
      `: keep-alive\n\nevent: response.created\ndata: ${created}\n\n: keep-alive\n\ndata: [DONE]\n\nevent: next`
    assert.deepStrictEqual(dataOf(text), { events: [created], rest: "event: next" })
  })
})
