import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import type { JobBatch } from "../../../src/domain/EngineProtocol.ts"
import type { GenerateJob, JobEvent } from "../../../src/domain/Job.ts"
import { isTerminal } from "../../../src/domain/Job.ts"
import { loadOnMainThread } from "../../../src/layers/engines/MainThreadEngine.ts"

const spec = { engine: "fake", contextSize: 10_000, slots: 2, loadDelayMs: 0, promptDelayMs: 0, tokenDelayMs: 5 }

const job = (content: string): GenerateJob => ({
  kind: "generate",
  messages: [{ role: "user", content }],
  sampling: { temperature: 0, topP: 1, seed: 0 },
  stop: [],
  window: 1000
})

/** An engine, and the last events of its jobs. */
const load = (options: object = {}) => {
  const lasts = new Map<number, JobEvent>()
  const waiting: Array<() => void> = []
  const engine = loadOnMainThread({ ...spec, ...options }, (batch: JobBatch) => {
    for (const [id, events] of batch) {
      const last = events.find(isTerminal)
      if (last !== undefined) lasts.set(id, last)
    }
    for (const wake of waiting.splice(0)) wake()
  })
  const ended = async (count: number): Promise<void> => {
    while (lasts.size < count) await new Promise<void>((resolve) => waiting.push(resolve))
  }
  return { engine, ended, lasts }
}

describe("loadOnMainThread", () => {
  it("runs several jobs, and cancels one of them", async () => {
    const { ended, engine, lasts } = load()
    assert.strictEqual((await engine.ready).engine, "fake")
    engine.receive({ type: "start", id: 0, job: job("Hello") })
    engine.receive({ type: "start", id: 1, job: job("word ".repeat(1000)) })
    engine.receive({ type: "command", id: 1, command: { type: "cancel" } })
    await ended(2)
    assert.strictEqual(lasts.get(0)?.type, "finished")
    assert.strictEqual(lasts.get(1)?.type, "cancelled")
    await engine.close()
  })

  it("cancels its jobs when it closes, and waits for them", async () => {
    const { engine, lasts } = load()
    await engine.ready
    for (const id of [0, 1]) engine.receive({ type: "start", id, job: job("word ".repeat(1000)) })
    await engine.close()
    assert.deepStrictEqual([...lasts.values()], [{ type: "cancelled" }, { type: "cancelled" }])
  })

  it("rejects with the failure of a load, and can be closed", async () => {
    const { engine } = load({ fault: { kind: "load", afterTokens: 0 } })
    const failure: unknown = await engine.ready.catch((cause: unknown) => cause)
    assert.deepInclude(failure, { kind: "load_failed" })
    await engine.close()
  })
})
