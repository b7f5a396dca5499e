/** The `openai` package's text completions: on local engines, on a provider of the dialect, and on one of Ollama's. */
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import { evaluationHarness } from "../support/EvaluationHarness.ts"
import type { FaultServer, Play, Seen } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const json = { "content-type": "application/json" }

const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }

const choiceOf = (text: string, finish_reason: string | null = null, more: object = {}) => ({
  id: "cmpl-theirs",
  object: "text_completion",
  created: 5,
  model: "instruct-theirs",
  system_fingerprint: "fp_1",
  choices: [{ text, index: 0, logprobs: null, finish_reason, ...more }]
})

const frame = (body: object) => `data: ${JSON.stringify(body)}\n\n`

/** A provider's answers by its model. */
const playOf = ({ body }: Seen): Play => {
  const { model, stream } = body as { readonly model: string; readonly stream?: boolean }
  if (model === "lama") {
    const line = { model, response: " lama", done: true, done_reason: "stop", prompt_eval_count: 4, eval_count: 1 }
    return { headers: json, pieces: [`${JSON.stringify(line)}\n`] }
  }
  if (model === "limited") return { status: 429, headers: json, pieces: [`{"error":{"message":"Slow down."}}`] }
  return stream === true
    ? {
      headers: { "content-type": "text/event-stream" },
      pieces: [
        frame(choiceOf(" Par")),
        frame(choiceOf("is.", "stop", { matched: 7 })),
        frame({ ...choiceOf(""), choices: [], usage }),
        "data: [DONE]\n\n"
      ]
    }
    : { headers: json, pieces: [JSON.stringify({ ...choiceOf(" Paris.", "stop", { matched: 7 }), usage })] }
}

let provider: FaultServer
let service: Service
let client: OpenAI

beforeAll(async () => {
  provider = await startFaultServer((_, request) => playOf(request))
  const remote = (model: string, more: object = {}) => ({
    preload: false,
    deployments: [{ provider: "openai", model, baseUrl: `${provider.url}/v1`, ...more }]
  })
  service = await startService(JSON.stringify({
    models: {
      "tiny-chat": {
        deployments: [{ engine: "llama", file: new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname }]
      },
      "fake/any": { deployments: [{ engine: "fake" }] },
      "fake/thinks": {
        deployments: [{
          engine: "fake",
          reply: "<think>Hm.</think>Yes.",
          reasoning: { start: "<think>", end: "</think>" }
        }]
      },
      instruct: remote("instruct-theirs"),
      behind: remote("instruct-theirs", { provider: "troupe" }),
      lama: remote("lama", { provider: "ollama", baseUrl: provider.url }),
      claude: remote("claude", { provider: "anthropic", baseUrl: provider.url }),
      chain: {
        policy: "in-order",
        preload: false,
        deployments: [
          { provider: "openai", model: "limited", baseUrl: `${provider.url}/v1`, quality: 1 },
          { provider: "ollama", model: "lama", baseUrl: provider.url, quality: 0.5 }
        ]
      }
    },
    policies: { "in-order": { strategy: "quality", retries: 0 } }
  }))
  client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
}, 60_000)

afterAll(async () => {
  await service.stop()
  await provider.close()
})

const refused = async (answer: Promise<unknown>) => {
  const error = await answer.then(() => assert.fail("answered"), (cause: unknown) => cause)
  assert.instanceOf(error, OpenAI.APIError)
  return error
}

const sent = (from: number) => provider.seen.slice(from).map(({ body, path }) => ({ path, body: body as object }))

