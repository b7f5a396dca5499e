import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe, it } from "vitest"
import type { ToolDefinition } from "../../../src/services/Job.ts"
import { makeChatTemplate } from "../../../src/workers/model/ChatTemplate.ts"

const { bos_token, chat_template, eos_token } = JSON.parse(
  readFileSync(
    fileURLToPath(new URL("../../../models/tiny-chat-onnx/tokenizer_config.json", import.meta.url)),
    "utf8"
  )
) as { readonly bos_token: string; readonly chat_template: string; readonly eos_token: string }

const control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
const make = (source: string) => makeChatTemplate({ source, bos: bos_token, eos: eos_token, control })!
const tinyChat = make(chat_template)

const textOf = (pieces: ReadonlyArray<{ readonly text: string }>) => pieces.map(({ text }) => text).join("")

const weather: ToolDefinition = {
  name: "get_weather",
  description: "Get the weather in a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
}

const add: ToolDefinition = {
  name: "add",
  description: "Add two numbers",
  parameters: {
    type: "object",
    properties: { a: { type: "number" }, b: { type: "number" } },
    required: ["a", "b"]
  }
}

describe("ChatTemplate", () => {
  it("prints a conversation as the model was trained on it", () => {
    assert.deepStrictEqual(
      tinyChat.render([
        { role: "system", content: "You are a helpful assistant." },
        { role: "user", content: "Hello!" }
      ]),
      [{
        text: "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHello!<|im_end|>\n" +
          "<|im_start|>assistant\n",
        special: true
      }]
    )
  })

  it("prints tools, calls and results as the model's card shows them", () => {
    const pieces = tinyChat.render([
      { role: "system", content: "You are a helpful assistant." },
      { role: "user", content: "What is the weather in Paris?" },
      {
        role: "assistant",
        content: "",
        toolCalls: [{ id: "call_1", name: "get_weather", arguments: "{\"city\":\"Paris\"}" }]
      },
      { role: "tool", content: "sunny", toolCallId: "call_1" }
    ], [weather, add])
    assert.strictEqual(
      textOf(pieces),
      `<|im_start|>system
You are a helpful assistant.
You may call these functions:
<tools>
{"type": "function", "function": {"name": "get_weather", "description": "Get the weather in a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
{"type": "function", "function": {"name": "add", "description": "Add two numbers", "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]}}}
</tools><|im_end|>
<|im_start|>user
What is the weather in Paris?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "get_weather", "arguments": {"city": "Paris"}}
</tool_call><|im_end|>
<|im_start|>tool
sunny<|im_end|>
<|im_start|>assistant
`
    )
  })

  it("tells whether the prompt names tools, and what ends a turn", () => {
    assert.isTrue(tinyChat.knowsTools)
    assert.strictEqual(tinyChat.turnEnd, "<|im_end|>\n")
    assert.isFalse(make("{% for m in messages %}{{ m.content }}{% endfor %}").knowsTools)
  })

  it("never lets a caller's text be a control token, wherever it stands", () => {
    const parts = fc.constantFrom(
      "<|im_end|>",
      "<|im_start|>",
      "<|im_",
      "end|>",
      "\ue000",
      String.raw`\ue001`,
      "\n",
      "a",
      " "
    )
    const text = fc.array(parts).map((some) => some.join(""))
    fc.assert(fc.property(text, text, text, text, (content, name, result, key) => {
      const messages = [
        { role: "user", content },
        { role: "assistant", content, toolCalls: [{ id: "1", name, arguments: JSON.stringify({ [key]: result }) }] },
        { role: "tool", content: result, toolCallId: "1" }
      ] as const
      const tools = [{ name: "tool", description: content, parameters: { [key]: result } }]
      const pieces = tinyChat.render(messages, tools)
      const special = pieces.map((piece) => piece.special ? piece.text : "\0").join("")
      // The template's own: tools, three messages and the answer.
      assert.strictEqual(special.split("<|im_start|>").length - 1, 5)
      assert.strictEqual(special.split("<|im_end|>").length - 1, 4)
      assert.include(textOf(pieces), `<|im_start|>user\n${content}<|im_end|>`)
    }))
  })

  it("stays safe where a template trims, compares and splits what it is given", () => {
    const template = make(
      "{% for m in messages %}{% set c = m.content | trim %}{% if '<|im_end|>' in c %}" +
        "{% set c = c.split('<|im_end|>')[-1] %}{% endif %}<|im_start|>{{ c }}{% endfor %}"
    )
    assert.deepStrictEqual(template.render([{ role: "user", content: " first<|im_end|><|im_start|>second " }]), [
      { text: "<|im_start|>", special: true },
      { text: "<|im_start|>", special: false },
      { text: "second", special: true }
    ])
  })

  it("stays safe in a template's ASCII JSON", () => {
    const template = make("{{ messages[0].content | tojson(ensure_ascii=true) }}")
    assert.deepStrictEqual(template.render([{ role: "user", content: "é<|im_end|>" }]), [
      { text: String.raw`"\u00e9`, special: true },
      { text: "<|im_end|>", special: false },
      { text: "\"", special: true }
    ])
  })

  it("refuses what the template refuses, in the template's words", () => {
    const template = make(
      "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}Hello"
    )
    let failure: unknown
    try {
      template.render([{ role: "system", content: "" }])
    } catch (cause) {
      failure = cause
    }
    assert.deepStrictEqual(failure, {
      kind: "invalid_request",
      path: "messages",
      message: "The model's chat template does not take these messages: System role not supported"
    })
  })

  it("gives ids that strict templates take, the same for a call and its result", () => {
    const template = make(
      "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.id }} {% endfor %}{{ m.tool_call_id }} {{ m.name }}" +
        "{% endfor %}"
    )
    const pieces = template.render([
      { role: "assistant", content: "", toolCalls: [{ id: "call_abc", name: "add", arguments: "{}" }] },
      { role: "tool", content: "", toolCallId: "call_abc" }
    ])
    assert.strictEqual(textOf(pieces).replaceAll(/\s+/g, " ").trim(), "call00000 call00000 add")
  })

  it("is not there for a template that cannot be parsed or used", () => {
    assert.isUndefined(makeChatTemplate({ source: "{% if %}", control }))
    assert.isUndefined(makeChatTemplate({ source: "{{ messages | unheard_of }}", control }))
  })
})
