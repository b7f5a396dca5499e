/** The `ollama` package against the started service, and the requests that Ollama's command line sends. */
import { assert } from "@effect/vitest"
import { Ollama } from "ollama"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService, until } from "../support/Service.ts"

const file = new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname

const yaml = `
server: { maxBodyBytes: 20000 }
models:
  tiny-chat:
    deployments: [{ engine: llama, file: ${file} }]
  fake/cut:
    preload: false
    deployments:
      - { engine: fake, reply: one two three four, fault: { kind: error, afterTokens: 3 } }
  fake/broken:
    preload: false
    deployments:
      - { engine: fake, fault: { kind: error } }
  fake/caller:
    preload: false
    deployments:
      - engine: fake
        reply: >-
          Let me see.
          <tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>
          <tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>
  fake/gap:
    preload: false
    deployments: [{ engine: fake }]
  fake/loads:
    preload: false
    deployments: [{ engine: fake, loadDelayMs: 300 }]
  fake/slow:
    preload: false
    deployments:
      - { engine: fake, slots: 1, tokenDelayMs: 20, contextSize: 100000, reply: "${"word ".repeat(20_000)}" }
`

let service: Service
let client: Ollama
beforeAll(async () => {
  service = await startService(yaml)
  client = new Ollama({ host: service.url })
}, 60_000)
afterAll(() => service.stop())

const greedy = { temperature: 0 }
const asked = (content: string) => ({
  model: "tiny-chat",
  messages: [{ role: "system", content: "You are a helpful assistant." }, { role: "user", content }],
  options: greedy
})

interface Failure extends Error {
  readonly status_code?: number
}

const failure = (answer: PromiseLike<unknown>): Promise<Failure> =>
  Promise.resolve(answer).then(() => assert.fail("answered"), (error: unknown) => error as Failure)

const collect = async <A>(stream: AsyncIterable<A>): Promise<ReadonlyArray<A>> => {
  const all: Array<A> = []
  for await (const part of stream) all.push(part)
  return all
}

const running = async (model: string) => {
  const { deployments } = await (await fetch(`${service.admin}/admin/deployments`)).json() as {
    readonly deployments: ReadonlyArray<{ readonly model: string; readonly running: number }>
  }
  return deployments.find((one) => one.model === model)?.running
}