describe("completions.create on a llama model", () => {
  const prompt = "<|im_start|>user\nWhat is 7 + 5?<|im_end|>\n<|im_start|>assistant\n"

  it("continues the prompt as it is, without a chat template", async () => {
    const { choices, object, usage } = await client.completions.create({
      model: "tiny-chat",
      prompt: "1, 2, 3,",
      temperature: 0
    })
    assert.strictEqual(object, "text_completion")
    assert.strictEqual(choices[0]?.index, 0)
    const { tokens } = await tokenize("1, 2, 3,")
    assert.deepInclude(usage, { prompt_tokens: tokens.length })
    assert.isAtMost(usage!.completion_tokens, 16)
  })

  const tokenize = async (text: string) => {
    const response = await fetch(`${service.url}/v1/tokenize`, {
      method: "POST",
      body: JSON.stringify({ model: "tiny-chat", prompt: text })
    })
    return await response.json() as { readonly tokens: Array<number> }
  }

  it("reads control tokens in the prompt, so that callers can use a template of their own", async () => {
    const chat = await client.chat.completions.create({
      model: "tiny-chat",
      messages: [{ role: "user", content: "What is 7 + 5?" }],
      temperature: 0
    })
    const { choices, usage } = await client.completions.create({
      model: "tiny-chat",
      prompt,
      temperature: 0,
      max_tokens: 20
    })
    assert.strictEqual(choices[0]?.text.trim(), chat.choices[0]!.message.content)
    assert.strictEqual(usage!.prompt_tokens, chat.usage!.prompt_tokens)
    assert.strictEqual(choices[0]?.finish_reason, "stop")
  })
  it("continues tokens, whose text has the same answer", async () => {
    const { tokens } = await tokenize("Once upon a time")
    const [byText, byTokens] = await Promise.all(
      ["Once upon a time", tokens].map((prompt) =>
        client.completions.create({ model: "tiny-chat", prompt, temperature: 0, max_tokens: 8 })
      )
    )
    assert.strictEqual(byTokens!.choices[0]!.text, byText!.choices[0]!.text)
    const error = await refused(client.completions.create({ model: "tiny-chat", prompt: [1, 999_999] }))
    assert.deepInclude(error, { status: 400, param: "prompt[1]" })
    assert.include(error.message, "vocabulary")
  })

  it("has log-probabilities in the lists of this API", async () => {
    const { choices: [choice] } = await client.completions.create({
      model: "tiny-chat",
      prompt: "Once upon",
      logprobs: 2,
      max_tokens: 5,
      temperature: 0
    })
    const { text_offset: offsets = [], token_logprobs: logprobs = [], tokens = [], top_logprobs: top = [] } = choice!
      .logprobs!
    assert.strictEqual(tokens.join(""), choice!.text)
    assert.lengthOf(logprobs, tokens.length)
    assert.isTrue(top.every((one) => Object.keys(one).length === 2))
    tokens.forEach((token, index) => assert.strictEqual(choice!.text.slice(offsets[index]).indexOf(token), 0))
  })

  it("refuses a suffix, which its vocabulary has no tokens for", async () => {
    const error = await refused(client.completions.create({ model: "tiny-chat", prompt: "a", suffix: "b" }))
    assert.deepInclude(error, { status: 400, code: "not_supported", param: "suffix" })
    assert.include(error.message, "filling in the middle")
  })

  it("refuses a prompt that exceeds the window", async () => {
    const error = await refused(client.completions.create({ model: "tiny-chat", prompt: "a ".repeat(700) }))
    assert.deepInclude(error, { status: 400, code: "context_length_exceeded", param: "prompt" })
  })
})

