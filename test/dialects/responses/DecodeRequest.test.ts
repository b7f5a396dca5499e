import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as Compaction from "../../../src/dialects/responses/Compaction.ts"
import * as DecodeRequest from "../../../src/dialects/responses/DecodeRequest.ts"
import { encodeError } from "../../../src/dialects/responses/EncodeAnswer.ts"
import * as Items from "../../../src/dialects/responses/Items.ts"
import type { CallerIdentity } from "../../../src/dialects/shared/CallerRequest.ts"
import * as UnknownFields from "../../../src/dialects/shared/UnknownFields.ts"
import { InvalidRequest } from "../../../src/domain/InferenceError.ts"

const decode = (fields: object, caller: CallerIdentity = {}) =>
  Result.getOrThrow(DecodeRequest.decode({ model: "m", input: "Hi", ...fields }, caller))

/** The field and the message of the error about a body, where no deployment has the Responses API. */
const refused = (fields: object): string => {
  const body = JSON.parse(JSON.stringify({ model: "m", input: "Hi", ...fields })) as unknown
  const decoded = DecodeRequest.decode(body)
  if (Result.isFailure(decoded)) return encodeError(decoded.failure).body.error.message
  const { request: { source } } = decoded.success
  if (source?.responses?.needs === undefined) throw new Error("accepted")
  return encodeError(new InvalidRequest(UnknownFields.refusedBy(source, "m"))).body.error.message
}

/** The paths of what only a deployment with the Responses API can take. */
const needsOf = (fields: object) => decode(fields).request.source?.responses?.needs?.map(({ path }) => path)

const messagesOf = (input: ReadonlyArray<object>) => {
  const { input: items } = decode({ input })
  return Items.messagesOf(items.map((item, index) => Items.stored(item, (prefix) => `${prefix}_${index}`)))
}

const tool = { type: "function", name: "f", parameters: { type: "object" } }

describe("the settings of a response", () => {
  it("are the defaults where the request leaves them out", () => {
    assert.deepStrictEqual(decode({}).settings, {
      background: false,
      conversation: null,
      frequency_penalty: 0,
      instructions: null,
      max_output_tokens: null,
      max_tool_calls: null,
      metadata: {},
      model: "m",
      parallel_tool_calls: true,
      presence_penalty: 0,
      previous_response_id: null,
      prompt_cache_key: null,
      prompt_cache_retention: null,
      reasoning: { effort: null, summary: null },
      safety_identifier: null,
      service_tier: "default",
      store: true,
      temperature: 1,
      text: { format: { type: "text" }, verbosity: "medium" },
      tool_choice: "auto",
      tools: [],
      top_logprobs: 0,
      top_p: 1,
      truncation: "disabled",
      user: null
    })
  })

  it("are those of the request, null is the same as nothing", () => {
    const given = {
      temperature: 0.5,
      truncation: "auto",
      store: false,
      metadata: { a: "b" },
      reasoning: { effort: "low", generate_summary: "auto" },
      text: { format: { type: "json_schema", name: "n", schema: { type: "object" } }, verbosity: "low" },
      tools: [tool],
      tool_choice: { type: "function", name: "f" },
      conversation: { id: "conv_1" },
      top_p: null
    }
    const { settings } = decode(given)
    assert.deepInclude(settings, {
      temperature: 0.5,
      truncation: "auto",
      store: false,
      metadata: { a: "b" },
      reasoning: { effort: "low", summary: "auto" },
      tool_choice: { type: "function", name: "f" },
      conversation: { id: "conv_1" },
      top_p: 1
    })
    assert.deepStrictEqual(settings.tools, [{ ...tool, description: null, strict: null }])
    assert.deepInclude(settings.text.format, { type: "json_schema", name: "n", description: null, strict: null })
  })
})

describe("the request of the core", () => {
  it("has the options under its own names", () => {
    const { request } = decode({
      temperature: 0,
      top_p: 0.5,
      presence_penalty: 1,
      frequency_penalty: -1,
      max_output_tokens: 7,
      top_logprobs: 3,
      text: { format: { type: "json_object" } },
      tools: [tool, { ...tool, name: "g" }],
      tool_choice: { type: "allowed_tools", mode: "required", tools: [{ type: "function", name: "g" }] },
      parallel_tool_calls: false
    })
    const { source, ...options } = request
    assert.deepStrictEqual(options, {
      model: "m",
      temperature: 0,
      topP: 0.5,
      presencePenalty: 1,
      frequencyPenalty: -1,
      maxTokens: 7,
      logprobs: 3,
      format: { type: "json_object" },
      tools: [{ name: "g", parameters: { type: "object" } }],
      toolChoice: "required",
      parallelToolCalls: false
    })
    assert.deepInclude(source, { dialect: "openai", body: {} })
  })

  it("has fields that only OpenAI's hosts take, and that others ignore", () => {
    const { request } = decode({
      reasoning: { effort: "high" },
      text: { verbosity: "low" },
      service_tier: "flex",
      user: "u"
    })
    const { responses, ...source } = request.source!
    assert.deepStrictEqual(responses, {
      body: {
        model: "m",
        input: "Hi",
        reasoning: { effort: "high" },
        text: { verbosity: "low" },
        service_tier: "flex",
        user: "u"
      }
    })
    assert.deepStrictEqual(source, {
      dialect: "openai",
      body: { reasoning_effort: "high", verbosity: "low", service_tier: "flex", user: "u" },
      unknownFields: ["reasoning_effort", "verbosity", "service_tier", "user"].map((name) => ({
        path: [name],
        optional: true
      }))
    })
  })

  it("belongs to the tenant of the key, stored objects never to a user of the body", () => {
    const keyed = decode({ user: "u" }, { key: "k" })
    assert.strictEqual(keyed.owner, keyed.request.tenant)
    const anonymous = decode({ user: "u" })
    assert.strictEqual(anonymous.owner, "")
    assert.notStrictEqual(anonymous.request.tenant, "")
    assert.notStrictEqual(decode({}, { key: "k" }).owner, decode({}, { key: "l" }).owner)
  })
})