describe("chat", () => {
  it("answers with exact counts, and durations in nanoseconds", async () => {
    const { created_at, message, model, ...rest } = await client.chat(asked("What is 7 + 5?"))
    assert.deepStrictEqual([model, message], ["tiny-chat", { role: "assistant", content: "7 + 5 = 12." }])
    assert.isFalse(Number.isNaN(Date.parse(String(created_at))))
    assert.deepInclude(rest, { done: true, done_reason: "stop", prompt_eval_count: 27, eval_count: 9 })
    assert.isAbove(rest.total_duration, 100_000)
  })

  it("streams the same text; the last part has what a buffered answer has", async () => {
    const parts = await collect(await client.chat({ ...asked("Count to 7."), stream: true }))
    assert.strictEqual(parts.map(({ message }) => message.content).join(""), "1, 2, 3, 4, 5, 6, 7.")
    const last = parts.at(-1)!
    const { eval_count, prompt_eval_count } = await client.chat(asked("Count to 7."))
    assert.deepInclude(last, { done: true, done_reason: "stop", eval_count, prompt_eval_count })
    assert.isAtMost(last.prompt_eval_duration + last.eval_duration, last.total_duration)
    assert.isTrue(parts.slice(0, -1).every(({ done }) => !done))
  })

  it("stops at num_predict and before a stop text", async () => {
    const call = asked("Count to 7.")
    const cut = await client.chat({ ...call, options: { ...greedy, num_predict: 4 } })
    assert.deepInclude(cut, { done_reason: "length", eval_count: 4 })
    const stopped = await client.chat({ ...call, options: { ...greedy, stop: [" 5, 6"] } })
    assert.strictEqual(stopped.message.content, "1, 2, 3, 4,")
  })

  it("names models with and without a tag", async () => {
    const { model } = await client.chat({ ...asked("Hello"), model: "tiny-chat:latest" })
    assert.strictEqual(model, "tiny-chat:latest")
    assert.strictEqual((await failure(client.chat({ ...asked("Hello"), model: "tiny-chat:8b" }))).status_code, 404)
  })

  it("continues an assistant's message at the end", async () => {
    const { messages, ...call } = asked("What is the capital of Japan?")
    const begun = [...messages, { role: "assistant", content: "The capital of" }]
    assert.strictEqual((await client.chat({ ...call, messages: begun })).message.content, " Japan is Tokyo.")
  })

  it("holds the answer to a schema, or to JSON", async () => {
    const format = {
      type: "object",
      properties: { name: { type: "string" }, age: { type: "integer" }, city: { type: "string" } },
      required: ["name", "age", "city"],
      additionalProperties: false
    }
    const call = asked("Extract the name, age and city as JSON: Ruby is 34 years old and lives in Oslo.")
    const { message } = await client.chat({ ...call, format })
    assert.deepStrictEqual(JSON.parse(message.content), { name: "Ruby", age: 34, city: "Oslo" })
    assert.isObject(JSON.parse((await client.chat({ ...call, format: "json" })).message.content))
  })

  it("accepts every value of think; a model without reasoning has none", async () => {
    for (const think of [true, false, "low", "high"] as const) {
      const { message } = await client.chat({ ...asked("What is 7 + 5?"), think })
      assert.deepStrictEqual(message, { role: "assistant", content: "7 + 5 = 12." })
    }
  })

  it("has the log probabilities of tokens", async () => {
    const { logprobs } = await client.chat({ ...asked("What is 7 + 5?"), logprobs: true, top_logprobs: 2 })
    assert.strictEqual(logprobs?.map(({ token }) => token).join(""), "7 + 5 = 12.")
    assert.isTrue(logprobs?.every(({ logprob, top_logprobs }) => logprob <= 0 && top_logprobs?.length === 2))
  })

  it("releases the slot when the caller aborts", async () => {
    const stream = await client.chat({ ...asked("Hello"), model: "fake/slow", stream: true })
    const aborted = failure((async () => {
      for await (const part of stream) if (part.message.content !== "") stream.abort()
    })())
    assert.strictEqual((await aborted).name, "AbortError")
    // Its one slot is free again; the complete answer would take minutes.
    await until(async () => await running("fake/slow") === 0 ? true : undefined)
  })
})

const add = {
  type: "function",
  function: {
    name: "add",
    description: "Add two numbers",
    parameters: {
      type: "object",
      properties: { a: { type: "number" }, b: { type: "number" } },
      required: ["a", "b"]
    }
  }
}

describe("tools", () => {
  const question = { role: "user", content: "Use the tool: what is 21 plus 34?" }

  it("are called with arguments as an object, buffered and streamed", async () => {
    const call = { model: "tiny-chat", messages: [question], tools: [add], options: greedy }
    const { message } = await client.chat(call)
    const parts = await collect(await client.chat({ ...call, stream: true }))
    const streamed = parts.flatMap(({ message }) => message.tool_calls ?? [])
    for (const calls of [message.tool_calls, streamed]) {
      assert.strictEqual(calls?.[0]?.function.name, "add")
      assert.isObject(calls?.[0]?.function.arguments)
    }
    assert.deepStrictEqual(
      streamed.map(({ function: called }) => called),
      message.tool_calls!.map(({ function: called }) => called)
    )
  })

  it("have results in messages that name the tool", async () => {
    const { message } = await client.chat({
      model: "tiny-chat",
      messages: [
        question,
        { role: "assistant", content: "", tool_calls: [{ function: { name: "add", arguments: { a: 21, b: 34 } } }] },
        { role: "tool", content: "55", tool_name: "add" }
      ],
      tools: [add],
      options: greedy
    })
    assert.include(message.content, "55")
  })
})