describe("completions.create on the fake engine", () => {
  const create = (params: Omit<OpenAI.CompletionCreateParamsNonStreaming, "model">) =>
    client.completions.create({ model: "fake/any", temperature: 0, max_tokens: 100, ...params })

  it("answers each prompt with n choices, in order, and counts each prompt once", async () => {
    const { choices, usage } = await create({ prompt: ["one", "two"], n: 2 })
    assert.deepStrictEqual(choices.map(({ index, text }) => [index, text]), [
      [0, "fake: one"],
      [1, "fake: one"],
      [2, "fake: two"],
      [3, "fake: two"]
    ])
    assert.deepInclude(usage, { prompt_tokens: 2, completion_tokens: 12, total_tokens: 14 })
  })

  it("puts the prompt before the answer with echo, buffered and streamed", async () => {
    const params = { prompt: "Say it. ", echo: true }
    assert.strictEqual((await create(params)).choices[0]?.text, "Say it. fake: Say it. ")
    assert.strictEqual((await streamed({ model: "fake/any", ...params })).texts[0], "Say it. fake: Say it. ")
  })

  describe("with echo and logprobs, as evaluation harnesses request them", () => {
    const prompt = "The cat sat on the mat. Ünïcödé 🦁"
    const params = { model: "tiny-chat", prompt, echo: true, logprobs: 3, temperature: 0 }
    const listsOf = (answer: OpenAI.Completion) =>
      answer.choices[0]!.logprobs as Required<OpenAI.CompletionChoice.Logprobs>
    const readPrompt = (more: object = {}) => client.completions.create({ ...params, max_tokens: 0, ...more })

    it("has the tokens of the prompt with their offsets, and their alternatives", async () => {
      const answer = await readPrompt()
      assert.deepInclude(answer.choices[0], { text: prompt, finish_reason: "length" })
      assert.deepInclude(answer.usage, { completion_tokens: 0 })
      const { text_offset: offsets, token_logprobs: values, tokens, top_logprobs: top } = listsOf(answer)
      assert.deepStrictEqual([values[0], top[0]], [null as never, null as never])
      const ends = [...offsets.slice(1), prompt.length]
      const slices = offsets.map((offset, index) => prompt.slice(offset, ends[index]))
      assert.strictEqual(slices.join(""), prompt)
      for (const [index, slice] of slices.entries()) {
        if (!tokens[index]!.includes("\uFFFD")) assert.strictEqual(slice, tokens[index])
      }
      for (const [index, value] of values.slice(1).entries()) {
        const likeliest = Object.values(top[index + 1]!)
        assert.lengthOf(likeliest, 3)
        assert.isAtMost(value, Math.min(0, Math.max(...likeliest)))
      }
    })

    it("goes on with the tokens of the answer", async () => {
      const prefix = listsOf(await readPrompt())
      const [echoed, plain] = await Promise.all([
        readPrompt({ max_tokens: 2 }),
        readPrompt({ max_tokens: 2, echo: false })
      ])
      assert.strictEqual(echoed.choices[0]?.text, prompt + plain.choices[0]!.text)
      const { token_logprobs: values, tokens } = listsOf(echoed)
      assert.deepStrictEqual(tokens, [...prefix.tokens, ...listsOf(plain).tokens])
      const expected = [...prefix.token_logprobs, ...listsOf(plain).token_logprobs]
      for (const [index, value] of values.slice(1).entries()) assert.closeTo(value, expected[index + 1]!, 0.05)
    })

    it("is the same streamed, and for the ids of the prompt's tokens", async () => {
      const { texts } = await streamed({ ...params, max_tokens: 0 })
      assert.deepStrictEqual(texts, [prompt])
      const body = JSON.stringify({ model: "tiny-chat", prompt })
      const response = await fetch(`${service.url}/v1/tokenize`, { method: "POST", headers: json, body })
      const { tokens } = await response.json() as { readonly tokens: Array<number> }
      assert.deepStrictEqual((await readPrompt({ prompt: tokens })).choices, (await readPrompt()).choices)
    })
  })

  it("gives the same log-probability to a token of the answer and of an echo", async () => {
    const params = { model: "tiny-chat", temperature: 0, logprobs: 0 }
    const long = "A dog and a bird went to the park. ".repeat(8)
    const answer = await client.completions.create({ ...params, prompt: long, max_tokens: 5 })
    const { text, logprobs } = answer.choices[0]!
    const echo = await client.completions.create({ ...params, prompt: long + text, echo: true, max_tokens: 0 })
    const values = echo.choices[0]!.logprobs!.token_logprobs!.slice(-5)
    assert.isTrue(values.every((value, index) => Math.abs(value - logprobs!.token_logprobs![index]!) < 0.05))
  })

  it("fills the gap before a suffix", async () => {
    const { choices } = await create({ prompt: "begin", suffix: "end" })
    assert.strictEqual(choices[0]?.text, "fake: begin[gap]end")
  })

  it("has the thoughts of a model in its text, which no template has asked for", async () => {
    const { choices } = await client.completions.create({
      model: "fake/thinks",
      prompt: "?",
      temperature: 0,
      max_tokens: 100
    })
    assert.strictEqual(choices[0]?.text, "<think>Hm.</think>Yes.")
  })

  it("ends at a stop sequence, and at 16 tokens by default", async () => {
    const stopped = await create({ prompt: "one two three", stop: " two" })
    assert.deepInclude(stopped.choices[0], { text: "fake: one", finish_reason: "stop" })
    const cut = await client.completions.create({ model: "fake/any", prompt: "x".repeat(90), temperature: 0 })
    assert.strictEqual(cut.usage?.completion_tokens, 16)
    assert.strictEqual(cut.choices[0]?.finish_reason, "length")
  })

  it.each([
    [{ prompt: "a", best_of: 3 }, "best_of"],
    [{ prompt: [] }, "prompt"],
    [{ prompt: [["a"]] }, "prompt[0]"],
    [{ prompt: "a", suffix: "b", echo: true }, "echo"],
    [{ prompt: [1], suffix: "b" }, "suffix"],
    [{ prompt: Array.from({ length: 65 }, () => "a"), n: 2 }, "prompt"],
    [{ prompt: "a", echo: true, logprobs: 1 }, "echo"],
    [{ prompt: "a", max_tokens: 0 }, "max_tokens"],
    [{ messages: [] }, "prompt"],
    [{ prompt: "a", stream_options: { include_usage: true } }, "stream_options"]
  ])("refuses %j by its field", async (params, param) => {
    const error = await refused(client.completions.create({ model: "fake/any", ...params } as never))
    assert.deepInclude(error, { status: 400, param })
  })
})

