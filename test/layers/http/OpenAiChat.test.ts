import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { Sse } from "effect/encoding"
import * as fc from "fast-check"
import type { ChatCall, Envelope } from "../../../src/layers/http/OpenAiChat.ts"
import * as OpenAiChat from "../../../src/layers/http/OpenAiChat.ts"
import type { Event, Request } from "../../../src/services/Inference.ts"
import type { InvalidRequest } from "../../../src/services/InferenceError.ts"
import * as OpenAi from "../../../src/services/OpenAi.ts"

const messages = [{ role: "user", content: "Hello" }] as const

/** The decoded call for a body with these fields besides the model and its messages. */
const decoded = (fields: object): ChatCall =>
  Result.getOrThrow(OpenAiChat.decode({ model: "tiny-chat", messages, ...fields }))

const only = (fields: object): Request => decoded(fields).requests[0]

const refusal = (body: unknown): InvalidRequest =>
  Result.getOrThrowWith(Result.flip(OpenAiChat.decode(body)), () => new Error("The body was taken."))

const refused = (fields: object): InvalidRequest => refusal({ model: "tiny-chat", messages, ...fields })

describe("OpenAiChat", () => {
  describe("decode", () => {
    it("of the least body leaves every option to its default", () => {
      assert.deepStrictEqual(decoded({}), {
        model: "tiny-chat",
        requests: [{ model: "tiny-chat", messages }],
        stream: false,
        includeUsage: false
      })
    })

    it("takes every field", () => {
      assert.deepStrictEqual(
        decoded({
          stream: true,
          stream_options: { include_usage: true },
          temperature: 0.5,
          top_p: 0.9,
          seed: 42,
          top_k: 40,
          min_p: 0.1,
          repeat_penalty: 1.1,
          presence_penalty: 0.5,
          frequency_penalty: -0.5,
          logit_bias: { 7: -100 },
          max_tokens: 100,
          stop: ["a", "b"],
          n: 1
        }),
        {
          model: "tiny-chat",
          requests: [
            {
              model: "tiny-chat",
              messages,
              temperature: 0.5,
              topP: 0.9,
              seed: 42,
              topK: 40,
              minP: 0.1,
              repeatPenalty: 1.1,
              presencePenalty: 0.5,
              frequencyPenalty: -0.5,
              logitBias: { 7: -100 },
              maxTokens: 100,
              stop: ["a", "b"]
            }
          ],
          stream: true,
          includeUsage: true
        }
      )
    })

    it("top_k 0 means all, as it does elsewhere", () => {
      assert.deepStrictEqual(decoded({ top_k: 0 }), decoded({}))
    })

    it("null means what leaving the field out means", () => {
      const fields = [
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "seed",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "n",
        "tools",
        "tool_choice",
        "functions",
        "function_call",
        "response_format",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "presence_penalty",
        "frequency_penalty",
        "modalities",
        "audio",
        "prediction",
        "web_search_options"
      ]
      assert.deepStrictEqual(decoded(Object.fromEntries(fields.map((field) => [field, null]))), decoded({}))
    })

    it("null does not stand for a field that is required", () => {
      assert.strictEqual(refused({ model: null }).path, "model")
      assert.strictEqual(refused({ messages: null }).path, "messages")
    })

    it("passes over fields that do not change the answer", () => {
      assert.deepStrictEqual(
        decoded({ user: "me", metadata: { a: "b" }, store: false, service_tier: "auto" }),
        decoded({})
      )
    })

    it("keeps messages in their order, developer meaning system", () => {
      const conversation = [
        { role: "developer", content: "Be brief." },
        { role: "system", content: "Be kind." },
        { role: "user", content: "Hello" },
        { role: "assistant", content: "Hi" },
        { role: "user", content: "Bye" }
      ]
      assert.deepStrictEqual(only({ messages: conversation }).messages, [
        { role: "system", content: "Be brief." },
        { role: "system", content: "Be kind." },
        { role: "user", content: "Hello" },
        { role: "assistant", content: "Hi" },
        { role: "user", content: "Bye" }
      ])
    })

    it("joins the texts of content parts", () => {
      const content = [{ type: "text", text: "One, " }, { type: "text", text: "two" }]
      assert.deepStrictEqual(only({ messages: [{ role: "user", content }] }).messages, [
        { role: "user", content: "One, two" }
      ])
    })

    it("one stop text is a list of one", () => {
      assert.deepStrictEqual(only({ stop: "\n" }).stop, ["\n"])
    })

    it("max_completion_tokens goes before max_tokens", () => {
      assert.strictEqual(only({ max_tokens: 10, max_completion_tokens: 20 }).maxTokens, 20)
      assert.strictEqual(only({ max_completion_tokens: 30 }).maxTokens, 30)
      assert.strictEqual(only({ max_tokens: 10, max_completion_tokens: null }).maxTokens, 10)
    })

    it.each([
      ["temperature", 0, 2, [-0.1, 2.1, "1"]],
      ["top_p", 0, 1, [-0.1, 1.1, "1"]],
      ["max_tokens", 1, 1_000_000, [0, 1_000_001, 1.5, "1"]],
      ["max_completion_tokens", 1, 1_000_000, [0, 1_000_001, 1.5, "1"]],
      ["n", 1, 128, [0, 129, 1.5, "1"]],
      ["seed", Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, [1.5, "1"]]
    ])("%s is taken from %d to %d and refused by its name otherwise", (field, least, most, others) => {
      assert.isTrue(Result.isSuccess(OpenAiChat.decode({ model: "m", messages, [field]: least })))
      assert.isTrue(Result.isSuccess(OpenAiChat.decode({ model: "m", messages, [field]: most })))
      for (const value of others) assert.strictEqual(refused({ [field]: value }).path, field)
    })

    it.each<[path: string, fields: object]>([
      ["model", { model: "" }],
      ["model", { model: 5 }],
      ["messages[0]", { messages: [] }],
      ["messages[1].role", { messages: [...messages, { role: "robot", content: "x" }] }],
      ["messages[0].content", { messages: [{ role: "user" }] }],
      ["messages[0].content", { messages: [{ role: "user", content: 5 }] }],
      ["messages[0].content[1].type", {
        messages: [{
          role: "user",
          content: [{ type: "text", text: "What is this?" }, { type: "image_url", image_url: { url: "x" } }]
        }]
      }],
      ["stream", { stream: "yes" }],
      ["stream_options.include_usage", { stream: true, stream_options: { include_usage: "yes" } }],
      ["stream_options", { stream_options: { include_usage: true } }],
      ["stream_options", { stream: false, stream_options: {} }],
      ["stop", { stop: "" }],
      ["stop", { stop: 5 }],
      ["stop[1]", { stop: ["a", ""] }],
      ["stop", { stop: Array.from({ length: 17 }, (_, index) => `${index}`) }]
    ])("refuses by the path %s", (path, fields) => {
      assert.strictEqual(refused(fields).path, path)
    })

    it.each([null, undefined, "text", 5, true, [[]]])("a body that is %j is refused as a whole", (body) => {
      const { detail, path } = refusal(body)
      assert.isUndefined(path)
      assert.strictEqual(detail, "Expected the body to be a JSON object")
    })

    it("of several problems, the first is the path and all are in the text", () => {
      const { message, path } = refusal({ model: "", messages: [], temperature: 9, stop: [""], n: 0 })
      assert.strictEqual(path, "model")
      for (const field of ["model", "messages[0]", "temperature", "stop[0]", "n"]) assert.include(message, `${field}: `)
      assert.notInclude(message, "\n")
    })

    it("a field that is not supported hides no other problem", () => {
      const { message } = refused({ tools: [{}], audio: {}, temperature: 9 })
      for (const field of ["tools", "audio", "temperature"]) assert.include(message, field)
    })
  })

  describe("fields that are not supported", () => {
    it.each<[field: string, asksForSomething: ReadonlyArray<unknown>, asksForNothing: ReadonlyArray<unknown>]>([
      ["tools", [[{ type: "function", function: { name: "f" } }], "f", 1], [[]]],
      ["tool_choice", ["required", { type: "function" }], ["none", "auto"]],
      ["functions", [[{ name: "f" }], "f"], [[]]],
      ["function_call", [{ name: "f" }, "f"], ["none", "auto"]],
      ["response_format", [{ type: "json_object" }, { type: "json_schema", json_schema: {} }, "text", 1], [
        { type: "text" }
      ]],
      ["logprobs", [true, "yes"], [false]],
      ["top_logprobs", [1, "1"], [0]],
      ["modalities", [["text", "audio"], "text"], [["text"], []]],
      ["audio", [{ voice: "alloy" }, {}], []],
      ["prediction", [{ type: "content", content: "x" }], []],
      ["web_search_options", [{}], []]
    ])("%s is refused by its name unless it asks for nothing", (field, asksForSomething, asksForNothing) => {
      for (const value of asksForSomething) {
        const { detail, path } = refused({ [field]: value })
        assert.strictEqual(path, field)
        assert.include(detail, "not supported")
      }
      for (const value of asksForNothing) assert.deepStrictEqual(decoded({ [field]: value }), decoded({}))
    })

    it("tool calls within a message are refused by their path", () => {
      const call = { id: "1", type: "function", function: { name: "f", arguments: "{}" } }
      const conversation = [...messages, { role: "assistant", content: "", tool_calls: [call] }]
      assert.strictEqual(refused({ messages: conversation }).path, "messages[1].tool_calls")
    })
  })

  describe("choices", () => {
    it("n asks for as many requests, which differ in nothing but their seeds", () => {
      const { requests } = decoded({ n: 3, seed: 7, temperature: 1 })
      assert.deepStrictEqual(requests.map(({ seed }) => seed), [7, 8, 9])
      for (const request of requests) assert.deepStrictEqual({ ...request, seed: 7 }, requests[0])
    })

    it("without a seed, none has one", () => {
      assert.deepStrictEqual(decoded({ n: 2 }).requests.map((request) => "seed" in request), [false, false])
    })

    it("seeds are whole numbers of 32 bits that differ from choice to choice", () => {
      const seeds = fc.oneof(
        fc.maxSafeInteger(),
        fc.constantFrom(0, -1, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER)
      )
      fc.assert(fc.property(seeds, fc.integer({ min: 1, max: 128 }), (seed, n) => {
        const given = decoded({ seed, n }).requests.map((request) => request.seed!)
        assert.strictEqual(given.length, n)
        assert.isTrue(given.every((seed) => seed >>> 0 === seed))
        assert.strictEqual(new Set(given).size, n)
      }))
    })

    it("the same seed gives the same seeds", () => {
      fc.assert(fc.property(fc.maxSafeInteger(), (seed) => {
        assert.deepStrictEqual(decoded({ seed, n: 3 }), decoded({ seed, n: 3 }))
        assert.strictEqual(decoded({ seed }).requests[0].seed, Number(BigInt.asUintN(32, BigInt(seed))))
      }))
    })
  })

  describe("frames", () => {
    const Chunk = Schema.fromJsonString(OpenAi.ChatChunk)
    type Chunk = typeof OpenAi.ChatChunk.Type

    const envelope: Envelope = { id: "chatcmpl-1", created: 1_700_000_000, model: "tiny-chat", includeUsage: false }

    /** The data of every event, by an SSE parser that is fed pieces of this length. */
    const parse = (text: string, pieceLength: number): ReadonlyArray<string> => {
      const data: Array<string> = []
      const parser = Sse.makeParser((event) => {
        if (event._tag === "Event") data.push(event.data)
      })
      for (let at = 0; at < text.length; at += pieceLength) parser.feed(text.slice(at, at + pieceLength))
      return data
    }

    const chunksOf = (data: ReadonlyArray<string>): ReadonlyArray<Chunk> =>
      data.slice(0, -1).map((text) => Schema.decodeSync(Chunk, { onExcessProperty: "error" })(text))

    const text = (text: string): Event => ({ type: "text", text, tokens: 1 })

    const finish = (reason: "stop" | "length", promptTokens = 3, completionTokens = 5): Event => ({
      type: "finish",
      reason,
      usage: { promptTokens, completionTokens, cachedTokens: 0 }
    })

    /** The frames of answers whose events come in groups, one group of each answer in turn. */
    const encode = (envelope: Envelope, answers: ReadonlyArray<ReadonlyArray<ReadonlyArray<Event>>>): string => {
      const encoder = OpenAiChat.makeFrameEncoder(envelope)
      const turns = Math.max(...answers.map((groups) => groups.length))
      let out = ""
      for (let turn = 0; turn < turns; turn++) {
        answers.forEach((groups, choice) => {
          const group = groups[turn]
          if (group !== undefined) out += encoder.events(choice, group)
        })
      }
      return out + encoder.end()
    }

    const anyText = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.string({ unit: fc.nat({ max: 0xffff }).map((unit) => String.fromCharCode(unit)) }),
      fc.array(
        fc.constantFrom(
          "data: ",
          "\n",
          "\r",
          "\r\n",
          "\n\n",
          "\"",
          "\\",
          ":",
          "event: x",
          "[DONE]",
          "\u2028",
          "é",
          "😀"
        )
      )
        .map((parts) => parts.join("")),
      fc.constant("")
    )

    /** Texts and a finish, in groups of any lengths, empty ones among them. */
    const answer = fc.record({
      texts: fc.array(anyText, { maxLength: 8 }),
      reason: fc.constantFrom("stop" as const, "length" as const),
      completionTokens: fc.nat({ max: 1000 }),
      lengths: fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 5 })
    }).map(({ completionTokens, lengths, reason, texts }) => {
      const events = [...texts.map(text), finish(reason, 3, completionTokens)]
      const groups: Array<ReadonlyArray<Event>> = []
      for (let at = 0, index = 0; at < events.length; index++) {
        const length = lengths[index % lengths.length]! || (index % 2)
        groups.push(events.slice(at, at + length))
        at += length
      }
      return { groups, text: texts.join(""), reason, completionTokens }
    })

    const answers = fc.array(answer, { minLength: 1, maxLength: 3 })
    const pieceLength = fc.integer({ min: 1, max: 50 })

    it("parsed back, give every answer's text, whichever way its events were grouped and the frames cut", () => {
      fc.assert(fc.property(answers, pieceLength, (answers, pieceLength) => {
        const data = parse(encode(envelope, answers.map(({ groups }) => groups)), pieceLength)
        const received = answers.map(() => "")
        for (const { choices } of chunksOf(data)) {
          for (const { delta, index } of choices) received[index] += delta.content ?? ""
        }
        assert.deepStrictEqual(received, answers.map(({ text }) => text))
      }))
    })

    it("begin each choice with its role, end it with its reason, and end all with [DONE]", () => {
      fc.assert(fc.property(answers, fc.boolean(), (answers, includeUsage) => {
        const data = parse(encode({ ...envelope, includeUsage }, answers.map(({ groups }) => groups)), 1000)
        const choices = chunksOf(data).flatMap(({ choices }) => choices)
        answers.forEach(({ reason }, index) => {
          const own = choices.filter((choice) => choice.index === index)
          assert.deepStrictEqual(
            own.map(({ delta }) => delta.role),
            own.map((_, at) => at === 0 ? "assistant" : undefined)
          )
          assert.deepStrictEqual(
            own.map(({ finish_reason }) => finish_reason),
            own.map((_, at) => at === own.length - 1 ? reason : null)
          )
          assert.isAtLeast(own.length, 2)
        })
        assert.strictEqual(data.at(-1), "[DONE]")
        assert.strictEqual(data.filter((text) => text === "[DONE]").length, 1)
      }))
    })

    it("carry usage in the last chunk if it was asked for, and nowhere otherwise", () => {
      fc.assert(fc.property(answers, (answers) => {
        const groups = answers.map(({ groups }) => groups)
        const without = parse(encode(envelope, groups), 1000)
        assert.isTrue(without.every((text) => text === "[DONE]" || !("usage" in (JSON.parse(text) as object))))

        const chunks = chunksOf(parse(encode({ ...envelope, includeUsage: true }, groups), 1000))
        const completion_tokens = answers.reduce((sum, answer) => sum + answer.completionTokens, 0)
        assert.isTrue(chunks.slice(0, -1).every(({ usage }) => usage === null))
        assert.deepInclude(chunks.at(-1), {
          choices: [],
          usage: { prompt_tokens: 3, completion_tokens, total_tokens: 3 + completion_tokens }
        })
      }))
    })

    it("carry the envelope in every chunk, whatever its texts are", () => {
      const envelopes = fc.record({
        id: anyText,
        created: fc.nat(),
        model: anyText,
        includeUsage: fc.boolean()
      })
      fc.assert(fc.property(envelopes, answer, (envelope, { groups }) => {
        const { created, id, model } = envelope
        for (const chunk of chunksOf(parse(encode(envelope, [groups]), 1000))) {
          assert.deepInclude(chunk, { id, object: "chat.completion.chunk", created, model })
        }
      }))
    })

    it("are one line of data each", () => {
      fc.assert(fc.property(answers, (answers) => {
        const frames = encode(envelope, answers.map(({ groups }) => groups)).split("\n\n")
        assert.strictEqual(frames.pop(), "")
        assert.isTrue(frames.every((frame) => /^data: [^\r\n]+$/.test(frame)))
      }))
    })

    it("texts that came together leave in one frame", () => {
      const data = parse(encode(envelope, [[[text("a"), text("b"), text("c")], [finish("stop")]]]), 1000)
      assert.deepStrictEqual(
        chunksOf(data).flatMap(({ choices }) => choices.map(({ delta, finish_reason }) => [delta, finish_reason])),
        [
          [{ role: "assistant", content: "" }, null],
          [{ content: "abc" }, null],
          [{}, "stop"]
        ]
      )
    })

    it("of an error are one frame with the error's body", () => {
      const body = { error: { message: "It\n\"failed\".", type: "server_error", param: null, code: "engine_failed" } }
      assert.deepStrictEqual(parse(OpenAiChat.encodeError(body), 1).map((text) => JSON.parse(text) as unknown), [body])
    })
  })

  describe("whole answers", () => {
    const answer = (text: string, completionTokens: number, finishReason: "stop" | "length" = "stop") => ({
      text,
      toolCalls: [],
      finishReason,
      usage: { promptTokens: 4, completionTokens, cachedTokens: 0 },
      deployment: "tiny-chat#0"
    })
    const envelope: Envelope = { id: "chatcmpl-1", created: 1_700_000_000, model: "tiny-chat", includeUsage: false }

    it("hold the text, the reason and the usage", () => {
      assert.deepStrictEqual(OpenAiChat.encodeAnswers(envelope, [answer("Hi", 2)]), {
        id: "chatcmpl-1",
        object: "chat.completion",
        created: 1_700_000_000,
        model: "tiny-chat",
        choices: [{
          index: 0,
          message: { role: "assistant", content: "Hi", refusal: null },
          logprobs: null,
          finish_reason: "stop"
        }],
        usage: { prompt_tokens: 4, completion_tokens: 2, total_tokens: 6 }
      })
    })

    it("of several choices count the prompt once and every answer's tokens", () => {
      const { choices, usage } = OpenAiChat.encodeAnswers(envelope, [answer("a", 2), answer("b", 3, "length")])
      assert.deepStrictEqual(usage, { prompt_tokens: 4, completion_tokens: 5, total_tokens: 9 })
      assert.deepStrictEqual(
        choices.map(({ finish_reason, index, message }) => [index, message.content, finish_reason]),
        [[0, "a", "stop"], [1, "b", "length"]]
      )
    })
  })
})