describe("generate", () => {
  const call = { model: "tiny-chat", prompt: "What is 7 + 5?", system: "You are a helpful assistant.", options: greedy }

  it("answers a prompt, buffered and streamed", async () => {
    const buffered = await client.generate(call)
    assert.deepInclude(buffered, { response: "7 + 5 = 12.", done: true, done_reason: "stop", prompt_eval_count: 27 })
    const parts = await collect(await client.generate({ ...call, stream: true }))
    assert.strictEqual(parts.map(({ response }) => response).join(""), "7 + 5 = 12.")
  })

  it("continues a raw prompt without a chat template", async () => {
    const prompt = "<|im_start|>user\nWhat is 7 + 5?<|im_end|>\n<|im_start|>assistant\n"
    const { prompt_eval_count, response } = await client.generate({ ...call, prompt, raw: true })
    assert.strictEqual(response, "7 + 5 = 12.")
    const { prompt_eval_count: inChat } = await client.generate({
      model: "tiny-chat",
      prompt: "What is 7 + 5?",
      options: greedy
    })
    assert.strictEqual(prompt_eval_count, inChat)
  })

  it("fills the gap before a suffix where the engine can", async () => {
    const { response } = await client.generate({ model: "fake/gap", prompt: "begin", suffix: "end", options: greedy })
    assert.strictEqual(response, "fake: begin[gap]end")
    const { message, status_code } = await failure(client.generate({ model: "tiny-chat", prompt: "a", suffix: "}" }))
    assert.strictEqual(status_code, 400)
    assert.match(message, /^suffix: .*filling in the middle/)
  })

  it("refuses what no deployment has, by its name", async () => {
    for (const [name, more] of [["template", { template: "x" }], ["suffix", { suffix: "}" }]] as const) {
      const { message, status_code } = await failure(client.generate({ ...call, ...more }))
      assert.strictEqual(status_code, 400)
      assert.strictEqual(message, `${name}: No deployment of "tiny-chat" accepts this field. Remove it.`)
    }
  })

  it("says how long the model loaded, which is no time of the prompt", async () => {
    const model = "fake/loads"
    const first = await collect(await client.generate({ model, prompt: "Hi", stream: true }))
    const { load_duration: loading, prompt_eval_duration: reading, total_duration: total } = first.at(-1)!
    assert.isAtLeast(loading, 250_000_000)
    assert.isAtMost(loading + reading, total)
    const again = await client.generate({ model, prompt: "Hi" })
    assert.strictEqual(again.load_duration, 0)
    assert.strictEqual(again.eval_duration, again.total_duration)
  })
})

describe("models", () => {
  it("are embedded as vectors of unit length, in both endpoints", async () => {
    const { embeddings, prompt_eval_count } = await client.embed({ model: "tiny-chat", input: ["a", "b"] })
    const { embedding } = await client.embeddings({ model: "tiny-chat", prompt: "a" })
    assert.deepStrictEqual([embeddings.length, embeddings[0]], [2, embedding])
    assert.isAbove(prompt_eval_count, 1)
    assert.closeTo(embedding.reduce((sum, one) => sum + one * one, 0), 1, 1e-5)
  })

  it("are listed with a tag, and what their file says", async () => {
    const { models } = await client.list()
    const [tiny] = models
    assert.deepStrictEqual(models.map(({ name }) => name), [
      "tiny-chat:latest",
      "fake/cut:latest",
      "fake/broken:latest",
      "fake/caller:latest",
      "fake/gap:latest",
      "fake/loads:latest",
      "fake/slow:latest"
    ])
    assert.deepInclude(tiny!.details, { format: "gguf", family: "llama", quantization_level: "Q8_0" })
    assert.isAbove(tiny!.size, 3_000_000)
    assert.match(tiny!.digest, /^[0-9a-f]{64}$/)
  })

  it("are described with their capabilities and window", async () => {
    const shown = await client.show({ model: "tiny-chat" })
    const info = shown.model_info as unknown as Record<string, unknown>
    assert.deepStrictEqual(shown.capabilities, ["completion", "tools"])
    assert.deepInclude(info, { "general.architecture": "llama", "llama.context_length": 512 })
    assert.isTrue(Object.values(info).every((value) => typeof value !== "object"))
    assert.strictEqual((await failure(client.show({ model: "none" }))).status_code, 404)
  })

  it("are loaded and unloaded by requests without a prompt", async () => {
    const loaded = async () => (await client.ps()).models.map(({ name }) => name)
    const empty = { model: "tiny-chat", prompt: "" }
    assert.strictEqual((await client.generate({ ...empty, keep_alive: 0 })).done_reason, "unload")
    await until(async () => (await loaded()).includes("tiny-chat:latest") ? undefined : true)
    assert.strictEqual((await client.chat({ model: "tiny-chat", messages: [] })).done_reason, "load")
    const { models } = await client.ps()
    const tiny = models.find(({ name }) => name === "tiny-chat:latest")
    assert.isAbove(Date.parse(String(tiny?.expires_at)), Date.now())
  })

  it("are not changed by callers that are no administrators", async () => {
    for (const change of [() => client.pull({ model: "hf:org/repo" }), () => client.delete({ model: "tiny-chat" })]) {
      assert.strictEqual((await failure(change())).status_code, 403)
    }
    const unsupported = [
      () => client.create({ model: "a", from: "b" }),
      () => client.copy({ source: "a", destination: "b" })
    ]
    for (const change of unsupported) {
      const { message, status_code } = await failure(change())
      assert.strictEqual(status_code, 501)
      assert.match(message, /^Troupe does not serve \/api\/\w+\./)
    }
  })

  it("have the version of Ollama's API", async () => {
    assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/)
  })
})