/** The texts of the choices, the finish reasons and the usage of a stream. */
const streamed = async (params: Omit<OpenAI.CompletionCreateParamsNonStreaming, "stream">) => {
  const stream = await client.completions.create({
    temperature: 0,
    max_tokens: 100,
    ...params,
    stream: true,
    stream_options: { include_usage: true }
  })
  const texts: Array<string> = []
  const reasons: Array<string> = []
  const events: Array<OpenAI.Completion> = []
  for await (const event of stream) {
    events.push(event)
    for (const { finish_reason, index, text } of event.choices) {
      texts[index] = (texts[index] ?? "") + text
      if (finish_reason !== null) reasons[index] = finish_reason
    }
  }
  return { events, texts, reasons, usage: events.at(-1)?.usage }
}

describe("a streamed completion", () => {
  it("has the choices of all prompts, and the usage at the end", async () => {
    const { events, reasons, texts, usage } = await streamed({ model: "fake/any", prompt: ["one", "two"], n: 2 })
    assert.deepStrictEqual(texts, ["fake: one", "fake: one", "fake: two", "fake: two"])
    assert.deepStrictEqual(reasons, ["stop", "stop", "stop", "stop"])
    assert.deepInclude(usage, { prompt_tokens: 2, completion_tokens: 12 })
    assert.isTrue(events.slice(0, -1).every((event) => event.usage === null && event.object === "text_completion"))
  })
})

