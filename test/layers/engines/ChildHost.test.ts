import { assert } from "@effect/vitest"
import { describe, it, onTestFinished, vi } from "vitest"
import type { HostOptions } from "../../../src/domain/EngineProtocol.ts"
import type { GenerateJob, JobEvent } from "../../../src/domain/Job.ts"
import { isTerminal } from "../../../src/domain/Job.ts"
import { makeChildHost } from "../../../src/layers/engines/ChildHost.ts"
import type { FakeSpec } from "../../../src/workers/fake/FakeTasks.ts"

const optionsOf = (spec: Partial<FakeSpec>, options: Partial<HostOptions> = {}): HostOptions => ({
  replicas: 1,
  cancelGraceMs: 60_000,
  closeGraceMs: 5_000,
  spec: {
    engine: "fake",
    contextSize: 1000,
    slots: 2,
    loadDelayMs: 0,
    promptDelayMs: 0,
    tokenDelayMs: 0,
    ...spec
  },
  ...options
})

const job = (content: string): GenerateJob => ({
  kind: "generate",
  messages: [{ role: "user", content }],
  sampling: { temperature: 0, topP: 1, seed: 0 },
  stop: [],
  window: 1_000
})

describe("a child's memory", () => {
  it("is reported when the engine is ready: Node alone takes tens of MiB", async () => {
    const host = makeChildHost(optionsOf({}))
    await host.ready
    assert.isAbove(host.memoryBytes(), 2 ** 24)
    await host.close()
    assert.strictEqual(host.memoryBytes(), 0)
  })

  it("is reported again while the engine runs", { timeout: 60_000 }, async () => {
    const host = makeChildHost(optionsOf({}))
    await host.ready
    const first = host.memoryBytes()
    // Each job uses memory, and reports arrive at intervals.
    while (host.memoryBytes() === first) await lastOf(host, "Hello").last
    assert.isAbove(host.memoryBytes(), 2 ** 24)
    await host.close()
  })
})

const lastOf = (host: ReturnType<typeof makeChildHost>, content: string) => {
  const begun = Promise.withResolvers<void>()
  const last = Promise.withResolvers<JobEvent>()
  const send = host.start(job(content), (events) => {
    begun.resolve()
    const terminal = events.find(isTerminal)
    if (terminal !== undefined) last.resolve(terminal)
  })
  return { begun: begun.promise, send, last: last.promise }
}

/** A value too deep to be serialized as a message. */
const deep = (): Record<string, unknown> =>
  JSON.parse(`${"{\"a\":".repeat(100_000)}1${"}".repeat(100_000)}`) as Record<string, unknown>

describe("makeChildHost", () => {
  it("fails a job that cannot be sent to the child, and no other", async () => {
    const host = makeChildHost(optionsOf({}))
    await host.ready
    const refused = Promise.withResolvers<JobEvent>()
    const wrong: GenerateJob = { ...job("Hello"), tools: [{ name: "deep", parameters: deep() }] }
    host.start(wrong, (events) => refused.resolve(events.find(isTerminal)!))
    const { last } = lastOf(host, "Hello")
    assert.strictEqual((await refused.promise).type, "failed")
    assert.strictEqual((await last).type, "finished")
    await host.close()
  })

  it("ends a child whose cancelled job does not end", async () => {
    const host = makeChildHost(
      optionsOf({ fault: { kind: "hang", afterTokens: 1, trigger: "hang" } }, { cancelGraceMs: 50 })
    )
    await host.ready
    const hung = lastOf(host, "hang")
    await hung.begun
    hung.send({ type: "cancel" })
    assert.deepStrictEqual(await hung.last, {
      type: "failed",
      failure: { kind: "crashed", message: "The engine process was ended by SIGKILL." }
    })
  })

  it("ends a child that hangs when it is closed", async () => {
    const host = makeChildHost(optionsOf({ fault: { kind: "hang", afterTokens: 0 } }, { closeGraceMs: 50 }))
    await host.ready
    const hung = lastOf(host, "Hello")
    await host.close()
    assert.strictEqual((await hung.last).type, "failed")
  })

  it("keeps a child whose cancelled job ends", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] })
    onTestFinished(() => void vi.useRealTimers())
    const host = makeChildHost(optionsOf({ tokenDelayMs: 3 }, { cancelGraceMs: 1_000 }))
    await host.ready
    const left = lastOf(host, "one two three ".repeat(20))
    left.send({ type: "cancel" })
    assert.deepStrictEqual(await left.last, { type: "cancelled" })
    const next = lastOf(host, "one two three ".repeat(20))
    vi.advanceTimersByTime(2_000)
    assert.strictEqual((await next.last).type, "finished")
    await host.close()
    assert.deepStrictEqual(await host.exited, { kind: "stopped" })
  })

  it("runs every thread's jobs when it has several", async () => {
    const host = makeChildHost(optionsOf({ slots: 1, tokenDelayMs: 1 }, { replicas: 2 }))
    await host.ready
    const lasts = await Promise.all(["one", "two", "three", "four"].map((content) => lastOf(host, content).last))
    assert.deepStrictEqual(lasts.map(({ type }) => type), ["finished", "finished", "finished", "finished"])
    await host.close()
  })

  it("fails jobs after its end", async () => {
    const host = makeChildHost(optionsOf({}))
    await host.ready
    await host.close()
    assert.strictEqual((await lastOf(host, "Hello").last).type, "failed")
  })
})