describe("errors", () => {
  const call = (model: string) => ({ ...asked("Hello"), model })

  it("have the status and one text", async () => {
    const unknown = await failure(client.chat(call("none")))
    assert.deepInclude({ ...unknown }, { status_code: 404 })
    assert.match(unknown.message, /^The model "none" does not exist\./)
    const broken = await failure(client.chat({ ...call("fake/broken"), stream: true }))
    assert.strictEqual(broken.status_code, 500)
    const hot = await failure(client.chat({ ...call("tiny-chat"), options: { temperature: 3 } }))
    assert.strictEqual(hot.message, "options.temperature: Expected a number from 0 to 2, got 3")
    const long = await failure(client.chat({ ...call("tiny-chat"), messages: asked("a ".repeat(2_000)).messages }))
    assert.deepStrictEqual([long.status_code, /window/.test(long.message)], [400, true])
    assert.strictEqual(
      (await failure(client.generate({ model: "tiny-chat", prompt: "a".repeat(30_000) }))).status_code,
      413
    )
  })

  it("end a stream that has begun", async () => {
    const stream = await client.chat({ ...call("fake/cut"), stream: true })
    const texts: Array<string> = []
    const error = await failure((async () => {
      for await (const part of stream) texts.push(part.message.content)
    })())
    assert.include(error.message, "failed as configured")
    assert.isAbove(texts.join("").length, 0)
  })
})

/** What `ollama run tiny-chat` of version 0.12 sends, in its order. */
describe("the command line", () => {
  const send = async (method: string, path: string, body?: object) => {
    const response = await fetch(service.url + path, {
      method,
      headers: {
        "content-type": "application/json",
        accept: "application/x-ndjson",
        "user-agent": "ollama/0.12.11 (amd64 linux) Go/go1.24"
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    const text = await response.text()
    assert.strictEqual(response.status, 200, text)
    const lines = text.split("\n").filter((line) => line.startsWith("{"))
    return {
      text,
      type: response.headers.get("content-type"),
      lines: lines.map((line) => JSON.parse(line) as Record<string, unknown>)
    }
  }

  it("finds the service, describes and loads the model, and talks", async () => {
    assert.strictEqual((await send("HEAD", "/")).text, "")
    assert.strictEqual((await send("GET", "/")).text, "Ollama is running")
    const { lines: [shown] } = await send("POST", "/api/show", {
      model: "tiny-chat",
      system: "",
      template: "",
      verbose: false,
      options: null,
      name: ""
    })
    assert.include(shown!["capabilities"], "completion")
    const { lines: [loaded] } = await send("POST", "/api/generate", {
      model: "tiny-chat",
      prompt: "",
      suffix: "",
      system: "",
      template: "",
      options: null,
      think: false
    })
    assert.deepInclude(loaded, { done: true, done_reason: "load" })
    const { lines, type } = await send("POST", "/api/chat", {
      model: "tiny-chat",
      messages: [{ role: "user", content: "What is 7 + 5?" }],
      format: "",
      options: { temperature: 0 },
      think: false
    })
    assert.strictEqual(type, "application/x-ndjson")
    assert.deepInclude(lines.at(-1), { done: true, done_reason: "stop" })
    const { lines: [stopped] } = await send("POST", "/api/generate", { model: "tiny-chat", prompt: "", keep_alive: 0 })
    assert.deepInclude(stopped, { done: true, done_reason: "unload" })
  })
})