describe("a provider of the dialect", () => {
  it("is sent the caller's body, and its answer is passed on with Troupe's id", async () => {
    const from = provider.seen.length
    const answer = await client.completions.create({
      model: "instruct",
      prompt: "The capital of France is",
      user: "u1",
      guided_regex: ".*"
    } as OpenAI.CompletionCreateParamsNonStreaming)
    assert.deepStrictEqual(sent(from), [{
      path: "/v1/completions",
      body: {
        model: "instruct-theirs",
        prompt: "The capital of France is",
        user: "u1",
        guided_regex: ".*",
        max_tokens: 16
      }
    }])
    assert.match(answer.id, /^cmpl-/)
    assert.notStrictEqual(answer.id, "cmpl-theirs")
    assert.deepInclude(answer, { model: "instruct-theirs", system_fingerprint: "fp_1", usage })
    assert.deepInclude(answer.choices[0] as object, { text: " Paris.", finish_reason: "stop", matched: 7 })
  })

  it("is sent one prompt at a time, and is streamed", async () => {
    const from = provider.seen.length
    const { events, reasons, texts, usage: total } = await streamed({ model: "instruct", prompt: ["a", "b"] })
    assert.deepStrictEqual([texts, reasons], [[" Paris.", " Paris."], ["stop", "stop"]])
    assert.deepInclude(total, { prompt_tokens: 6, completion_tokens: 4, total_tokens: 10 })
    assert.isTrue(
      events.slice(0, -1).every((event) => event.system_fingerprint === "fp_1" && event.model === "instruct-theirs")
    )
    const prompts = sent(from).map(({ body }) => (body as { readonly prompt: unknown }).prompt)
    assert.sameMembers(prompts, ["a", "b"])
  })

  it("computes an echo with log-probabilities itself", async () => {
    const from = provider.seen.length
    await client.completions.create({ model: "instruct", prompt: "a", echo: true, logprobs: 1 })
    assert.deepInclude(sent(from)[0]!.body, { echo: true, logprobs: 1 })
    const { choices } = await client.completions.create({ model: "instruct", prompt: "In France:", echo: true })
    assert.notProperty(sent(from)[1]!.body, "echo")
    assert.strictEqual(choices[0]?.text, "In France: Paris.")
  })

  it("may be another Troupe, which gets the options of the caller too", async () => {
    const from = provider.seen.length
    const body = { model: "behind", prompt: "a", keep_alive: "5m" }
    const { choices } = await client.completions.create(body)
    assert.strictEqual(choices[0]?.text, " Paris.")
    assert.deepInclude(sent(from)[0], { path: "/v1/completions" })
    assert.deepInclude(sent(from)[0]!.body, { prompt: "a", keep_alive: "300000ms" })
  })

  it("is replaced by a deployment of another dialect while it is limited", async () => {
    const { choices } = await client.completions.create({ model: "chain", prompt: "a", temperature: 0 })
    assert.strictEqual(choices[0]?.text, " lama")
  })
})

describe("providers of other dialects", () => {
  it("Ollama generates without a template", async () => {
    const from = provider.seen.length
    const { choices, usage } = await client.completions.create({
      model: "lama",
      prompt: "The",
      temperature: 0,
      max_tokens: 3
    })
    assert.deepStrictEqual(choices[0]?.text, " lama")
    assert.deepInclude(usage, { prompt_tokens: 4, completion_tokens: 1 })
    assert.deepStrictEqual(sent(from), [{
      path: "/api/generate",
      body: { model: "lama", prompt: "The", raw: true, stream: false, options: { temperature: 0, num_predict: 3 } }
    }])
  })

  it("is sent the format of the answer", async () => {
    const before = provider.seen.length
    const schema = { type: "object" }
    const body = {
      model: "lama",
      prompt: "The",
      response_format: { type: "json_schema", json_schema: { name: "a", schema } }
    }
    await client.completions.create(body)
    assert.nestedPropertyVal(sent(before)[0], "body.format.type", "object")
  })

  it("chat APIs have no text completion", async () => {
    const error = await refused(client.completions.create({ model: "claude", prompt: "The" }))
    assert.deepInclude(error, { status: 400, param: "model" })
    assert.include(error.message, "text completion")
  })
})

evaluationHarness(() => service)
