import { assert, describe, it } from "@effect/vitest"
import { Duration, Result } from "effect"
import * as fc from "fast-check"
import type { ChatCall } from "../../../src/dialects/openai/DecodeRequest.ts"
import * as DecodeRequest from "../../../src/dialects/openai/DecodeRequest.ts"
import * as ExactNumber from "../../../src/domain/ExactNumber.ts"
import type { Request } from "../../../src/domain/Inference.ts"
import type { InvalidRequest } from "../../../src/domain/InferenceError.ts"

const messages = [{ role: "user", content: "Hello" }] as const

const toolCall = { id: "a", type: "function", function: { name: "get_time", arguments: "{}" } }

const tool = (name: string) => ({
  type: "function",
  function: { name, description: "Tells.", parameters: { type: "object" } }
})

/** The decoded call for a body with these fields besides the model and its messages, without the body itself. */
const decoded = (fields: object): ChatCall => {
  const { requests: [first, ...others], together: _, ...call } = Result.getOrThrow(
    DecodeRequest.decode({ model: "tiny-chat", messages, ...fields })
  )
  const without = ({ source, ...request }: Request): Request =>
    source?.unknownFields === undefined ? request : { ...request, source }
  return { ...call, requests: [without(first), ...others.map(without)] }
}

const only = (fields: object): Request => decoded(fields).requests[0]

/** Decodes a body with this text as its seed. */
const exactly = (seed: string, n = 1) => {
  const text = `{"model":"m","messages":[{"role":"user","content":"Hi"}],"n":${n},"seed":${seed}}`
  return DecodeRequest.decode(JSON.parse(text), {}, ExactNumber.parse(text))
}

const refusal = (body: unknown): InvalidRequest =>
  Result.getOrThrowWith(Result.flip(DecodeRequest.decode(body)), () => new Error("The body was taken."))

const refused = (fields: object): InvalidRequest => refusal({ model: "tiny-chat", messages, ...fields })

