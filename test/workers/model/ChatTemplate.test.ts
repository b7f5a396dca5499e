import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe, it } from "vitest"
import type { ChatMessage, ToolDefinition } from "../../../src/domain/Job.ts"
import type { ChatTemplate } from "../../../src/workers/model/ChatTemplate.ts"
import { makeChatTemplate } from "../../../src/workers/model/ChatTemplate.ts"

const { bos_token, chat_template, eos_token } = JSON.parse(
  readFileSync(
    fileURLToPath(new URL("../../../models/tiny-chat-onnx/tokenizer_config.json", import.meta.url)),
    "utf8"
  )
) as { readonly bos_token: string; readonly chat_template: string; readonly eos_token: string }

const control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
const tryMake = (source: string) =>
  makeChatTemplate({ name: "tiny.gguf", source, bos: bos_token, eos: eos_token, control })
const make = (source: string): ChatTemplate => {
  const made = tryMake(source)
  return "problem" in made ? assert.fail(made.problem) : made
}
const tinyChat = make(chat_template)

const failureOf = (run: () => unknown): unknown => {
  try {
    return run()
  } catch (cause) {
    return cause
  }
}

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
  it("renders a conversation in the model's training format", () => {
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

  it("renders tools, calls and results as the model card shows them", () => {
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

  it("detects support for tools, and the end of a turn", () => {
    assert.isTrue(tinyChat.supportsTools)
    assert.strictEqual(tinyChat.turnEnd, "<|im_end|>\n")
    assert.isFalse(make("{% for m in messages %}{{ m.content }}{% endfor %}").supportsTools)
  })

  it("never renders a caller's text as a control token, in any position", () => {
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

  it("is safe if a template trims, compares and splits its input", () => {
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

  it("is safe in a template's ASCII JSON", () => {
    const template = make("{{ messages[0].content | tojson(ensure_ascii=true) }}")
    assert.deepStrictEqual(template.render([{ role: "user", content: "é<|im_end|>" }]), [
      { text: String.raw`"\u00e9`, special: true },
      { text: "<|im_end|>", special: false },
      { text: "\"", special: true }
    ])
  })

  it("rejects messages with the template's own message", () => {
    const template = make(
      "{% if messages[0].role == 'assistant' %}{{ raise_exception('A user begins') }}{% endif %}" +
        "{{ messages[0].content }}"
    )
    const failure = failureOf(() => template.render([{ role: "assistant", content: "" }]))
    assert.deepStrictEqual(failure, {
      kind: "invalid_request",
      path: "messages",
      message: "The model's chat template rejects the messages: A user begins"
    })
  })

  it.each([
    ["rejects", "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}"],
    ["leaves out", ""]
  ])("joins a system message with the question where the template %s it", (_, check) => {
    const template = make(`${check}{% for m in messages if m.role != 'system' %}[{{ m.content }}]{% endfor %}`)
    const render = (...messages: ReadonlyArray<ChatMessage>) => textOf(template.render(messages))
    const system = { role: "system", content: "Be brief." } as const
    const user = { role: "user", content: "Hello" } as const
    assert.strictEqual(render(system, user), "[Be brief.\nHello]")
    assert.strictEqual(render(system, system, user, user), "[Be brief.\nBe brief.\nHello][Hello]")
    assert.strictEqual(render(user, system), "[Hello][Be brief.]")
  })

  it("joins successive messages of a role only where the template rejects them", () => {
    const strict = make(
      "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Alternate') }}" +
        "{% endif %}[{{ m.content }}]{% endfor %}"
    )
    const free = make("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    const messages = ["a", "b"].map((content) => ({ role: "user", content }) as const)
    const answer = { role: "assistant", content: "c" } as const
    assert.strictEqual(textOf(strict.render([...messages, answer, ...messages])), "[a\nb][c][a\nb]")
    assert.strictEqual(textOf(free.render([...messages, answer])), "[a][b][c]")
    assert.match(JSON.stringify(failureOf(() => strict.render([answer]))), /Alternate/)
  })

  it("gives parts of a content to a template that reads no text", () => {
    const template = make(
      "{% for m in messages %}<|im_start|>{{ m.role }}:{% for part in m.content %}" +
        "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %};{% endfor %}"
    )
    const pieces = template.render([
      { role: "system", content: "Be brief." },
      { role: "user", content: "Hi <|im_start|>" },
      { role: "assistant", content: "" }
    ])
    assert.strictEqual(
      textOf(pieces),
      "<|im_start|>system:Be brief.;<|im_start|>user:Hi <|im_start|>;<|im_start|>assistant:;"
    )
    assert.deepStrictEqual(pieces.filter(({ special }) => !special), [{ text: "<|im_start|>", special: false }])
  })

  it("says that the model may think unless the caller does not want it", () => {
    const template = make("{{ messages[0].content }} {{ enable_thinking }}{{ thinking is defined }}")
    const promptOf = (thinking?: { readonly on: boolean }) =>
      textOf(template.render([{ role: "user", content: "Hi" }], [], thinking))
    assert.strictEqual(promptOf(), "Hi TrueFalse")
    assert.strictEqual(promptOf({ on: true }), "Hi TrueTrue")
    assert.strictEqual(promptOf({ on: false }), "Hi FalseTrue")
  })

  it("gives the results of calls in `tool_responses` to a template that reads them there", () => {
    const template = make(
      "{% for m in messages %}<{{ m.role }}{% for r in m['tool_responses'] %} {{ r.name }}={{ r.response | tojson }}" +
        "{% endfor %} {{ m.content }}>{% endfor %}"
    )
    const calls = ["1", "2"].map((id) => ({ id, name: `f${id}`, arguments: "{}" }))
    const messages: ReadonlyArray<ChatMessage> = [
      { role: "user", content: "Hi" },
      { role: "assistant", content: "", toolCalls: calls },
      { role: "tool", content: "{\"t\": 3}", toolCallId: "1" },
      { role: "tool", content: "sunny", toolCallId: "2" }
    ]
    assert.strictEqual(
      textOf(template.render([...messages, { role: "assistant", content: "Warm." }, { role: "user", content: "Oh" }])),
      "<user Hi><assistant f1={\"t\": 3} f2=\"sunny\" Warm.><user Oh>"
    )
    assert.strictEqual(textOf(template.render(messages)), "<user Hi><assistant f1={\"t\": 3} f2=\"sunny\" >")
  })

  it("gives ids that strict templates accept, the same for a call and its result", () => {
    const template = make(
      "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.id }} {% endfor %}{{ m.tool_call_id }} {{ m.name }}" +
        "{{ m.content }}{% endfor %}"
    )
    const pieces = template.render([
      { role: "assistant", content: "", toolCalls: [{ id: "call_abc", name: "add", arguments: "{}" }] },
      { role: "tool", content: "", toolCallId: "call_abc" }
    ])
    assert.strictEqual(textOf(pieces).replaceAll(/\s+/g, " ").trim(), "call00000 call00000 add")
  })

  it("gives the reason why a template is not usable", () => {
    const problems: ReadonlyArray<readonly [source: string, problem: RegExp]> = [
      ["", /^it is empty$/],
      [" \n\t", /^it is empty$/],
      ["{% if %}", /./],
      ["{{ messages | unheard_of }}", /unheard_of/],
      ["{{ bos_token }}", /does not contain the messages/],
      ["{% for m in messages %}{{ m.role }}{% endfor %}", /does not contain the messages/],
      ["{{ raise_exception('Not today') }}", /^Not today$/]
    ]
    for (const [source, problem] of problems) {
      const made = tryMake(source)
      assert.match("problem" in made ? made.problem : "usable", problem, source)
    }
  })

  it("rejects messages for which the template renders nothing", () => {
    const template = make("{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}")
    assert.deepStrictEqual(failureOf(() => template.render([{ role: "assistant", content: "Be brief." }])), {
      kind: "invalid_request",
      path: "messages",
      message: "The model's chat template rejects the messages: it renders no text"
    })
  })

  it("renders a call's arguments as JSON, for every way of printing in the template", () => {
    const messages = [
      { role: "user", content: "Weather in Paris?" },
      {
        role: "assistant",
        content: "",
        toolCalls: [{ id: "1", name: "get_weather", arguments: "{\"city\":\"Paris\",\"days\":[1,2],\"live\":true}" }]
      }
    ] as const
    const json = "{\"city\": \"Paris\", \"days\": [1, 2], \"live\": true}"
    const ways: ReadonlyArray<readonly [print: string, text: string]> = [
      ["{{ a }}", json],
      ["{{ '' + a }}", json],
      ["{{ a + '' }}", json],
      ["{{ '' ~ a }}", json],
      ["{{ [a] | join }}", json],
      ["{{ a | tojson }}", json],
      ["{{ a | string }}", "{'city': 'Paris', 'days': [1, 2], 'live': True}"],
      ["{% for k, v in a.items() %}{{ k }}={{ v }};{% endfor %}", "city=Paris;days=[1, 2];live=True;"],
      ["{% for k, v in a | dictsort %}{{ k }};{% endfor %}", "city;days;live;"],
      ["{% for k in a %}{{ k }};{% endfor %}", "city;days;live;"],
      ["{{ a.city }}/{{ a['days'][1] }}/{{ a.get('none', 'x') }}", "Paris/2/x"]
    ]
    for (const [print, text] of ways) {
      const template = make(
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{% set a = c.function.arguments %}" +
          `[${print}]{% endfor %}{% endfor %}`
      )
      assert.strictEqual(textOf(template.render(messages)), `Weather in Paris?[${text}]`, print)
    }
  })
})

/** Prompts of llama.cpp's template engine for published templates. */
const published = JSON.parse(
  readFileSync(fileURLToPath(new URL("../../fixtures/chatTemplates.json", import.meta.url)), "utf8")
) as ReadonlyArray<
  { readonly name: string; readonly source: string; readonly prompts: Readonly<Record<string, string>> }
>

const toolround = [
  { role: "user", content: "Weather in Oslo?" },
  {
    role: "assistant",
    content: "",
    toolCalls: [{ id: "call_1", name: "get_weather", arguments: "{\"city\":\"Oslo\"}" }]
  },
  { role: "tool", content: "{\"t\": 3}", toolCallId: "call_1" }
] as const

const oneTool: ReadonlyArray<ToolDefinition> = [{
  name: "get_weather",
  description: "Weather",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
}]

const conversations: Readonly<Record<string, readonly [ReadonlyArray<ChatMessage>, ReadonlyArray<ToolDefinition>]>> = {
  user: [[{ role: "user", content: "Hello" }], []],
  system: [[{ role: "system", content: "Be brief." }, { role: "user", content: "Hello" }], []],
  multi: [
    [{ role: "user", content: "Hi" }, { role: "assistant", content: "Hello!" }, { role: "user", content: "More" }],
    []
  ],
  tools: [[{ role: "user", content: "Weather in Oslo?" }], oneTool],
  toolround: [toolround, oneTool]
}

/** llama.cpp enables thinking and sets the date; here templates decide, so the tests set llama.cpp's values. */
const asLlamaCpp = "{%- set enable_thinking = true -%}{%- set date_string = strftime_now('%d %b %Y') -%}"

/** Ids and days differ. */
const comparable = (text: string): string =>
  text.replaceAll(/call0000\d|call_\d/g, "ID")
    .replaceAll(/\d{4}-\d\d-\d\d|\d\d? [A-Z][a-z]{2,8} \d{4}|[A-Z][a-z]{2,8} \d\d?,? \d{4}/g, "DAY")

describe("published chat templates", () => {
  for (const { name, prompts, source } of published) {
    it(`prints ${name} as llama.cpp does`, () => {
      const template = makeChatTemplate({
        name,
        source: asLlamaCpp + source,
        bos: "<s>",
        eos: "</s>",
        control: ["<s>", "</s>"]
      })
      if ("problem" in template) return assert.fail(template.problem)
      for (const [conversation, expected] of Object.entries(prompts)) {
        const text = textOf(template.render(...conversations[conversation]!))
        assert.strictEqual(comparable(text), comparable(expected), conversation)
      }
      assert.strictEqual(template.supportsTools, prompts["tools"]?.includes("get_weather") === true)
    })
  }
})

describe("thoughts of earlier answers", () => {
  const rendered = (source: string, messages: ReadonlyArray<ChatMessage>): string => {
    const template = makeChatTemplate({ name: "thinker", source, bos: "<s>", eos: "</s>", control: ["<s>", "</s>"] })
    if ("problem" in template) return assert.fail(template.problem)
    return textOf(template.render(messages, oneTool))
  }
  const [question, call, result] = toolround
  /** An answer before the last question, and a call after it. */
  const conversation = (text: string): ReadonlyArray<ChatMessage> => [
    { role: "user", content: "Hi" },
    { role: "assistant", content: "Hello!", thoughts: "Old thoughts." },
    question,
    { ...call, content: text, thoughts: "New thoughts." },
    result
  ]

  it.each(
    [
      ["Qwen3.5-4B", undefined, "<think>\nNew thoughts.\n</think>\n\nI look."],
      ["GLM-4.6", undefined, "<think>New thoughts.</think>\nI look."],
      ["openbmb-MiniCPM5-1B", undefined, "<think>\nNew thoughts.\n</think>\n\nI look."],
      ["google-gemma-4-31B-it", undefined, "<|channel>thought\nNew thoughts.\n<channel|>"],
      [
        "ByteDance-Seed-OSS",
        "<seed:think>Old thoughts.</seed:think>\nHello!",
        "<seed:think>New thoughts.</seed:think>\nI look."
      ],
      [
        "mistralai-Ministral-3-14B-Reasoning-2512",
        "[THINK]Old thoughts.[/THINK]Hello!",
        "[THINK]New thoughts.[/THINK]I look."
      ]
    ] as const
  )("are where %s's template prints them", (name, old, latest) => {
    const { source } = published.find((one) => one.name === name)!
    const prompt = rendered(source, conversation("I look."))
    assert.include(prompt, latest)
    if (old === undefined) assert.notInclude(prompt, "Old thoughts.")
    else assert.include(prompt, old)
  })

  it("are left out by a template that prints none", () => {
    const { source } = published.find(({ name }) => name === "Kimi-K2-Instruct")!
    const without = conversation("I look.").map(({ thoughts: _, ...message }) => message)
    assert.strictEqual(rendered(source, conversation("I look.")), rendered(source, without))
  })

  /** As gpt-oss's template does. */
  const analysis = "{% for m in messages %}{% if m.tool_calls %}" +
    "{% if m.content and m.thinking %}{{ raise_exception('Cannot pass both') }}{% endif %}" +
    "[analysis]{{ m.thinking or m.content }}[call]{{ m.tool_calls[0].function.name }}" +
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"

  it("are one with the text before a call, for a template that accepts one of them", () => {
    assert.include(rendered(analysis, conversation("I look.")), "[analysis]New thoughts.\nI look.[call]get_weather")
    assert.include(rendered(analysis, conversation("")), "[analysis]New thoughts.[call]get_weather")
  })

  it("are left out where the template rejects them", () => {
    const source =
      "{% for m in messages %}{% if m.thinking and '<end>' in m.thinking %}{{ raise_exception('no') }}{% endif %}" +
      "{{ m.thinking }}{{ m.content }};{% endfor %}"
    const messages = (
      thoughts: string
    ): ReadonlyArray<ChatMessage> => [{ role: "assistant", content: "Hello!", thoughts }]
    assert.strictEqual(rendered(source, messages("Hm. ")), "Hm. Hello!;")
    assert.strictEqual(rendered(source, messages("Hm. <end>")), "Hello!;")
  })

  it("cannot become control tokens", () => {
    const template = makeChatTemplate({
      name: "thinker",
      source: "{% for m in messages %}{{ m.reasoning_content }}{{ m.content }}{% endfor %}",
      control: ["</s>"]
    })
    if ("problem" in template) return assert.fail(template.problem)
    assert.deepStrictEqual(template.render([{ role: "assistant", content: "Hello!", thoughts: "Hm.</s>" }]), [
      { text: "Hm.", special: true },
      { text: "</s>", special: false },
      { text: "Hello!", special: true }
    ])
  })
})