describe("items", () => {
  it("of an assistant that follow each other are one message", () => {
    const call = (id: string) => ({ type: "function_call", call_id: id, name: "f", arguments: "{}" })
    const calls = ["1", "2"].map((id) => ({ id, name: "f", arguments: "{}" }))
    assert.deepStrictEqual(
      messagesOf([
        { role: "developer", content: "Be brief." },
        { role: "user", content: [{ type: "input_text", text: "a" }, { type: "input_text", text: "b" }] },
        { type: "reasoning", id: "rs_1", summary: [{ type: "summary_text", text: "Hm" }] },
        { type: "message", role: "assistant", content: [{ type: "output_text", text: "c" }] },
        call("1"),
        call("2"),
        { type: "function_call_output", call_id: "1", output: "x" },
        { type: "function_call_output", call_id: "2", output: [{ type: "input_text", text: "y" }] },
        call("3")
      ]),
      [
        { role: "system", content: "Be brief." },
        { role: "user", content: "ab" },
        { role: "assistant", content: "c", thoughts: "Hm", toolCalls: calls },
        { role: "tool", content: "x", toolCallId: "1" },
        { role: "tool", content: "y", toolCallId: "2" },
        { role: "assistant", content: "", toolCalls: [{ id: "3", name: "f", arguments: "{}" }] }
      ]
    )
  })

  it("of reasoning belong to the message or call after them", () => {
    const reasoning = (text: string, more: object = {}) => ({
      type: "reasoning",
      summary: [{ type: "summary_text", text }],
      ...more
    })
    const call = { type: "function_call", call_id: "1", name: "f", arguments: "{}" }
    const toolCalls = [{ id: "1", name: "f", arguments: "{}" }]
    assert.deepStrictEqual(
      messagesOf([
        reasoning("lost"),
        { role: "user", content: "a" },
        reasoning("a summary", {
          content: [{ type: "reasoning_text", text: "b" }, { type: "reasoning_text", text: "c" }]
        }),
        reasoning("d"),
        call,
        { type: "function_call_output", call_id: "1", output: "x" },
        reasoning("e"),
        { role: "assistant", content: "I look again." },
        reasoning("f"),
        call,
        reasoning("lost")
      ]),
      [
        { role: "user", content: "a" },
        { role: "assistant", content: "", thoughts: "b\nc\nd", toolCalls },
        { role: "tool", content: "x", toolCallId: "1" },
        { role: "assistant", content: "I look again.", thoughts: "e\nf", toolCalls }
      ]
    )
  })

  it("have images by URL and as data", () => {
    const image = (image_url: string) => ({ type: "input_image", image_url, detail: "low" })
    const [message] = messagesOf([{
      role: "user",
      content: [image("https://example.com/a.png"), image("data:image/png;base64,AAAA")]
    }])
    assert.deepStrictEqual(message?.content, [
      { type: "image", source: { type: "url", url: "https://example.com/a.png" }, detail: "low" },
      { type: "image", source: { type: "base64", mediaType: "image/png", data: "AAAA" }, detail: "low" }
    ])
  })

  it("of a compaction are a message with the summary", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (summary) => {
      const [message] = messagesOf([{ type: "compaction", encrypted_content: Compaction.encode(summary) }])
      assert.deepStrictEqual(message, { role: "system", content: `Summary of the conversation before: ${summary}` })
    }))
  })

  it("that stored ones are made of give the same messages again", () => {
    const given = [
      { role: "user", content: "a" },
      { role: "assistant", content: "b" },
      { type: "function_call", call_id: "1", name: "f", arguments: "{}" },
      { type: "function_call_output", call_id: "1", output: "x" }
    ]
    const stored = given.map((item, index) => Items.stored(item, (prefix) => `${prefix}_${index}`))
    assert.deepStrictEqual(messagesOf(JSON.parse(JSON.stringify(stored)) as ReadonlyArray<object>), messagesOf(given))
  })
})

