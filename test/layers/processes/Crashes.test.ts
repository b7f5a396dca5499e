import { assert, describe, it } from "@effect/vitest"
import { Crashes } from "../../../src/layers/processes/Crashes.ts"

describe("crashes of service processes", () => {
  it("are reported to those that take requests, and to the others when they do", () => {
    const told: Array<string> = []
    const crashes = new Crashes(3, (index, news) => void told.push(`${index} ${news.type}`))
    crashes.report({ process: 1, message: "Service process 1 was ended by SIGKILL.", at: 5 }, new Set([2]))
    assert.deepStrictEqual(told, ["2 event", "2 increases"])
    crashes.ready(1)
    crashes.ready(1)
    assert.deepStrictEqual(told.slice(2), ["1 event", "1 increases"])
    crashes.ready(3)
    assert.deepStrictEqual(told.slice(4), ["3 event", "3 increases"])
  })

  it("are events that name the process and why it ended", () => {
    const told: Array<unknown> = []
    const crashes = new Crashes(2, (_, news) => void told.push(news))
    crashes.report({ process: 1, message: "Service process 1 was ended by SIGKILL.", at: 5 }, new Set([2]))
    assert.deepStrictEqual(told, [
      {
        type: "event",
        event: {
          id: "evt-process-5-0",
          at: 5,
          kind: "process",
          severity: "critical",
          message: "Service process 1 was ended by SIGKILL. Another one starts.",
          process: 1
        }
      },
      { type: "increases", increases: [["restarts process 1", [1]]] }
    ])
  })
})
