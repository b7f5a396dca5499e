import { assert } from "@effect/vitest"
import { once } from "node:events"
import { MessageChannel } from "node:worker_threads"
import { describe, it } from "vitest"
import type { FromThread } from "../../../src/domain/EngineProtocol.ts"
import type { GenerateJob, JobCommand, JobEvent } from "../../../src/domain/Job.ts"
import { isTerminal } from "../../../src/domain/Job.ts"
import type { JobSignals, JobTask } from "../../../src/workers/job/JobRunner.ts"
import { runJob } from "../../../src/workers/job/JobRunner.ts"
import { serveJobs } from "../../../src/workers/job/JobServer.ts"
import type { Thoughts } from "../../../src/workers/job/ThoughtSyntax.ts"
import { until } from "../../support/Service.ts"

const jobOf = (options: Partial<GenerateJob> = {}): GenerateJob => ({
  kind: "generate",
  messages: [{ role: "user", content: "" }],
  sampling: { temperature: 0, topP: 1, seed: 0 },
  stop: [],
  window: 1000,
  ...options
})

/** Runs a job as a thread does. `ended` resolves when its last event has arrived and the job has ended. */
const serve = (job: GenerateJob, run: (task: JobTask<GenerateJob>) => Promise<void>) => {
  const { port1, port2 } = new MessageChannel()
  const events: Array<JobEvent> = []
  const last = Promise.withResolvers<void>()
  const done = Promise.withResolvers<void>()
  port1.on("message", (message: FromThread) => {
    for (const [, more] of message) events.push(...more)
    if (events.some(isTerminal)) last.resolve()
  })
  serveJobs(port2, async ({ channel }) => {
    await run({ job, channel })
    done.resolve()
  })
  port1.postMessage({ type: "start", id: 0, job })
  const send = (command: JobCommand) => port1.postMessage({ type: "command", id: 0, command })
  const ended = Promise.all([last.promise, done.promise]).then(() => port1.close())
  return { port: port1, events, send, ended }
}

/** Runs a job over tokens of one character each; `produced` counts the requested tokens. */
const start = (text: string | ReadonlyArray<string>, job: GenerateJob, room = 1000, thoughts?: Thoughts) => {
  const state = { produced: 0, released: 0, last: "" }
  async function* tokens() {
    for (const token of text) {
      await new Promise((resolve) => setImmediate(resolve))
      state.produced++
      state.last = token
      yield token
    }
  }
  const prepare = ({ progress }: JobSignals) => {
    progress()
    return Promise.resolve({
      promptTokens: 3,
      cachedTokens: 0,
      room,
      thoughts,
      tokens: tokens(),
      logprobOf: () => ({ token: state.last, bytes: [], logprob: -1, top: [] }),
      decode: (some: Array<string>) => some.join("")
    })
  }
  const served = serve(job, (task) =>
    runJob(task, prepare, () => {
      state.released++
    }))
  return { ...served, state }
}

const textOf = (events: ReadonlyArray<JobEvent>): string =>
  events.map((event) => event.type === "tokens" ? event.text : "").join("")

const turns = async (count: number) => {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
}

