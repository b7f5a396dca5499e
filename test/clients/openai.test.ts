/** The `openai` package against the started service. */
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

let service: Service
let client: OpenAI
beforeAll(async () => {
  service = await startService()
  client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
}, 60_000)
afterAll(() => service.stop())

const question = (content: string) => [{ role: "user" as const, content }]

describe("chat.completions.create", () => {
  it("answers with exact usage", async () => {
    const { choices, model, usage } = await client.chat.completions.create({
      model: "tiny-chat",
      messages: [{ role: "system", content: "You are a helpful assistant." }, ...question("What is 7 + 5?")],
      temperature: 0
    })
    assert.strictEqual(model, "tiny-chat")
    assert.strictEqual(choices[0]?.message.content, "7 + 5 = 12.")
    assert.strictEqual(choices[0]?.finish_reason, "stop")
    assert.deepInclude(usage, { prompt_tokens: 27, completion_tokens: 9, total_tokens: 36 })
  })

  it("streams the same text, and usage in the last chunk when asked", async () => {
    const stream = await client.chat.completions.create({
      model: "tiny-chat",
      messages: question("Count to 7."),
      temperature: 0,
      stream: true,
      stream_options: { include_usage: true }
    })
    let text = ""
    let usage: OpenAI.CompletionUsage | null | undefined
    const reasons: Array<string> = []
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? ""
      if (chunk.choices[0]?.finish_reason) reasons.push(chunk.choices[0].finish_reason)
      usage = chunk.usage
    }
    assert.strictEqual(text, "1, 2, 3, 4, 5, 6, 7.")
    assert.deepStrictEqual(reasons, ["stop"])
    const buffered = await client.chat.completions.create({
      model: "tiny-chat",
      messages: question("Count to 7."),
      temperature: 0
    })
    const { prompt_tokens_details: details, ...counts } = buffered.usage!
    assert.deepInclude(usage, counts)
    assert.isAtMost(details!.cached_tokens!, counts.prompt_tokens)
  })

  it("gives the same answer for the same seed, and others for others", async () => {
    const ask = async (seed: number) => {
      const { choices } = await client.chat.completions.create({
        model: "tiny-chat",
        messages: question("Write a story about a fox."),
        temperature: 1,
        seed
      })
      return choices[0]!.message.content
    }
    const [first, again, ...others] = await Promise.all([ask(1), ask(1), ask(2), ask(3), ask(-4)])
    assert.strictEqual(first, again)
    assert.isTrue(others.some((other) => other !== first))
  })

  it("stops at max_tokens with length", async () => {
    for (const limit of [{ max_tokens: 4 }, { max_completion_tokens: 4 }]) {
      const { choices, usage } = await client.chat.completions.create({
        model: "tiny-chat",
        messages: question("Write a story about a fox."),
        temperature: 0,
        ...limit
      })
      assert.strictEqual(choices[0]?.finish_reason, "length")
      assert.strictEqual(usage?.completion_tokens, 4)
    }
  })

  it("ends before a stop sequence, as a string or a list", async () => {
    for (const stop of [" 5, 6", ["never said", " 5, 6"]]) {
      const { choices } = await client.chat.completions.create({
        model: "tiny-chat",
        messages: question("Count to 7."),
        temperature: 0,
        stop
      })
      assert.strictEqual(choices[0]?.message.content, "1, 2, 3, 4,")
      assert.strictEqual(choices[0]?.finish_reason, "stop")
    }
  })

  it("gives n choices, buffered and streamed", async () => {
    const call = { model: "tiny-chat", messages: question("What color is snow?"), temperature: 0, n: 3 }
    const buffered = await client.chat.completions.create(call)
    assert.deepStrictEqual(buffered.choices.map(({ index, message }) => [index, message.content]), [
      [0, "Snow is white."],
      [1, "Snow is white."],
      [2, "Snow is white."]
    ])
    const texts = ["", "", ""]
    for await (const chunk of await client.chat.completions.create({ ...call, stream: true })) {
      for (const { delta, index } of chunk.choices) texts[index] += delta.content ?? ""
    }
    assert.deepStrictEqual(texts, buffered.choices.map(({ message }) => message.content))
  })

  it("releases the slot when the caller disconnects in mid-stream", async () => {
    const stream = await client.chat.completions.create({
      model: "tiny-chat",
      messages: question("Write a story about a fox."),
      stream: true
    })
    for await (const _ of stream) break
    const { choices } = await client.chat.completions.create({
      model: "tiny-chat",
      messages: question("What is the opposite of loud?"),
      temperature: 0
    })
    assert.strictEqual(choices[0]?.message.content, "The opposite of loud is quiet.")
  })
})