describe("a body that is refused", () => {
  const item = (more: object) => ({ input: [{ role: "user", content: "a" }, more] })
  const cases: ReadonlyArray<readonly [fields: object, message: RegExp]> = [
    [{ model: undefined }, /^model: `model` is required/],
    [{ input: undefined }, /^input: `input` is required$/],
    [{ input: 5 }, /^input: Expected/],
    [
      { input: undefined, messages: [] },
      /^input: `input` is required; messages: Unknown field. Did you mean input\?$|^messages: /
    ],
    [{ temprature: 1 }, /^temprature: Unknown field. Did you mean temperature\?$/],
    [{ max_tokens: 5 }, /^max_tokens: Unknown field. Did you mean max_output_tokens\?$/],
    [{ prompt: { id: "p" } }, /^prompt: Troupe stores no prompt templates/],
    [{ context_management: [] }, /^context_management: Troupe compacts only when/],
    [{ tools: [{ type: "web_search" }] }, /^tools\[0\].type: Troupe does not have the tool "web_search"/],
    [{ tools: [{ type: "mcp", server_label: "s" }] }, /^tools\[0\].type: Troupe does not have the tool "mcp"/],
    [{ tools: [{ type: "function" }] }, /^tools\[0\].name: `name` is required/],
    [{ tools: [tool, tool] }, /^tools\[1\].name: Another tool has the same name$/],
    [{ tool_choice: "required" }, /^tool_choice: Allowed only with tools$/],
    [
      { tools: [tool], tool_choice: { type: "function", name: "g" } },
      /^tool_choice.name: No tool in tools has this name$/
    ],
    [
      { tools: [tool], tool_choice: { type: "file_search" } },
      /^tool_choice.type: Troupe does not have the tool "file_search"/
    ],
    [
      item({ type: "web_search_call", id: "ws_1" }),
      /^input\[1\].type: Troupe does not support the type "web_search_call"/
    ],
    [
      item({ role: "user", content: [{ type: "input_file", file_id: "f" }] }),
      /^input\[1\].content\[0\].file_id: Troupe stores no files/
    ],
    [
      item({ role: "user", content: [{ type: "output_text", text: "a" }] }),
      /^input\[1\].content\[0\].type: .*"output_text"/
    ],
    [
      item({ role: "user", content: [{ type: "input_image", file_id: "f" }] }),
      /^input\[1\].content\[0\].file_id: Troupe stores no files/
    ],
    [item({ role: "robot", content: "a" }), /^input\[1\].role: Expected one of "user"/],
    [item({ type: "function_call", name: "f", arguments: "{}" }), /^input\[1\].call_id: `call_id` is required/],
    [item({ type: "compaction", encrypted_content: "gAAAA" }), /^input\[1\].encrypted_content: Expected the content/],
    [{ conversation: "c", previous_response_id: "r" }, /^previous_response_id: Not allowed with conversation$/],
    [{ background: true, store: false }, /^store: /],
    [{ metadata: { a: "b".repeat(513) } }, /^metadata: Expected at most 16 pairs/],
    [{ include: ["everything"] }, /^include\[0\]: Expected one of/],
    [{ max_output_tokens: 0 }, /^max_output_tokens: Expected a whole number from 1/],
    [{ top_logprobs: 21 }, /^top_logprobs: /]
  ]
  it.each(cases)("%j", (fields, message) => {
    assert.match(refused(fields), message)
  })

  it("is one for the Responses API of a provider alone, where that is all", () => {
    const search = { type: "web_search" }
    assert.deepStrictEqual(
      needsOf({
        tools: [tool, search],
        tool_choice: search,
        prompt_cache_options: {},
        input: [
          { role: "user", content: [{ type: "input_file", file_url: "https://example.com/a.pdf" }] },
          { type: "mcp_approval_response", approval_request_id: "mcpr_1", approve: true }
        ]
      }),
      [
        "prompt_cache_options",
        "input[0].content[0].file_url",
        "input[1].type",
        "tools[1].type",
        "tool_choice.type"
      ]
    )
    assert.isUndefined(needsOf({ tools: [tool], include: ["reasoning.encrypted_content"] }))
    assert.deepStrictEqual(decode({ tools: [tool, search] }).request.tools?.map(({ name }) => name), ["f"])
    assert.isUndefined(decode({ tools: [search], tool_choice: "required" }).request.toolChoice)
  })

  it("never throws", () => {
    fc.assert(fc.property(fc.jsonValue(), fc.jsonValue(), fc.jsonValue(), (input, tools, tool_choice) => {
      assert.doesNotThrow(() => {
        DecodeRequest.decode({ model: "m", input, tools, tool_choice })
        DecodeRequest.decode({ model: "m", input: [input, { type: "message", role: "user", content: [tools] }] })
        DecodeRequest.decodeCount(input)
        DecodeRequest.decodeCompact({ model: "m", input: [{ type: tools, content: tool_choice }] })
      })
    }))
  })
})