describe("runJob", () => {
  it("ends with exactly one last event, counted exactly, after the slot is free", async () => {
    const { ended, events, state } = start("hello", jobOf())
    await ended
    assert.strictEqual(events.filter(isTerminal).length, 1)
    assert.deepStrictEqual(events.at(-1), {
      type: "finished",
      reason: "stop",
      usage: { promptTokens: 3, completionTokens: 5, cachedTokens: 0 }
    })
    assert.strictEqual(textOf(events), "hello")
    assert.strictEqual(state.released, 1)
  })

  it("stays within the window ahead of its consumer, and continues after a grant", async () => {
    const { ended, events, send, state } = start("x".repeat(100), jobOf({ window: 8 }))
    const sent = (length: number) => until(() => textOf(events).length >= length ? true : undefined)
    await sent(8)
    await turns(300)
    assert.strictEqual(textOf(events).length, 8)
    assert.strictEqual(state.produced, 8)
    send({ type: "grant", tokens: 5 })
    await sent(13)
    await turns(300)
    assert.strictEqual(textOf(events).length, 13)
    send({ type: "grant", tokens: 1000 })
    await ended
    assert.strictEqual(textOf(events).length, 100)
  })

  it("lets the engine compute while a token is decoded, but no unneeded token", async () => {
    const asked = async (options: Partial<GenerateJob>) => {
      const order: Array<string> = []
      let next = 0
      const tokens: AsyncGenerator<string, void, undefined> = {
        next: () => {
          order.push(`ask ${next}`)
          return Promise.resolve({ done: false, value: String(next++) })
        },
        return: () => Promise.resolve({ done: true, value: undefined }),
        throw: (cause) => Promise.reject(cause as Error),
        [Symbol.asyncIterator]: () => tokens,
        [Symbol.asyncDispose]: () => Promise.resolve()
      }
      const decode = (some: Array<string>) => {
        order.push(`read ${some.join("")}`)
        return some.join("")
      }
      const prepare = () => Promise.resolve({ promptTokens: 1, cachedTokens: 0, room: 9, tokens, decode })
      await serve(jobOf(options), (task) => runJob(task, prepare, () => {})).ended
      return order
    }
    assert.deepStrictEqual(await asked({ maxTokens: 3 }), ["ask 0", "ask 1", "read 0", "ask 2", "read 1", "read 2"])
    assert.deepStrictEqual(await asked({ maxTokens: 3, stop: ["1"] }), ["ask 0", "read 0", "ask 1", "read 1"])
  })

  it("sends the first text at once, and later texts together when they come fast", async () => {
    const { ended, events } = start("x".repeat(1000), jobOf())
    await ended
    const counts = events.flatMap((event) => event.type === "tokens" ? [event.count] : [])
    assert.strictEqual(counts[0], 1)
    assert.isBelow(counts.length, 1000)
    assert.isAtMost(Math.max(...counts), 10)
    assert.strictEqual(counts.reduce((sum, count) => sum + count, 0), 1000)
  })

  it("stops within one token of a cancellation, with `cancelled` as the last event", async () => {
    const { ended, events, port, send, state } = start("x".repeat(10_000), jobOf({ window: 100_000 }))
    await once(port, "message")
    send({ type: "cancel" })
    await ended
    assert.deepStrictEqual(events.at(-1), { type: "cancelled" })
    assert.isBelow(state.produced, 10_000)
    assert.strictEqual(state.produced - textOf(events).length, 1)
    assert.strictEqual(state.released, 1)
  })

  it("wakes for a cancellation while it waits for its consumer", async () => {
    const { ended, events, send, state } = start("x".repeat(100), jobOf({ window: 2 }))
    await turns(100)
    send({ type: "cancel" })
    await ended
    assert.deepStrictEqual(events.at(-1), { type: "cancelled" })
    assert.strictEqual(state.produced, 2, "the engine computed an unneeded token")
  })

  it("ends with length at maxTokens, and at the end of the context window", async () => {
    for (const [job, room] of [[jobOf({ maxTokens: 2 }), 10], [jobOf(), 2]] as const) {
      const { ended, events } = start("hello", job, room)
      await ended
      assert.strictEqual(textOf(events), "he")
      assert.deepInclude(events.at(-1), { type: "finished", reason: "length" })
    }
  })

  it("reports progress for tokens that cannot be sent yet", async () => {
    // A call whose name comes last is not certain before its end.
    const text = `<tool_call>${JSON.stringify({ arguments: { text: "x".repeat(60) }, name: "say" })}</tool_call>`
    const { ended, events } = start(text, jobOf({ tools: [{ name: "say" }] }))
    await ended
    const call = events.findIndex(({ type }) => type === "tool_call")
    const signs = events.slice(1, call).filter(({ type }) => type === "progress")
    assert.strictEqual(signs.length, call - 1)
    assert.isAbove(signs.length, 9)
  })

  it("reports progress of the prompt before the answer", async () => {
    const { ended, events } = start("hello", jobOf())
    await ended
    assert.deepStrictEqual(events[0], { type: "progress" })
  })

  const add = { name: "add" }
  const call = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>"
  const callsOf = (events: ReadonlyArray<JobEvent>) => events.filter((event) => event.type === "tool_call")

  it("separates text and tool calls, in order, with all their tokens", async () => {
    const { ended, events } = start(`Well. ${call}`, jobOf({ tools: [add] }))
    await ended
    const calls = callsOf(events)
    assert.strictEqual(textOf(events), "Well.")
    assert.deepInclude(calls[0], { index: 0, id: "call_0_1_0", name: "add" })
    assert.deepStrictEqual(
      calls.slice(1).map(({ id, name }) => [id, name]),
      calls.slice(1).map(() => [undefined, undefined])
    )
    assert.strictEqual(calls.map((one) => one.arguments).join(""), "{\"a\": 1}")
    assert.isTrue(events.findLastIndex((event) => event.type === "tokens") < events.indexOf(calls[0]!))
    assert.deepInclude(events.at(-1), {
      reason: "tool_calls",
      usage: { promptTokens: 3, completionTokens: 6 + call.length, cachedTokens: 0 }
    })
  })

  it("leaves calls in the text if there are no tools, or none may be called", async () => {
    for (const options of [{}, { tools: [] }, { tools: [add], toolChoice: "none" }] as const) {
      const { ended, events } = start(call, jobOf(options))
      await ended
      assert.strictEqual(textOf(events), call)
      assert.deepInclude(events.at(-1), { reason: "stop" })
    }
  })

  it("ends with length if a call is cut", async () => {
    const { ended, events } = start(call, jobOf({ tools: [add], maxTokens: call.indexOf("1") }))
    await ended
    assert.strictEqual(callsOf(events).map((one) => one.arguments).join(""), "{\"a\": ")
    assert.deepInclude(events.at(-1), { reason: "length" })
  })

  // A part of 100 characters is sent at once.
  it.each(["", "-".repeat(100)])("sends each token's log-probability with the begin of its text (%j)", async (more) => {
    const tokens = ["on", "e", "", `${more} t`, "wo ", "th", "ree", " four"]
    const { ended, events } = start(tokens, jobOf({ logprobs: 0, stop: ["three"] }))
    await ended
    const sent = events.filter((event) => event.type === "tokens")
    assert.deepStrictEqual(
      sent.flatMap(({ logprobs = [] }) => logprobs.map(({ token }) => token)),
      ["on", "e", "", `${more} t`, "wo "]
    )
    // " t" may be sent in two parts, since "t" could begin the stop sequence; its log-probability comes with the first.
    let text = ""
    let withLogprobs = ""
    for (const { logprobs = [], ...event } of sent) {
      text += event.text
      withLogprobs += logprobs.map(({ token }) => token).join("")
      assert.include([text, `${text}t`], withLogprobs)
    }
    assert.strictEqual(withLogprobs, text)
  })

  it("sends no log-probabilities unless requested", async () => {
    const { ended, events } = start("hello", jobOf())
    await ended
    assert.isTrue(events.every((event) => !("logprobs" in event)))
  })

  it("counts the tokens of a stop sequence, and does not send its text", async () => {
    const { ended, events } = start("one two three", jobOf({ stop: ["two"] }))
    await ended
    assert.strictEqual(textOf(events), "one ")
    assert.deepInclude(events.at(-1), {
      reason: "stop",
      stop: "two",
      usage: { promptTokens: 3, completionTokens: 7, cachedTokens: 0 }
    })
  })

  it("sends the withheld text if the answer ends in the beginning of a stop sequence", async () => {
    const { ended, events } = start("one tw", jobOf({ stop: ["two"] }))
    await ended
    assert.strictEqual(textOf(events), "one tw")
  })

  it("does not wait for its consumer over tokens that have no text yet", async () => {
    const stop = `${"x".repeat(50)}never`
    const { ended, events, port, send } = start("x".repeat(60), jobOf({ stop: [stop], window: 8 }))
    port.on("message", (message: FromThread) => {
      for (const event of message.flatMap(([, more]) => more)) {
        if (event.type === "tokens") send({ type: "grant", tokens: event.count })
      }
    })
    await ended
    assert.strictEqual(textOf(events), "x".repeat(60))
  }, 10_000)

  it("sends the text before a failure", async () => {
    async function* tokens() {
      yield* ["o", "n", "e", " ", "t", "w"]
      await Promise.reject(new Error("no luck"))
    }
    const prepare = () =>
      Promise.resolve({
        promptTokens: 1,
        cachedTokens: 0,
        room: 100,
        tokens: tokens(),
        decode: (some: Array<string>) => some.join("")
      })
    const { ended, events } = serve(jobOf({ stop: ["two"] }), (task) => runJob(task, prepare, () => {}))
    await ended
    assert.strictEqual(textOf(events), "one tw")
    assert.deepStrictEqual(events.at(-1), { type: "failed", failure: { kind: "failed", message: "no luck" } })
  })

  it("converts an error of the engine to the last event", async () => {
    const fail = () => Promise.reject(new Error("no luck"))
    const { ended, events } = serve(jobOf(), (task) => runJob(task, fail, () => {}))
    await ended
    assert.deepStrictEqual(events, [{ type: "failed", failure: { kind: "failed", message: "no luck" } }])
  })
})