describe("errors", () => {
  it("are the package's own classes, with code and param", async () => {
    const failure = (model: string, content: string) =>
      client.chat.completions.create({ model, messages: question(content) }).then(
        () => assert.fail("answered"),
        (error: unknown) => error
      )
    const missing = await failure("gpt-9", "Hello!")
    assert.instanceOf(missing, OpenAI.NotFoundError)
    assert.strictEqual(missing.code, "model_not_found")
    const overflow = await failure("tiny-chat", "a ".repeat(700))
    assert.instanceOf(overflow, OpenAI.BadRequestError)
    assert.deepInclude(overflow, { code: "context_length_exceeded", param: "messages" })
  })
})

describe("models.list", () => {
  it("lists the configured models", async () => {
    const { data } = await client.models.list()
    assert.deepStrictEqual(data.map(({ id }) => id), ["tiny-chat", "tiny-embed"])
  })

  it("finds a model by its name, and responds 404 for an unknown one", async () => {
    const model = await client.models.retrieve("tiny-chat")
    assert.deepInclude(model as object, {
      id: "tiny-chat",
      object: "model",
      owned_by: "troupe",
      context_length: 512,
      input_modalities: ["text"],
      output_modalities: ["text"],
      state: "loaded",
      pricing: { input: 0, output: 0 }
    })
    assert.includeMembers((model as { readonly capabilities?: Array<string> }).capabilities!, [
      "generate",
      "tokenize"
    ])
    const error = await client.models.retrieve("fake/none").then(() => undefined, (cause: unknown) => cause)
    assert.instanceOf(error, OpenAI.NotFoundError)
    assert.strictEqual(error.code, "model_not_found")
  })
})

describe("sampling", () => {
  /** Some options are not in OpenAI's own API, and not in the package's types. */
  const ask = async (content: string, options: object) => {
    const { choices } = await client.chat.completions.create({
      model: "tiny-chat",
      messages: question(content),
      temperature: 0,
      ...options
    })
    return choices[0]!.message.content!
  }

  it("top_k 1 is greedy at any temperature", async () => {
    const story = await ask("Write a story about a fox.", {})
    for (const seed of [1, 2, 3]) {
      assert.strictEqual(await ask("Write a story about a fox.", { temperature: 1.5, seed, top_k: 1 }), story)
    }
  })

  it("min_p 1 leaves only the likeliest", async () => {
    const story = await ask("Write a story about a fox.", {})
    assert.strictEqual(await ask("Write a story about a fox.", { temperature: 1.5, seed: 9, min_p: 1 }), story)
  })

  it("penalties keep an answer from repeating itself", async () => {
    const seeds = [1, 2, 3, 4, 5, 6]
    const stories = (penalty: object) =>
      Promise.all(seeds.map((seed) => ask("Write a story about a fox.", { temperature: 1.5, seed, ...penalty })))
    const plain = await stories({})
    for (const penalty of [{ frequency_penalty: 2 }, { presence_penalty: 2 }, { repeat_penalty: 5 }]) {
      assert.notDeepEqual(await stories(penalty), plain, JSON.stringify(penalty))
    }
    assert.deepStrictEqual(await stories({ frequency_penalty: 0, presence_penalty: 0, repeat_penalty: 1 }), plain)
    const commas = (text: string) => text.split(",").length
    assert.isBelow(
      commas(await ask("Count to 7.", { max_tokens: 30, repeat_penalty: 10 })),
      commas(await ask("Count to 7.", { max_tokens: 30 }))
    )
  })

  it("logit_bias bans and forces tokens", async () => {
    const all = Object.fromEntries(Array.from({ length: 1024 }, (_, id) => [String(id), -100]))
    const { 20: _, ...others } = all
    const forced = await ask("What color is snow?", { max_tokens: 3, logit_bias: others })
    const again = await ask("What color is snow?", { max_tokens: 6, logit_bias: others })
    assert.strictEqual(again, forced + forced)
  })

  it("rejects a token outside the vocabulary by its path", async () => {
    const error = await ask("Hello!", { logit_bias: { 5000: 1 } }).then(() => undefined, (cause: unknown) => cause)
    assert.instanceOf(error, OpenAI.BadRequestError)
    assert.strictEqual(error.param, "logit_bias.5000")
  })
})
