import { assert, describe, it } from "@effect/vitest"
import { SharedState } from "../../../src/layers/processes/SharedState.ts"
import type { ToProcess } from "../../../src/services/processes/ProcessGroup.ts"

const limits = new Map([["a#0", 3]])

/** A process that gives back what it is asked for. */
const join = (state: SharedState, seat: number, leases: ReturnType<SharedState["leasesOf"]>) => {
  const received: Array<ToProcess> = []
  let held = 0
  state.join(seat, {
    pid: seat,
    isConnected: true,
    kill: () => {},
    send: (message) => {
      received.push(message)
      if (message.type === "grant") held += message.count
      if (message.type !== "recall") return
      held -= message.count
      state.receive(seat, { type: "give", deployment: message.deployment, count: message.count, must: message.must })
    }
  }, leases)
  return { received, held: () => held }
}

const circuit = {
  type: "news",
  news: { type: "deployment", event: { deployment: "a#0", state: "ready", at: 0 } }
} as const

describe("SharedState", () => {
  it("never grants two generations more than the limit together", () => {
    const state = new SharedState(() => 0)
    const old = join(state, 1, state.leasesOf(limits, 1))
    assert.strictEqual(old.held(), 3)
    const candidate = join(state, 2, state.leasesOf(limits, 1))
    assert.strictEqual(candidate.held(), 0)
    state.receive(2, { type: "want", deployment: "a#0", count: 1 })
    assert.isAbove(candidate.held(), 0)
    assert.strictEqual(old.held() + candidate.held(), 3)
    state.leave(1)
    state.receive(2, { type: "want", deployment: "a#0", count: 3 })
    assert.strictEqual(candidate.held(), 3)
  })

  it("counts a changed limit, and a new deployment, for the new generation alone", () => {
    const state = new SharedState(() => 0)
    const old = join(state, 1, state.leasesOf(limits, 1))
    const candidate = join(state, 2, state.leasesOf(new Map([["a#0", 5], ["b#0", 1]]), 1))
    assert.strictEqual(old.held(), 3)
    assert.strictEqual(candidate.held(), 6)
  })

  it("decides one adaptive limit for all processes, from what all of them observe, and keeps it at the same server", () => {
    let now = 0
    const state = new SharedState(() => 0, () => now)
    const limitsOf = (max: number, model = "m") =>
      new Map([["a#0", { min: 1, max, initial: 20, server: ["openai", undefined, model] }]])
    const leases = state.leasesOf(limitsOf(64), 2)
    const all = [join(state, 1, leases), join(state, 2, leases)]
    const limits = () => all.map(({ received }) => received.findLast(({ type }) => type === "limit"))
    const both = (limit: number) =>
      Array.from({ length: 2 }, () => ({ type: "limit", deployment: "a#0", limit }) as const)
    assert.deepStrictEqual(all.map(({ held }) => held()), [10, 10])
    assert.deepStrictEqual(limits(), both(20))
    const rejection = (seat: number, inFlight: number) => {
      now += 100
      const sample = { type: "overload", startedAt: -10, inFlight } as const
      state.receive(seat, { type: "samples", deployment: "a#0", samples: [sample], running: inFlight })
    }
    rejection(1, 10)
    assert.deepStrictEqual(limits(), both(18))
    assert.strictEqual(all[0]!.held() + all[1]!.held(), 18)
    rejection(2, 8)
    assert.deepStrictEqual(limits(), both(16))
    // 8 requests of each process run then, and this one began when there were 10.
    rejection(1, 10)
    assert.deepStrictEqual(limits(), both(16))
    state.resize(leases, limitsOf(32), 2)
    assert.deepStrictEqual(limits(), both(16))
    state.resize(leases, limitsOf(32, "other"), 2)
    assert.deepStrictEqual(limits(), both(20))
  })

  it("keeps circuits and probes within a generation", () => {
    const state = new SharedState(() => 0)
    const leases = state.leasesOf(limits, 2)
    const [one, two] = [join(state, 1, leases), join(state, 2, leases)]
    const candidate = join(state, 3, state.leasesOf(limits, 1))
    state.receive(1, circuit)
    const isNews = ({ type }: ToProcess) => type === "news"
    assert.deepStrictEqual([one, two, candidate].map(({ received }) => received.filter(isNews).length), [0, 1, 0])
    const probe = { type: "probe", deployment: "a#0", most: 1 } as const
    for (const seat of [1, 2, 3]) state.receive(seat, probe)
    const answers = [one, two, candidate].map(({ received }) => received.at(-1))
    assert.deepStrictEqual(answers.map((answer) => answer?.type === "probe" && answer.isGranted), [true, false, true])
  })

  it("drops what a process that has ended still says", () => {
    const state = new SharedState(() => 0)
    const { received } = join(state, 1, state.leasesOf(limits, 1))
    state.leave(1)
    const before = received.length
    state.receive(1, { type: "probe", deployment: "a#0", most: 1 })
    assert.lengthOf(received, before)
  })
})
