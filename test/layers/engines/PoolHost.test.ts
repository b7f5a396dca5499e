import { assert } from "@effect/vitest"
import { setImmediate as nextTurn } from "node:timers/promises"
import { describe, it } from "vitest"
import type { HostOptions } from "../../../src/domain/EngineProtocol.ts"
import type { GenerateJob, JobEvent } from "../../../src/domain/Job.ts"
import { isTerminal } from "../../../src/domain/Job.ts"
import { makePoolHost } from "../../../src/layers/engines/PoolHost.ts"

const options: HostOptions = {
  replicas: 2,
  cancelGraceMs: 60_000,
  closeGraceMs: 5_000,
  spec: {
    engine: "fake",
    contextSize: 10_000,
    slots: 2,
    loadDelayMs: 0,
    promptDelayMs: 0,
    tokenDelayMs: 5
  }
}

const job = (content: string): GenerateJob => ({
  kind: "generate",
  messages: [{ role: "user", content }],
  sampling: { temperature: 0, topP: 1, seed: 0 },
  stop: [],
  window: 1000
})

describe("makePoolHost", () => {
  it("ends once, in order, after any number of calls", async () => {
    const host = makePoolHost(options)
    await host.ready
    const last = Promise.withResolvers<JobEvent>()
    host.start(job("word ".repeat(1000)), (events) => {
      const terminal = events.find(isTerminal)
      if (terminal !== undefined) last.resolve(terminal)
    })
    await Promise.all([host.close(), host.close()])
    await host.close()
    assert.deepStrictEqual(await last.promise, { type: "cancelled" })
    assert.deepStrictEqual(await host.exited, { kind: "stopped" })
  })

  it("reads the memory of a GPU, where the engine has one", async () => {
    const gpuMemory = { usedBytes: 3, totalBytes: 8 }
    const withGpu = makePoolHost({ ...options, spec: { ...options.spec, gpu: "auto", gpuMemory } })
    const without = makePoolHost({ ...options, spec: { ...options.spec, gpuMemory } })
    await Promise.all([withGpu.ready, without.ready])
    while (withGpu.gpuMemory?.() === undefined) await nextTurn()
    assert.deepStrictEqual(withGpu.gpuMemory?.(), gpuMemory)
    assert.isUndefined(without.gpuMemory?.())
    await Promise.all([withGpu.close(), without.close()])
    assert.isUndefined(withGpu.gpuMemory?.())
  })

  it("fails a job that cannot be sent to a thread, and no other", async () => {
    const host = makePoolHost(options)
    await host.ready
    const lastOf = (one: GenerateJob) =>
      new Promise<JobEvent>((resolve) => {
        host.start(one, (events) => {
          const terminal = events.find(isTerminal)
          if (terminal !== undefined) resolve(terminal)
        })
      })
    const wrong = { ...job("Hello"), onToken: () => {} }
    const nested = JSON.parse(`${"{\"a\":".repeat(100_000)}1${"}".repeat(100_000)}`) as Record<string, unknown>
    const deep: GenerateJob = { ...job("Hello"), tools: [{ name: "deep", parameters: nested }] }
    const [refused, tooDeep, answered] = await Promise.all([lastOf(wrong), lastOf(deep), lastOf(job("Hello"))])
    assert.strictEqual(refused.type, "failed")
    assert.strictEqual(tooDeep.type, "failed")
    assert.isFalse(host.isOver())
    assert.strictEqual(answered.type, "finished")
    await host.close()
  })

  it("distributes jobs over its threads, and cancels each by itself", async () => {
    const host = makePoolHost(options)
    await host.ready
    const started = Array.from({ length: 4 }, () => {
      const last = Promise.withResolvers<JobEvent>()
      const send = host.start(job("word ".repeat(1000)), (events) => {
        const terminal = events.find(isTerminal)
        if (terminal !== undefined) last.resolve(terminal)
      })
      return { send, last: last.promise }
    })
    for (const { last, send } of started) {
      send({ type: "cancel" })
      assert.deepStrictEqual(await last, { type: "cancelled" })
      // Of no effect on the job that has the number now.
      send({ type: "cancel" })
    }
    const next = await new Promise<JobEvent>((resolve) => {
      host.start(job("Hello"), (events) => {
        const terminal = events.find(isTerminal)
        if (terminal !== undefined) resolve(terminal)
      })
      started[0]!.send({ type: "cancel" })
    })
    assert.strictEqual(next.type, "finished")
    await host.close()
  })

  /** A host of an engine whose threads end without an exception. */
  const exiting = (loadDelayMs: number) => {
    const spec = { ...options.spec, engine: "../../test/support/engines/exiting", loadDelayMs }
    return makePoolHost({
      ...options,
      spec: { ...spec, flags: new SharedArrayBuffer(4) }
    })
  }

  it("fails all jobs when a thread ends without an exception, and can be closed", async () => {
    const host = exiting(0)
    await host.ready
    const lasts = [1, 2, 3].map((count) =>
      new Promise<ReadonlyArray<JobEvent>>((resolve) => host.start(job(`job ${count}`), resolve))
    )
    for (const events of await Promise.all(lasts)) {
      const [last] = events
      assert(last?.type === "failed")
      assert.strictEqual(last.failure.kind, "crashed")
    }
    assert.strictEqual((await host.exited).kind, "crashed")
    assert.isTrue(host.isOver())
    await host.close()
  })

  it("is over when one thread has ended while another one loads", async () => {
    const host = exiting(50)
    await host.ready
    assert.strictEqual((await host.exited).kind, "crashed")
    const [last] = await new Promise<ReadonlyArray<JobEvent>>((resolve) => host.start(job("Hello"), resolve))
    assert.strictEqual(last?.type, "failed")
    await host.close()
  })
})
