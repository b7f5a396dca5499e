import { assert } from "@effect/vitest"
import { MessageChannel } from "node:worker_threads"
import { describe, it } from "vitest"
import type { FromThread, ToThread } from "../../../src/domain/EngineProtocol.ts"
import type { GenerateJob, JobEvent } from "../../../src/domain/Job.ts"
import type { JobTask } from "../../../src/workers/job/JobRunner.ts"
import { flushEvents, serveJobs } from "../../../src/workers/job/JobServer.ts"
import { until } from "../../support/Service.ts"

const job: GenerateJob = {
  kind: "generate",
  messages: [{ role: "user", content: "" }],
  sampling: { temperature: 0, topP: 1, seed: 0 },
  stop: [],
  window: 1000
}

const token = (text: string): JobEvent => ({ type: "tokens", text, count: 1 })
const cancelled: JobEvent = { type: "cancelled" }

/** A thread whose jobs the test controls. */
const serve = (run?: (task: JobTask) => Promise<void>) => {
  const { port1, port2 } = new MessageChannel()
  const messages: Array<FromThread> = []
  const tasks: Array<JobTask & { readonly end: () => void }> = []
  port1.on("message", (message: FromThread) => messages.push(message))
  serveJobs(
    port2,
    run ?? ((task) => new Promise((resolve) => tasks.push({ ...task, end: resolve })))
  )
  const post = (message: ToThread) => port1.postMessage(message)
  return {
    messages,
    tasks,
    post,
    start: async (...ids: ReadonlyArray<number>) => {
      const before = tasks.length
      for (const id of ids) post({ type: "start", id, job })
      await until(() => tasks.length === before + ids.length ? true : undefined)
    },
    received: (count: number) => until(() => messages.length >= count ? true : undefined),
    close: () => port1.close()
  }
}

describe("serveJobs", () => {
  it("sends the events of all jobs in one turn in one message", async () => {
    const { close, messages, received, start, tasks } = serve()
    await start(0, 1, 2)
    const [first, second, third] = tasks
    first!.channel.emit(token("a"))
    second!.channel.emit(token("b"))
    first!.channel.emit(token("c"))
    third!.channel.emit(cancelled)
    assert.deepStrictEqual(messages, [])
    await received(1)
    assert.deepStrictEqual(messages, [[[0, [token("a"), token("c")]], [1, [token("b")]], [2, [cancelled]]]])
    close()
  })

  it("sends in one message what waits for more text, however long each job has waited", async () => {
    const { close, messages, received, start, tasks } = serve()
    await start(0, 1)
    const [first, second] = tasks
    first!.channel.later(() => first!.channel.emit(token("a")), 1)
    second!.channel.later(() => second!.channel.emit(token("b")), 1_000_000)
    await received(1)
    assert.deepStrictEqual(messages, [[[0, [token("a")]], [1, [token("b")]]]])
    close()
  })

  it("does not let a job wait for longer than it asks, whatever the others wait for", async () => {
    const { close, messages, received, start, tasks } = serve()
    await start(0, 1)
    const [first, second] = tasks
    first!.channel.later(() => first!.channel.emit(token("a")), 1_000_000)
    second!.channel.later(() => second!.channel.emit(token("b")), 1)
    await received(1)
    assert.deepStrictEqual(messages, [[[0, [token("a")]], [1, [token("b")]]]])
    close()
  })

  it("sends events before the turn ends if there are many, or the engine blocks the thread", async () => {
    const { close, messages, received, start, tasks } = serve()
    await start(0)
    for (const text of ["a", "b", "c", "d", "e"]) tasks[0]!.channel.emit(token(text))
    flushEvents()
    flushEvents()
    await received(2)
    assert.deepStrictEqual(messages.map(([job]) => job?.[1].length), [4, 1])
    close()
  })

  it("passes commands to their jobs, also those that arrive before a job listens", async () => {
    const { close, post, start, tasks } = serve()
    await start(0, 1)
    post({ type: "command", id: 0, command: { type: "cancel" } })
    post({ type: "command", id: 1, command: { type: "grant", tokens: 1 } })
    // No such job.
    post({ type: "command", id: 9, command: { type: "cancel" } })
    await start(2)
    const heard: Array<unknown> = []
    for (const [index, { channel }] of tasks.entries()) channel.onCommand((command) => heard.push([index, command]))
    post({ type: "command", id: 1, command: { type: "cancel" } })
    await until(() => heard.length === 3 ? true : undefined)
    assert.deepStrictEqual(heard, [
      [0, { type: "cancel" }],
      [1, { type: "grant", tokens: 1 }],
      [1, { type: "cancel" }]
    ])
    close()
  })

  it("does not pass the command of an ended job to the next one with its number", async () => {
    const { close, post, start, tasks } = serve()
    await start(0)
    tasks[0]!.end()
    await new Promise((resolve) => setImmediate(resolve))
    post({ type: "command", id: 0, command: { type: "cancel" } })
    await start(0)
    const heard: Array<unknown> = []
    tasks[1]!.channel.onCommand((command) => heard.push(command))
    post({ type: "command", id: 0, command: { type: "grant", tokens: 1 } })
    await until(() => heard.length > 0 ? true : undefined)
    assert.deepStrictEqual(heard, [{ type: "grant", tokens: 1 }])
    close()
  })

  it("passes commands to the next job with a number, also while the engine still works on the one before", async () => {
    const { close, post, received, start, tasks } = serve()
    await start(0)
    tasks[0]!.channel.emit(cancelled)
    await received(1)
    await start(0)
    tasks[0]!.end()
    await new Promise((resolve) => setImmediate(resolve))
    const heard: Array<unknown> = []
    tasks[1]!.channel.onCommand((command) => heard.push(command))
    post({ type: "command", id: 0, command: { type: "cancel" } })
    await until(() => heard.length > 0 ? true : undefined)
    close()
  })

  it("sends nothing of a job after its last event, since another one may have its number", async () => {
    const { close, messages, post, received } = serve(async ({ channel }) => {
      channel.emit(cancelled)
      channel.emit(token("late"))
      await Promise.reject(new Error("no luck"))
    })
    post({ type: "start", id: 0, job })
    await received(1)
    post({ type: "start", id: 0, job })
    await received(2)
    assert.deepStrictEqual(messages, [[[0, [cancelled]]], [[0, [cancelled]]]])
    close()
  })

  it("fails a job that the engine rejects", async () => {
    const { close, messages, post, received } = serve(() => Promise.reject(new Error("no luck")))
    post({ type: "start", id: 0, job })
    await received(1)
    assert.deepStrictEqual(messages, [[[0, [{ type: "failed", failure: { kind: "failed", message: "no luck" } }]]]])
    close()
  })
})