describe("thoughts", () => {
  const style = { type: "pair", pair: { start: "<t>", end: "</t>" } } as const
  const before: Thoughts = { style, begins: "before" }
  const channels: Thoughts = { style: { type: "channels" }, begins: "before" }

  const run = async (text: string, options: Partial<GenerateJob> = {}, thoughts = before) => {
    const { ended, events } = start(text, jobOf(options), 1000, thoughts)
    await ended
    const joined = (type: "thoughts" | "tokens") =>
      events.map((event) => event.type === type ? event.text : "").join("")
    const last = events.at(-1)
    if (last?.type !== "finished") throw new Error(JSON.stringify(last))
    const sent = events.reduce((sum, event) => sum + ("count" in event ? event.count : 0), 0)
    const logprobs = events.flatMap((event) => event.type === "tokens" ? event.logprobs ?? [] : [])
    return { thoughts: joined("thoughts"), text: joined("tokens"), last, sent, events, logprobs }
  }

  it("are events of their own, before those of the text, and their tokens are counted", async () => {
    const { events, last, text, thoughts } = await run("<t>Hm.</t>Hi")
    assert.deepStrictEqual([thoughts, text], ["Hm.", "Hi"])
    const types = events.map(({ type }) => type).filter((type) => type !== "progress")
    assert.deepStrictEqual([...new Set(types)], ["thoughts", "tokens", "finished"])
    assert.deepStrictEqual(last, {
      type: "finished",
      reason: "stop",
      usage: { promptTokens: 3, completionTokens: 12, cachedTokens: 0, reasoningTokens: 8 }
    })
  })

  it("are counted as none in an answer without", async () => {
    const { last, text, thoughts } = await run("Hi")
    assert.deepStrictEqual([thoughts, text, last.usage.reasoningTokens], ["", "Hi", 0])
  })

  it("end by the limit of tokens with `length`", async () => {
    const { last, text, thoughts } = await run("<t>Hm.</t>Hi", { maxTokens: 5 })
    assert.deepStrictEqual([thoughts, text, last.reason], ["Hm", "", "length"])
    assert.deepInclude(last.usage, { completionTokens: 5, reasoningTokens: 3 })
  })

  it("do not end at a stop sequence, as the text does", async () => {
    const { last, text, thoughts } = await run("<t>a. b</t>c. d", { stop: [". "] })
    assert.deepStrictEqual([thoughts, text, last.reason, last.stop], ["a. b", "c", "stop", ". "])
  })

  it("have no log-probabilities, and those of the text are its own", async () => {
    const { logprobs, text } = await run("<t>Hm.</t>\nHello", { logprobs: 0 })
    assert.strictEqual(text, "Hello")
    assert.strictEqual(logprobs.map(({ token }) => token).join(""), text)
  })

  it("come before tool calls", async () => {
    const call = "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}}</tool_call>"
    const { events, last, text, thoughts } = await run(`<t>{"name":"f"} or not?</t>${call}`, { tools: [{ name: "f" }] })
    assert.deepStrictEqual([thoughts, text, last.reason], ["{\"name\":\"f\"} or not?", "", "tool_calls"])
    const args = events.map((event) => event.type === "tool_call" ? event.arguments : "").join("")
    assert.strictEqual(args, "{\"a\":1}")
  })

  it("and calls do not end at a stop sequence, and text between and after them does", async () => {
    const call = "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"to. Paris\"}}</tool_call>"
    const cases = [
      [`<t>Hm. Paris</t>${call}`, "", 1, "tool_calls"],
      [`I look. Now: ${call}`, "I look", 0, "stop"],
      [`I look.${call}${call}`, "I look.", 2, "tool_calls"],
      [`${call}So. And ${call}`, "So", 1, "tool_calls"],
      ["{\"a\": 1}. {", "{\"a\": 1}", 0, "stop"]
    ] as const
    for (const [answer, expected, calls, reason] of cases) {
      const { events, last, text } = await run(answer, { stop: [". ", "Paris"], tools: [{ name: "f" }] })
      const given = events.flatMap((event) => event.type === "tool_call" ? event.arguments : [])
      assert.deepStrictEqual([text, last.reason], [expected, reason], answer)
      assert.strictEqual(given.join(""), "{\"a\":\"to. Paris\"}".repeat(calls), answer)
    }
  })

  it("are in a channel, as calls are, and a stop sequence ends the text alone", async () => {
    const message = (header: string, body: string) => `<|start|>assistant<|channel|>${header}<|message|>${body}<|end|>`
    const answer = (message("analysis", "Look. Up.") + message("commentary", "I look.") +
      message("commentary to=functions.f <|constrain|>json", "{\"a\":\". \"}")).slice("<|start|>assistant".length)
    const found = await run(answer, { stop: [". "], tools: [{ name: "f" }] }, channels)
    assert.deepStrictEqual([found.thoughts, found.text, found.last.reason], ["Look. Up.", "I look.", "tool_calls"])
    const calls = found.events.filter((event) => event.type === "tool_call")
    assert.deepInclude(calls[0], { index: 0, id: "call_0_1_0", name: "f" })
    assert.strictEqual(calls.map((event) => event.arguments).join(""), "{\"a\":\". \"}")
  })

  it("count against the window of the consumer", async () => {
    const { ended, events, send } = start(`<t>${"x".repeat(50)}</t>Hi`, jobOf({ window: 20 }), 1000, before)
    const sent = () => events.reduce((sum, event) => sum + ("count" in event ? event.count : 0), 0)
    await until(() => sent() >= 20 ? true : undefined)
    await turns(300)
    assert.isAtMost(sent(), 21)
    send({ type: "grant", tokens: 1000 })
    await ended
    assert.strictEqual(sent(), 50 + 3 + 4 + 2)
  })
})
