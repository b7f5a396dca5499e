import { assert, describe, it } from "@effect/vitest"
import { Duration, Result } from "effect"
import type { MessagesCall } from "../../../src/dialects/anthropic/DecodeRequest.ts"
import * as DecodeRequest from "../../../src/dialects/anthropic/DecodeRequest.ts"
import * as ExactNumber from "../../../src/domain/ExactNumber.ts"
import type { Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"

const messages = [{ role: "user", content: "Hello" }]
const least = { model: "tiny-chat", max_tokens: 10, messages }

/** Without the body itself. */
const decoded = (fields: object): MessagesCall => {
  const { request: { source, ...request }, ...call } = Result.getOrThrow(
    DecodeRequest.decode({ ...least, ...fields })
  )
  return { ...call, request: source?.unknownFields === undefined ? request : { ...request, source } }
}
const requested = (fields: object): Request => decoded(fields).request
const messagesOf = (...messages: ReadonlyArray<object>) => requested({ messages }).messages

const refused = (fields: object): InferenceError.InvalidRequest =>
  Result.getOrThrowWith(
    Result.flip(DecodeRequest.decode({ ...least, ...fields })),
    () => new Error("The body was taken.")
  )

const tool = { name: "add", description: "Adds.", input_schema: { type: "object" } }
const use = { type: "tool_use", id: "call_1", name: "add", input: { a: 1 } }
const png = { type: "base64", media_type: "image/png", data: "AAAA" }
const image = { type: "image", source: png }
const text = (text: string) => ({ type: "text", text })
const cache_control = { type: "ephemeral", ttl: "1h" }

describe("a number that a double does not hold", () => {
  const block = (block: string) => `[{"role":"user","content":[${block}]}]`
  it.each([
    "N",
    "[N]",
    "[{\"role\":N,\"content\":\"Hi\"}]",
    "[{\"role\":\"user\",\"content\":N}]",
    block("N"),
    block("{\"type\":N}"),
    block("{\"type\":\"text\",\"text\":N}"),
    block("{\"type\":\"image\",\"source\":{\"type\":N}}"),
    block("{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":N}"),
    "[{\"role\":\"user\",\"content\":\"Hi\",\"x_id\":N}]"
  ])("is decoded as any other number in messages of %s", (messages) => {
    const text = `{"model":"m","max_tokens":5,"messages":${messages.replace("N", "9007199254740993")}}`
    const [one, two] = [
      DecodeRequest.decode(JSON.parse(text)),
      DecodeRequest.decode(JSON.parse(text), {}, ExactNumber.parse(text))
    ]
    assert.strictEqual(Result.isFailure(one), Result.isFailure(two))
    if (Result.isFailure(one) && Result.isFailure(two)) assert.deepStrictEqual(two.failure.message, one.failure.message)
    if (Result.isFailure(one) || Result.isFailure(two)) return
    assert.deepStrictEqual(two.success.request.source?.unknownFields, one.success.request.source?.unknownFields)
  })
})

describe("DecodeRequest", () => {
  describe("decode", () => {
    it("leaves every option of a minimal body to its default", () => {
      assert.deepStrictEqual(decoded({}), {
        request: { model: "tiny-chat", maxTokens: 10, messages: [{ role: "user", content: "Hello" }] },
        located: [{ message: { role: "user", content: "Hello" }, path: "messages[0]", parts: [] }],
        stream: false,
        parallelToolUse: true,
        thinking: true
      })
    })

    it("decodes every field", () => {
      const schema = { type: "object" }
      const call = decoded({
        system: "Be brief.",
        stream: true,
        temperature: 0.5,
        top_p: 0.9,
        top_k: 40,
        stop_sequences: ["a", "b"],
        tools: [{ ...tool, type: "custom", strict: true, cache_control }],
        tool_choice: { type: "any", disable_parallel_tool_use: true },
        output_config: { effort: "high", format: { type: "json_schema", schema } },
        thinking: { type: "disabled" },
        metadata: { user_id: "me" },
        service_tier: "auto",
        cache_control,
        keep_alive: "5m",
        priority: "high"
      })
      const { keepAlive, source, tenant, ...request } = call.request
      assert.isTrue(source?.unknownFields?.every(({ optional }) => optional))
      assert.strictEqual(Duration.toMillis(keepAlive!), 300_000)
      assert.match(tenant!, /^[\w-]{20}$/)
      assert.deepStrictEqual(request, {
        model: "tiny-chat",
        messages: [{ role: "system", content: "Be brief." }, { role: "user", content: "Hello" }],
        maxTokens: 10,
        temperature: 0.5,
        topP: 0.9,
        topK: 40,
        stop: ["a", "b"],
        tools: [{ name: "add", description: "Adds.", parameters: { type: "object" } }],
        toolChoice: "required",
        parallelToolCalls: false,
        format: { type: "json_schema", schema },
        reasoning: { effort: "none" },
        priority: "high"
      })
      assert.isTrue(call.stream)
      assert.isFalse(call.parallelToolUse)
    })

    it("joins consecutive messages of one role", () => {
      const assistant = (content: unknown) => ({ role: "assistant", content })
      const user = (content: unknown) => ({ role: "user", content })
      assert.deepStrictEqual(
        messagesOf(
          user("Hello."),
          user([text("How"), text("are you?")]),
          assistant("I am"),
          assistant([text(" well.")]),
          user("Good.")
        ),
        [
          { role: "user", content: "Hello.\nHow\nare you?" },
          { role: "assistant", content: "I am well." },
          { role: "user", content: "Good." }
        ]
      )
      // Results answer the call before them, in whichever message they are.
      const result = (content: string) => ({ type: "tool_result", tool_use_id: "call_1", content })
      assert.deepStrictEqual(
        messagesOf(user("Add."), assistant("I add."), assistant([use]), user("Well?"), user([result("3")])).slice(1),
        [
          {
            role: "assistant",
            content: "I add.",
            toolCalls: [{ id: "call_1", name: "add", arguments: "{\"a\":1}" }]
          },
          { role: "tool", content: "3", toolCallId: "call_1" },
          { role: "user", content: "Well?" }
        ]
      )
      const { request, located } = decoded({
        messages: [...messages, assistant("The best"), assistant([text(" is (")])]
      })
      assert.deepStrictEqual([request.messages, request.assistantPrefix], [
        messages as typeof request.messages,
        "The best is ("
      ])
      assert.lengthOf(located, 2)
      // Errors have the paths of the body.
      const seen = decoded({ messages: [user("Look:"), user([text("See"), image])] })
      const wrong = new InferenceError.InvalidRequest({ path: "messages[0].content[2]", detail: "Wrong" })
      assert.deepInclude(DecodeRequest.relocate(wrong, seen), { path: "messages[1].content[1]" })
      const apart = { role: "system", content: "Be brief." }
      assert.lengthOf(messagesOf(user("Hello."), apart, apart, user("Go on.")), 4)
    })

    it("identifies callers by their key, else by user_id", () => {
      const tenantOf = (key?: string, user_id: string | null = null) =>
        Result.getOrThrow(DecodeRequest.decode({ ...least, metadata: { user_id } }, { key })).request.tenant
      assert.strictEqual(tenantOf("one", "me"), tenantOf("one"))
      assert.strictEqual(new Set([tenantOf(), tenantOf("one"), tenantOf("two"), tenantOf(undefined, "me")]).size, 4)
    })

    it.each<[choice: object, expected: Request["toolChoice"]]>([
      [{ type: "auto" }, "auto"],
      [{ type: "any" }, "required"],
      [{ type: "none" }, "none"],
      [{ type: "tool", name: "add" }, { name: "add" }]
    ])("tool_choice %j", (tool_choice, expected) => {
      assert.deepStrictEqual(requested({ tools: [tool], tool_choice }).toolChoice, expected)
    })
  })

  describe("conversations", () => {
    it("join the blocks of a system prompt with line breaks", () => {
      const { messages } = requested({ system: [{ ...text("One."), cache_control }, text("Two.")] })
      assert.deepStrictEqual(messages[0], { role: "system", content: "One.\nTwo." })
      assert.deepStrictEqual(requested({ system: "" }).messages.length, 1)
    })

    it("join the text blocks of a user with line breaks, and those of an assistant without", () => {
      assert.deepStrictEqual(
        messagesOf(
          { role: "system", content: [text("S")] },
          { role: "user", content: [text("a"), text("b")] },
          {
            role: "assistant",
            content: [{ type: "thinking", thinking: "Hm.", signature: "x" }, text("Let"), text(" me"), use]
          },
          { role: "user", content: [text("c")] }
        ),
        [
          { role: "system", content: "S" },
          { role: "user", content: "a\nb" },
          {
            role: "assistant",
            content: "Let me",
            thoughts: "Hm.",
            toolCalls: [{ id: "call_1", name: "add", arguments: "{\"a\":1}" }]
          },
          { role: "user", content: "c" }
        ]
      )
    })

    it("join the thoughts of a turn with line breaks, without encrypted ones", () => {
      const thinking = (thinking: unknown) => ({ type: "thinking", thinking, signature: "" })
      assert.deepStrictEqual(
        messagesOf({
          role: "assistant",
          content: [
            thinking("a"),
            { type: "redacted_thinking", data: "x" },
            thinking(""),
            thinking(1),
            text("A"),
            thinking("b")
          ]
        }, { role: "user", content: "c" })[0],
        { role: "assistant", content: "A", thoughts: "a\nb" }
      )
    })

    it("have tool results as separate messages, before the text beside them", () => {
      const result = { type: "tool_result", tool_use_id: "call_1" }
      assert.deepStrictEqual(
        messagesOf(
          { role: "assistant", content: [use] },
          {
            role: "user",
            content: [
              text("Go on."),
              { ...result, content: "2" },
              { ...result, content: [text("x"), text("y")] },
              { ...result, content: "No network.", is_error: true },
              result
            ]
          }
        ).slice(1),
        [
          { role: "tool", content: "2", toolCallId: "call_1" },
          { role: "tool", content: "x\ny", toolCallId: "call_1" },
          { role: "tool", content: "Error:\nNo network.", toolCallId: "call_1" },
          { role: "tool", content: "", toolCallId: "call_1" },
          { role: "user", content: "Go on." }
        ]
      )
    })

    it("have an assistant's text at the end as the assistant prefix", () => {
      for (const content of ["The best (", [text("The best"), text(" (")]]) {
        const begun = [...messages, { role: "assistant", content }]
        const { located, request } = decoded({ system: "S", messages: begun })
        assert.strictEqual(request.assistantPrefix, "The best (")
        assert.deepStrictEqual<unknown>(request.messages, [{ role: "system", content: "S" }, {
          role: "user",
          content: "Hello"
        }])
        const unable = new InferenceError.NotSupported({ deployment: "m#0", path: "assistantPrefix", detail: "No." })
        assert.deepInclude(DecodeRequest.relocate(unable, { located, request }), { path: "messages[1]" })
        const counted = DecodeRequest.decodeCount({ model: "tiny-chat", messages: begun })
        assert.deepStrictEqual<unknown>(Result.getOrThrow(counted).request.input, {
          messages,
          assistantPrefix: "The best ("
        })
      }
    })

    it("have images as bytes, by URL, and in tool results", () => {
      const url = { type: "url", url: "https://example.com/cat.png" }
      const part = { type: "image", source: { type: "base64", mediaType: "image/png", data: "AAAA" } }
      assert.deepStrictEqual<unknown>(
        messagesOf(
          { role: "assistant", content: [use] },
          {
            role: "user",
            content: [
              text("What?"),
              { type: "image", source: url },
              { type: "tool_result", tool_use_id: "call_1", content: [image] }
            ]
          }
        ).slice(1),
        [
          { role: "tool", content: [part], toolCallId: "call_1" },
          { role: "user", content: [{ type: "text", text: "What?" }, { type: "image", source: url }] }
        ]
      )
    })
  })

  describe("rejects", () => {
    it.each<[path: string, fields: object]>([
      ["max_tokens", { max_tokens: undefined }],
      ["max_tokens", { max_tokens: 0 }],
      ["messages", { messages: [] }],
      ["temperature", { temperature: 1.5 }],
      ["top_p", { top_p: -1 }],
      ["stop_sequences[0]", { stop_sequences: [""] }],
      ["messages[0].role", { messages: [{ role: "tool", content: "x" }] }],
      ["messages[0].content[1].type", { messages: [{ role: "user", content: [text("a"), use] }] }],
      ["messages[0].content[0].source.media_type", {
        messages: [{ role: "user", content: [{ ...image, source: { ...png, media_type: "image/bmp" } }] }]
      }],
      ["messages[0].content[0].type", { messages: [{ role: "assistant", content: [image] }, ...messages] }],
      ["messages[0].content[0].tool_use_id", {
        messages: [{ role: "user", content: [{ type: "tool_result", tool_use_id: "call_1", content: "2" }] }]
      }],
      ["messages[0]", { messages: [{ role: "assistant", content: "The best answer is (" }] }],
      ["messages[1]", { messages: [...messages, { role: "assistant", content: "" }] }],
      ["messages[1]", { messages: ["The best", " is ("].map((content) => ({ role: "assistant", content })) }],
      ["messages[2]", {
        messages: [...messages, { role: "assistant", content: [use] }, { role: "assistant", content: "I" }]
      }],
      ["messages[1]", { messages: [...messages, { role: "assistant", content: [text("Let me"), use] }] }],
      ["messages[1]", {
        messages: [...messages, { role: "assistant", content: "{" }],
        output_config: { format: { type: "json_schema", schema: { type: "object" } } }
      }],
      ["tools[1].name", { tools: [tool, tool] }],
      ["tool_choice", { tool_choice: { type: "any" } }],
      ["tool_choice.name", { tools: [tool], tool_choice: { type: "tool", name: "get_time" } }],
      ["tool_choice.type", { tools: [tool], tool_choice: { type: "some" } }]
    ])("%s of %j", (path, fields) => {
      assert.strictEqual(refused(fields).path, path)
    })
  })

  describe("a field that only deployments of the dialect accept", () => {
    const document = { type: "document", source: { type: "file", file_id: "file_1" } }
    const search = { type: "web_search_20250305", name: "web_search" }
    it.each<[path: string, fields: object]>([
      ["thinking", { thinking: { type: "vast" } }],
      ["thinking?", { thinking: { type: "enabled", budget_tokens: 1024 } }],
      ["thinking?", { thinking: { type: "adaptive" } }],
      ["thinking?", { thinking: { type: "disabled" } }],
      ["output_config.effort", { output_config: { effort: "vast" } }],
      ["output_config.effort?", { output_config: { effort: "max" } }],
      ["container", { container: "c" }],
      ["context_management", { context_management: { edits: [{ type: "compact_20260112" }] } }],
      ["context_management", { context_management: { edits: [] } }],
      ["context_management?", { context_management: { edits: [{ type: "clear_thinking_20251015", keep: "all" }] } }],
      ["mcp_servers", { mcp_servers: [{}] }],
      ["mcp_servers?", { mcp_servers: [] }],
      ["thread", { thread: { type: "create" } }],
      ["speed", { speed: "fast" }],
      ["speed?", { speed: "standard" }],
      ["service_tier?", { service_tier: "standard_only" }],
      ["max_token", { max_token: 5 }],
      ["system.0.citations", { system: [{ ...text("S"), citations: [{ type: "char_location" }] }] }],
      ["messages.0.content.1", { messages: [{ role: "user", content: [text("a"), document] }] }],
      ["messages.0.content.0", { messages: [{ role: "user", content: [{ ...image, source: document.source }] }] }],
      ["messages.1.content.0.content.1", {
        messages: [{ role: "assistant", content: [use] }, {
          role: "user",
          content: [{ type: "tool_result", tool_use_id: "call_1", content: [text("a"), document] }]
        }]
      }],
      ["messages.1.content.0", {
        messages: [...messages, { role: "assistant", content: [{ type: "server_tool_use", id: "s", name: "x" }] }]
      }],
      ["messages.1.content.0?", {
        messages: [...messages, { role: "assistant", content: [{ type: "thinking", thinking: "Hm" }, text("A")] }]
      }],
      ["tools.0", { tools: [search] }],
      ["tools.0", { tools: [search], tool_choice: { type: "tool", name: "web_search" } }],
      ["tools.0.defer_loading", { tools: [{ ...tool, defer_loading: true }] }],
      ["tools.0.defer_loading?", { tools: [{ ...tool, defer_loading: false }] }]
    ])("is %s of %j", (expected, fields) => {
      const found = requested(fields).source?.unknownFields?.map(({ optional, path }) =>
        `${path.join(".")}${optional === true ? "?" : ""}`
      )
      assert.deepStrictEqual(found, [expected])
    })

    it("is passed on in the original body, with the headers of the dialect", () => {
      const body = { ...least, a_field_of_tomorrow: null }
      const headers = { "anthropic-beta": "a,b", "anthropic-version": "2023-06-01", "x-api-key": "secret" }
      const { request: { source } } = Result.getOrThrow(DecodeRequest.decode(body, { headers }))
      assert.strictEqual<unknown>(source?.body, body)
      assert.deepStrictEqual(source?.headers, { "anthropic-beta": "a,b", "anthropic-version": "2023-06-01" })
    })

    it("is reported by its own path if no deployment accepts it", () => {
      const call = decoded({ system: "S", messages: [{ role: "user", content: [text("a"), document] }] })
      const wrong = new InferenceError.InvalidRequest({ path: "messages[0].content[1]", detail: "No." })
      assert.strictEqual(DecodeRequest.relocate(wrong, call), wrong)
    })
  })

  it("rejects JSON that is nested too deeply", () => {
    const deep = JSON.parse(`${"{\"a\":".repeat(50_000)}1${"}".repeat(50_000)}`) as unknown
    const one = { messages: [{ role: "assistant", content: [{ ...use, input: deep }] }, ...messages] }
    assert.strictEqual(refused(one).path, "messages[0].content[0].input")
    assert.strictEqual(refused({ tools: [{ ...tool, input_schema: deep }] }).path, "tools[0].input_schema")
  })

  it("reports problems of messages by their paths in the body", () => {
    const { located } = decoded({
      system: "S",
      messages: [
        { role: "assistant", content: [use] },
        {
          role: "user",
          content: [text("a"), { type: "tool_result", tool_use_id: "call_1", content: [text("x"), image] }, image]
        }
      ]
    })
    const pathOf = (path: string) => {
      const reason = DecodeRequest.relocate(new InferenceError.InvalidRequest({ path, detail: "Wrong" }), {
        located,
        request: {}
      })
      return "path" in reason ? reason.path : undefined
    }
    assert.strictEqual(pathOf("messages[0].content"), "system")
    assert.strictEqual(pathOf("messages[2].content[1]"), "messages[1].content[1].content[1]")
    assert.strictEqual(pathOf("input.messages[3].content[1].source.data"), "messages[1].content[2]")
    assert.strictEqual(pathOf("messages"), "messages")
    assert.strictEqual(pathOf("tools[1].parameters.type"), "tools[1].input_schema.type")
    assert.strictEqual(pathOf("format.schema.type"), "output_config.format.schema.type")
    const several = new InferenceError.InvalidRequest({ path: "tools", alsoAt: ["format"], detail: "Wrong" })
    assert.strictEqual(
      DecodeRequest.relocate(several, { located, request: {} }).message,
      "tools, output_config.format: Wrong"
    )
    const unable = new InferenceError.NotSupported({ deployment: "m#0", path: "topK", detail: "No." })
    const own = DecodeRequest.relocate(unable, { located, request: {} })
    assert.deepInclude(own, { _tag: "NotSupported", path: "top_k", deployment: "m#0" })
  })

  it("decodes a token count as the request itself", () => {
    const { max_tokens: _, ...prompt } = least
    const { request } = Result.getOrThrow(
      DecodeRequest.decodeCount({ ...prompt, system: "S", tools: [tool] }, { key: "key" })
    )
    assert.strictEqual(typeof request.tenant, "string")
    assert.deepStrictEqual(request.input, {
      messages: [{ role: "system", content: "S" }, { role: "user", content: "Hello" }],
      tools: [{ name: "add", description: "Adds.", parameters: { type: "object" } }]
    })
    const none = { ...prompt, tools: [tool], tool_choice: { type: "none" } }
    assert.notProperty(Result.getOrThrow(DecodeRequest.decodeCount(none)).request.input, "tools")
  })
})
