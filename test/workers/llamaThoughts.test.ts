/** Thoughts of GGUF models with control tokens, through the real engine: what they say is a script. */
import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import { answersOf } from "../support/ScriptedAnswers.ts"

const tools = [{ name: "f", description: "F.", parameters: { type: "object", properties: { a: { type: "number" } } } }]

const channels = ["<|return|>", "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>"]
const harmony = "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}" +
  "{% if tools %}{{ tools[0].function.name }}{% endif %}<|start|>assistant{# <|channel|> #}"

describe("a GGUF model", () => {
  it("with control tokens around its thoughts has them apart from the text", async () => {
    const [answer, limited] = await answersOf({
      control: ["<|end|>", "<think>", "</think>"],
      template: "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}{# <think> #}",
      prompt: "Hi<|end|>",
      answer: "<think>\nHm, é.\n</think>\n\nHello."
    }, [{}, { maxTokens: 4 }])
    assert.deepInclude(answer!, { thoughts: "Hm, é.", text: "Hello." })
    assert.deepInclude(answer!.last, { reason: "stop" })
    assert.isAbove(answer!.last.usage.reasoningTokens!, 7)
    assert.deepInclude(limited!, { thoughts: "Hm", text: "" })
    assert.deepInclude(limited!.last, { reason: "length" })
  }, 60_000)

  it("whose template begins the thoughts has them apart, too, and none where the caller wants none", async () => {
    const script = {
      control: ["<|end|>", "<think>", "</think>"],
      template: "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}{{ '<think>\n' }}",
      prompt: "Hi<|end|><think>\n",
      answer: "Hm.</think>Hello."
    }
    const [answer] = await answersOf(script, [{}])
    assert.deepInclude(answer!, { thoughts: "Hm.", text: "Hello." })
    const closed = { ...script, prompt: `${script.prompt}\n</think>\n\n`, answer: "Hello." }
    const [none, formatted] = await answersOf(closed, [{ thinking: { on: false } }, {
      format: { type: "json_object" },
      maxTokens: 8
    }])
    assert.deepInclude(none!, { thoughts: "", text: "Hello." })
    assert.strictEqual(formatted!.thoughts, "")
    assert.match(formatted!.text, /^\s*\{/)
  }, 60_000)

  it("with channels has thoughts, text and calls of tools", async () => {
    const analysis = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    const [answer] = await answersOf({
      control: channels,
      template: harmony,
      prompt: "<|start|>user<|message|>Hi<|end|><|start|>assistant",
      answer: `${analysis}<|channel|>final<|message|>Hello.`
    }, [{}])
    assert.deepInclude(answer!, { thoughts: "Hm.", text: "Hello." })
    const [called] = await answersOf({
      control: channels,
      template: harmony,
      prompt: "<|start|>user<|message|>Hi<|end|>f<|start|>assistant",
      answer: `${analysis}<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a":1}<|call|>`
    }, [{ tools }])
    assert.deepInclude(called!, { thoughts: "Hm.", text: "", calls: [["f", "{\"a\":1}"]] })
    assert.deepInclude(called!.last, { reason: "tool_calls" })
  }, 60_000)

  it("with channels is forced to call in a message of its own, with arguments that fit the schema", async () => {
    const script = {
      control: channels,
      template: harmony,
      prompt: "<|start|>user<|message|>Hi<|end|>f<|start|>assistant"
    }
    const call = (args: string) => `<|channel|>commentary to=functions.f <|constrain|>json<|message|>${args}<|call|>`
    const [forced] = await answersOf({ ...script, answer: call("{\"a\": 1}") }, [{ tools, toolChoice: "required" }])
    assert.deepInclude(forced!, { thoughts: "", text: "", calls: [["f", "{\"a\": 1}"]] })
    assert.deepInclude(forced!.last, { reason: "tool_calls" })
    const listed = [{ ...tools[0]!, parameters: { type: "object", properties: { a: { enum: [3, 5] } } } }]
    const [corrected] = await answersOf({
      ...script,
      answer: `<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant${call("{\"a\": x}")}`
    }, [{ tools: listed }])
    assert.strictEqual(corrected!.thoughts, "Hm.")
    assert.match(corrected!.calls[0]![1], /^\{"a": [35]\}$/)
  }, 60_000)

  it("with markers of its own has them apart where the deployment names them", async () => {
    const script = {
      control: ["<|end|>"],
      template: "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}",
      prompt: "Hi<|end|>",
      answer: "((Hm.)) Hello."
    }
    const [answer] = await answersOf(script, [{}], { reasoning: { start: "((", end: "))" } })
    assert.deepInclude(answer!, { thoughts: "Hm.", text: "Hello." })
    const [plain] = await answersOf(script, [{}])
    assert.deepInclude(plain!, { thoughts: "", text: "((Hm.)) Hello." })
  }, 60_000)
})
