import { assert, describe, it } from "@effect/vitest"
import { Handover } from "../../../src/layers/http/Handover.ts"
import type { NodeServer } from "../../../src/layers/http/NodeServer.ts"
import type { Member, ToProcess, ToSupervisor } from "../../../src/services/processes/ProcessGroup.ts"

describe("Handover", () => {
  it("has drained when the last connection has ended, and what is generated without one", () => {
    const log: Array<string> = []
    let empty = () => {}
    let idle = () => {}
    let receive: (message: ToProcess) => void = () => {}
    const server: Pick<NodeServer, "countConnections" | "drain"> = {
      countConnections: () => {},
      drain: (onEmpty) => {
        empty = onEmpty
      }
    }
    const member: Pick<Member, "listen" | "send"> = {
      listen: (listener) => {
        receive = listener
      },
      send: ({ type }: ToSupervisor) => void log.push(type)
    }
    Handover.start(server as NodeServer, member as Member, "unused.sock", {
      onDrain: () => void log.push("replaced"),
      whenIdle: (run) => {
        log.push("waits")
        idle = run
      }
    })
    receive({ type: "drain" })
    assert.deepStrictEqual(log, ["replaced"])
    empty()
    assert.deepStrictEqual(log, ["replaced", "waits"])
    idle()
    assert.deepStrictEqual(log, ["replaced", "waits", "drained"])
  })
})