describe("DecodeRequest", () => {
  describe("decode", () => {
    it("leaves every option of a minimal body to its default", () => {
      assert.deepStrictEqual(decoded({}), {
        model: "tiny-chat",
        requests: [{ model: "tiny-chat", messages }],
        stream: false,
        includeUsage: false,
        parallelToolCalls: true
      })
    })

    it("decodes every field", () => {
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
          n: 1,
          tools: [tool("get_time")],
          tool_choice: "required",
          parallel_tool_calls: false,
          response_format: { type: "json_object" },
          logprobs: true,
          top_logprobs: 5,
          keep_alive: "5m",
          priority: "high"
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
              stop: ["a", "b"],
              tools: [{ name: "get_time", description: "Tells.", parameters: { type: "object" } }],
              toolChoice: "required",
              parallelToolCalls: false,
              format: { type: "json_object" },
              logprobs: 5,
              keepAlive: Duration.minutes(5),
              priority: "high"
            }
          ],
          stream: true,
          includeUsage: true,
          parallelToolCalls: false
        }
      )
    })

    it("treats top_k 0 and -1 as no limit", () => {
      assert.deepStrictEqual(decoded({ top_k: 0 }), decoded({}))
      assert.deepStrictEqual(decoded({ top_k: -1 }), decoded({}))
    })

    it("treats null as a missing field", () => {
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
        "web_search_options",
        "parallel_tool_calls",
        "keep_alive",
        "priority",
        "user",
        "safety_identifier"
      ]
      assert.deepStrictEqual(decoded(Object.fromEntries(fields.map((field) => [field, null]))), decoded({}))
    })

    it("rejects null for a required field", () => {
      assert.strictEqual(refused({ model: null }).path, "model")
      assert.strictEqual(refused({ messages: null }).path, "messages")
    })

    it("passes unknown fields on with their paths, and marks the optional ones", () => {
      const conversation = [
        { role: "user", name: "Ann", content: [{ type: "text", text: "Hi", cache_control: { type: "ephemeral" } }] },
        { role: "assistant", content: null, refusal: null, tool_calls: [{ index: 0, ...toolCall }] },
        { role: "tool", tool_call_id: "a", content: "12:00", mood: "fine" }
      ]
      const { messages, source } = only({
        messages: conversation,
        metadata: { a: "b" },
        reasoning_effort: "low",
        service_tier: "auto",
        store: false,
        seed_of_tomorrow: null,
        tools: [{ type: "function", function: { name: "get_time", strict: true } }],
        response_format: { type: "json_schema", json_schema: { name: "time", schema: {} } }
      })
      const found = source?.unknownFields?.map(({ optional, path }) =>
        `${path.join(".")}${optional === true ? "?" : ""}`
      )
      assert.strictEqual(source?.dialect, "openai")
      assert.sameMembers([...found ?? []], [
        "metadata?",
        "reasoning_effort?",
        "service_tier?",
        "store?",
        "messages.0.name?",
        "messages.0.content.0.cache_control?",
        "messages.1.tool_calls.0.index?",
        "messages.2.mood",
        "tools.0.function.strict?",
        "response_format.json_schema.name?"
      ])
      assert.deepStrictEqual(messages[0]?.content, "Hi")
    })

    it("decodes images, by URL and as data, with their detail", () => {
      const content = [
        { type: "text", text: "What?" },
        { type: "image_url", image_url: { url: "https://example.com/cat.png", detail: "high" } },
        { type: "image_url", image_url: { url: "data:image/PNG;charset=x;base64,AAAA", detail: null } }
      ]
      assert.deepStrictEqual(only({ messages: [{ role: "user", content }] }).messages[0]?.content, [
        { type: "text", text: "What?" },
        { type: "image", source: { type: "url", url: "https://example.com/cat.png" }, detail: "high" },
        { type: "image", source: { type: "base64", mediaType: "image/png", data: "AAAA" } }
      ])
    })

    it("keeps messages in their order, with developer as system", () => {
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

    it("accepts one stop sequence as a list of one", () => {
      assert.deepStrictEqual(only({ stop: "\n" }).stop, ["\n"])
    })

    it("prefers max_completion_tokens to max_tokens", () => {
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
    ])("accepts %s from %d to %d and rejects other values by its name", (field, least, most, others) => {
      assert.isTrue(Result.isSuccess(DecodeRequest.decode({ model: "m", messages, [field]: least })))
      assert.isTrue(Result.isSuccess(DecodeRequest.decode({ model: "m", messages, [field]: most })))
      for (const value of others) assert.strictEqual(refused({ [field]: value }).path, field)
    })

    it.each<[path: string, fields: object]>([
      ["model", { model: "" }],
      ["model", { model: 5 }],
      ["messages", { messages: [] }],
      ["messages[1].role", { messages: [...messages, { role: "robot", content: "x" }] }],
      ["messages[0].content", { messages: [{ role: "user" }] }],
      ["messages[0].content", { messages: [{ role: "user", content: 5 }] }],
      ["messages[0].content[1].text", {
        messages: [{ role: "user", content: [{ type: "text", text: "What is this?" }, { type: "text" }] }]
      }],
      ["logit_bias.word", { logit_bias: { word: 1 } }],
      ["logit_bias.-1", { logit_bias: { "-1": 1 } }],
      ["stream", { stream: "yes" }],
      ["stream_options.include_usage", { stream: true, stream_options: { include_usage: "yes" } }],
      ["stream_options", { stream_options: { include_usage: true } }],
      ["stream_options", { stream: false, stream_options: {} }],
      ["stop", { stop: "" }],
      ["stop", { stop: 5 }],
      ["stop[1]", { stop: ["a", ""] }],
      ["stop", { stop: Array.from({ length: 17 }, (_, index) => `${index}`) }]
    ])("rejects by the path %s", (path, fields) => {
      assert.strictEqual(refused(fields).path, path)
    })

    it.each([null, undefined, "text", 5, true, [[]]])("rejects the body %j", (body) => {
      const { detail, path } = refusal(body)
      assert.isUndefined(path)
      assert.strictEqual(detail, "The body must be a JSON object")
    })

    it("reports several problems with the path of the first", () => {
      const { message, path } = refusal({ model: "", messages: [], temperature: 9, stop: [""], n: 0 })
      assert.strictEqual(path, "model")
      for (const field of ["model", "messages", "temperature", "stop[0]", "n"]) assert.include(message, `${field}: `)
      assert.notInclude(message, "\n")
    })
  })

  describe("a field that only deployments of the dialect accept", () => {
    /** The paths of unknown fields, with `?` for optional ones. */
    const foundIn = (fields: object) =>
      (only(fields).source?.unknownFields ?? []).map(({ optional, path }) =>
        `${path.join(".")}${optional === true ? "?" : ""}`
      )

    it.each<[field: string, effective: ReadonlyArray<unknown>, neutral: ReadonlyArray<unknown>]>([
      ["functions", [[{ name: "f" }], "f"], [[]]],
      ["function_call", [{ name: "f" }, "f"], ["none", "auto"]],
      ["modalities", [["text", "audio"], "text"], [["text"], []]],
      ["audio", [{ voice: "alloy" }, {}], []]
    ])("%s is required unless its value has no effect", (field, effective, neutral) => {
      for (const value of effective) assert.deepStrictEqual(foundIn({ [field]: value }), [field])
      for (const value of neutral) assert.deepStrictEqual(foundIn({ [field]: value }), [`${field}?`])
    })

    it.each(["reasoning", "reasoning_content", "reasoning_details", "refusal"])(
      "an assistant's message may have %s instead of a text, which every deployment may ignore",
      (field) => {
        for (const content of [{}, { content: null }]) {
          const body = { messages: [...messages, { role: "assistant", ...content, [field]: "t" }, ...messages] }
          assert.deepStrictEqual(foundIn(body), [`messages.1.${field}?`])
          const thoughts = field.startsWith("reasoning") && field !== "reasoning_details" ? { thoughts: "t" } : {}
          assert.deepStrictEqual(only(body).messages[1], { role: "assistant", content: "", ...thoughts })
          assert.strictEqual(
            refused({ messages: [{ role: "user", ...content, [field]: "t" }] }).path,
            "messages[0].content"
          )
        }
      }
    )

    it.each<[string, object]>([
      ["reasoning_content", { content: "A", reasoning_content: "Hm." }],
      ["reasoning", { content: "A", reasoning: "Hm." }],
      ["reasoning_details", {
        content: "A",
        reasoning_details: [
          { type: "reasoning.text", text: "H" },
          { type: "reasoning.encrypted", data: "x" },
          { type: "reasoning.text", text: "m." }
        ]
      }],
      ["parts", {
        content: [{ type: "thinking", thinking: [{ type: "text", text: "Hm." }] }, { type: "text", text: "A" }]
      }]
    ])("the thoughts of an assistant in %s are those of the message, and of no other role's", (_, fields) => {
      const body = { messages: [...messages, { role: "assistant", ...fields }, ...messages] }
      assert.deepStrictEqual(only(body).messages[1], { role: "assistant", content: "A", thoughts: "Hm." })
      assert.isTrue(foundIn(body).every((path) => path.endsWith("?")), String(foundIn(body)))
      assert.notProperty(only({ messages: [{ role: "user", ...fields }] }).messages[0], "thoughts")
    })

    it("may be a part, tool, call, choice or format of another type, reported by its path", () => {
      const content = [
        { type: "text", text: "What is this?" },
        { type: "input_audio", input_audio: { data: "aGk=", format: "wav" } },
        { type: "file", file: { file_id: "file-1" } }
      ]
      const custom = { id: "c", type: "custom", custom: { name: "code", input: "1" } }
      const fields = {
        messages: [
          { role: "user", content },
          { role: "assistant", content: [{ type: "refusal", refusal: "No." }] },
          { role: "assistant", content: "", function_call: { name: "f", arguments: "" } },
          { role: "assistant", audio: { id: "audio_1" } },
          { role: "assistant", tool_calls: [custom] },
          { role: "tool", tool_call_id: "c", content: "1" }
        ],
        tools: [{ type: "custom", custom: { name: "code" } }],
        tool_choice: { type: "custom", custom: { name: "code" } },
        response_format: { type: "grammar", grammar: "root ::= x" }
      }
      assert.sameMembers(foundIn(fields), [
        "messages.0.content.1",
        "messages.0.content.2",
        "messages.1.content.0?",
        "messages.2.function_call",
        "messages.3.audio",
        "messages.4.tool_calls.0",
        "tools.0",
        "tool_choice",
        "response_format"
      ])
      assert.deepStrictEqual(only(fields).messages.map(({ content }) => content), [
        "What is this?",
        "",
        "",
        "",
        "",
        "1"
      ])
    })

    it("is passed on in the original body", () => {
      const body = { model: "m", messages, n: null, a_field_of_tomorrow: [1, { er: null }] }
      const [{ source }] = Result.getOrThrow(DecodeRequest.decode(body)).requests
      assert.strictEqual<unknown>(source?.body, body)
    })
  })

  describe("options without an effect", () => {
    it.each([
      { tools: [] },
      { tool_choice: "none" },
      { tool_choice: "auto" },
      { tools: [], tool_choice: "none" },
      { parallel_tool_calls: true },
      { response_format: { type: "text" } },
      { logprobs: false },
      { logprobs: false, top_logprobs: 0 },
      { user: "" }
    ])("%j is the same as a missing option", (fields) => {
      assert.deepStrictEqual(decoded(fields), decoded({}))
    })
  })

  describe("tools", () => {
    const call = (id: string, name = "get_time") => ({
      id,
      type: "function",
      function: { name, arguments: "{\"city\":\"Oslo\"}" }
    })
    const calling = (...ids: ReadonlyArray<string>) => ({
      role: "assistant",
      content: null,
      refusal: null,
      tool_calls: ids.map((id) => call(id))
    })
    const result = (tool_call_id: string, content: unknown = "12:00") => ({ role: "tool", tool_call_id, content })

    it("require only a name, and accept null for other fields", () => {
      const bare = { type: "function", function: { name: "f", description: null, parameters: null, strict: null } }
      assert.deepStrictEqual(only({ tools: [bare] }).tools, [{ name: "f" }])
    })

    it("keep calls and their results in the conversation", () => {
      const conversation = [...messages, calling("a", "b"), result("b"), result("a", [{ type: "text", text: "1" }])]
      assert.deepStrictEqual(only({ messages: conversation }).messages.slice(1), [
        {
          role: "assistant",
          content: "",
          toolCalls: [
            { id: "a", name: "get_time", arguments: "{\"city\":\"Oslo\"}" },
            { id: "b", name: "get_time", arguments: "{\"city\":\"Oslo\"}" }
          ]
        },
        { role: "tool", content: "12:00", toolCallId: "b" },
        { role: "tool", content: "1", toolCallId: "a" }
      ])
    })

    it("reject a choice that is not among the tools", () => {
      const chosen = (name: string) => ({ tools: [tool("f")], tool_choice: { type: "function", function: { name } } })
      assert.deepStrictEqual(only(chosen("f")).toolChoice, { name: "f" })
      assert.strictEqual(refused(chosen("g")).path, "tool_choice.function.name")
    })

    it.each<[path: string, fields: object]>([
      ["tool_choice", { tool_choice: "required" }],
      ["tool_choice", { tools: [], tool_choice: { type: "function", function: { name: "f" } } }],
      ["tool_choice", { tools: [tool("f")], tool_choice: "sometimes" }],
      ["tools[0].function.name", { tools: [tool("two words")] }],
      ["tools[1].function.name", { tools: [tool("f"), tool("f")] }],
      ["tools[0].function", { tools: [{ type: "function", name: "f" }] }],
      ["tools[0].function.parameters", { tools: [{ type: "function", function: { name: "f", parameters: "any" } }] }],
      ["tools", { tools: "f" }],
      ["messages[1].tool_calls[0].function.arguments", {
        messages: [...messages, {
          role: "assistant",
          tool_calls: [{ id: "a", type: "function", function: { name: "f", arguments: {} } }]
        }]
      }],
      ["messages[0].tool_calls", { messages: [{ role: "user", content: "Hello", tool_calls: [call("a")] }] }],
      ["messages[1].content", { messages: [...messages, { role: "assistant", content: null }] }],
      ["messages[1].content", { messages: [...messages, { role: "assistant", content: null, tool_calls: [] }] }],
      ["messages[2].tool_call_id", { messages: [...messages, calling("a"), { role: "tool", content: "12:00" }] }],
      ["messages[2].tool_call_id", { messages: [...messages, calling("a"), result("b")] }],
      ["messages[1].tool_call_id", { messages: [...messages, result("a"), calling("a")] }],
      ["messages[2].content", { messages: [...messages, calling("a"), result("a", null)] }]
    ])("rejects by the path %s", (path, fields) => {
      assert.strictEqual(refused(fields).path, path)
    })

    it("require a preceding call for every result", () => {
      const ids = fc.constantFrom("a", "b", "c")
      const turns = fc.array(
        fc.oneof(ids.map(result), fc.array(ids, { minLength: 1, maxLength: 2 }).map((ids) => calling(...ids))),
        { maxLength: 8 }
      )
      fc.assert(fc.property(turns, (turns) => {
        const firstWrong = turns.findIndex((turn, index) =>
          "tool_call_id" in turn &&
          !turns.slice(0, index).some((earlier) =>
            "tool_calls" in earlier && earlier.tool_calls.some(({ id }) => id === turn.tool_call_id)
          )
        )
        const decoded = DecodeRequest.decode({ model: "m", messages: [...messages, ...turns] })
        const path = Result.isFailure(decoded) ? decoded.failure.path : undefined
        assert.strictEqual(path, firstWrong < 0 ? undefined : `messages[${firstWrong + 1}].tool_call_id`)
      }))
    })
  })

  describe("response_format", () => {
    const schema = { type: "object", properties: { name: { type: ["string", "null"], default: null } } }

    it("keeps the schema of json_schema unchanged, including nulls", () => {
      for (const strict of [true, false, null]) {
        const response_format = { type: "json_schema", json_schema: { name: "person", strict, schema } }
        assert.deepStrictEqual(only({ response_format }).format, { type: "json_schema", schema })
      }
    })

    it.each<[path: string, format: unknown]>([
      ["response_format.json_schema.schema", { type: "json_schema", json_schema: { name: "person", schema: 1 } }],
      ["response_format.json_schema", { type: "json_schema" }],
      ["response_format.type", "text"]
    ])("rejects by the path %s", (path, response_format) => {
      assert.strictEqual(refused({ response_format }).path, path)
    })
  })

  describe("logprobs", () => {
    it("are requested with the number of alternatives in top_logprobs", () => {
      assert.strictEqual(only({ logprobs: true }).logprobs, 0)
      assert.strictEqual(only({ logprobs: true, top_logprobs: 20 }).logprobs, 20)
      assert.notProperty(only({ logprobs: false }), "logprobs")
    })

    it.each<[path: string, fields: object]>([
      ["top_logprobs", { top_logprobs: 1 }],
      ["top_logprobs", { logprobs: false, top_logprobs: 1 }],
      ["top_logprobs", { logprobs: true, top_logprobs: 21 }],
      ["logprobs", { logprobs: "yes" }],
      ["logprobs", { logprobs: 5 }]
    ])("rejects by the path %s", (path, fields) => {
      assert.strictEqual(refused(fields).path, path)
    })
  })

  describe("the caller's identity and options", () => {
    it("have no tenant without a key and a user", () => {
      assert.notProperty(only({}), "tenant")
      assert.notProperty(only({ user: "" }), "tenant")
    })

    const tenant = (fields: object, bearerToken?: string) =>
      Result.getOrThrow(DecodeRequest.decode({ model: "m", messages, ...fields }, { key: bearerToken })).requests[0]
        .tenant

    it("prefer a bearer token to safety_identifier, and that to user", () => {
      assert.strictEqual(tenant({ safety_identifier: "a", user: "b" }, "t"), tenant({}, "t"))
      assert.strictEqual(tenant({ safety_identifier: "a", user: "b" }), tenant({ user: "a" }))
      assert.notStrictEqual(tenant({ user: "t" }), tenant({}, "t"))
    })

    it("derive a tenant that is equal for equal names only and does not contain the name", () => {
      const name = fc.string({ minLength: 3, unit: "grapheme-ascii" }).filter((text) => !/^\w*$/.test(text))
      fc.assert(fc.property(name, name, (one, two) => {
        assert.strictEqual(tenant({}, one), tenant({}, one))
        assert.strictEqual(tenant({}, one) === tenant({}, two), one === two)
        assert.match(tenant({}, one)!, /^[\w-]{20}$/)
        assert.notInclude(JSON.stringify(decoded({ user: one })), JSON.stringify(one).slice(1, -1))
      }))
    })

    it.each<[path: string, fields: object]>([
      ["keep_alive", { keep_alive: "soon" }],
      ["keep_alive", { keep_alive: "5" }],
      ["keep_alive", { keep_alive: "" }],
      ["keep_alive", { keep_alive: "5m extra" }],
      ["keep_alive", { keep_alive: true }],
      ["priority", { priority: "urgent" }],
      ["priority", { priority: 1 }],
      ["user", { user: 5 }]
    ])("rejects by the path %s", (path, fields) => {
      assert.strictEqual(refused(fields).path, path)
    })
  })

  describe("choices", () => {
    it("are n requests, which differ only in their seeds", () => {
      const { requests } = decoded({ n: 3, seed: 7, temperature: 1 })
      assert.deepStrictEqual(requests.map(({ seed }) => seed), [7, 8, 9])
      for (const request of requests) assert.deepStrictEqual({ ...request, seed: 7 }, requests[0])
    })

    it("have no seed if the request has none", () => {
      assert.deepStrictEqual(decoded({ n: 2 }).requests.map((request) => "seed" in request), [false, false])
    })

    it("have different seeds, integers of 32 bits", () => {
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

    it.each(["9223372036854775808", "-9223372036854775809", "1e19", "1.5", "7.00000000000000000001", "1e400"])(
      "reject a seed that is not an integer of 64 bits, with the limits: %s",
      (seed) => {
        const { detail, path } = Result.getOrThrow(Result.flip(exactly(seed)))
        assert.strictEqual(path, "seed")
        const expected = "Expected a whole number from -9223372036854775808 to 9223372036854775807"
        assert.strictEqual(detail.split(", got ")[0], expected)
      }
    )

    it("pass on a seed of 64 bits exactly, increased by one per choice; local engines use its lowest 32 bits", () => {
      fc.assert(
        fc.property(
          fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
          fc.integer({ min: 1, max: 3 }),
          (seed, n) => {
            const { requests } = Result.getOrThrow(exactly(String(seed), n))
            const seeds = requests.map((_, index) => BigInt.asIntN(64, seed + BigInt(index)))
            assert.deepStrictEqual(
              requests.map((request) => request.seed),
              seeds.map((one) => Number(BigInt.asUintN(32, one)))
            )
            assert.deepStrictEqual(
              requests.map(({ source }) => JSON.stringify(source!.body["seed"])),
              seeds.map(String)
            )
          }
        )
      )
    })

    it("have equal seeds for an equal seed of the request", () => {
      fc.assert(fc.property(fc.maxSafeInteger(), (seed) => {
        assert.deepStrictEqual(decoded({ seed, n: 3 }), decoded({ seed, n: 3 }))
        assert.strictEqual(decoded({ seed }).requests[0].seed, Number(BigInt.asUintN(32, BigInt(seed))))
      }))
    })
  })
})
