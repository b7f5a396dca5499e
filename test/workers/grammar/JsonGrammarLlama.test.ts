import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Llama, LlamaContext, LlamaGrammar, LlamaModel } from "node-llama-cpp"
import { getLlama, LlamaGrammarEvaluationState, LlamaLogLevel } from "node-llama-cpp"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll } from "vitest"
import type { JsonSchema } from "../../../src/domain/Job.ts"
import type { Grammar } from "../../../src/workers/grammar/JsonGrammar.ts"
import { gbnfOf, grammarOf, makeMatcher, toolGrammar } from "../../../src/workers/grammar/JsonGrammar.ts"
import { buildFor } from "../../../src/workers/llama/LlamaLoad.ts"
import { jsonFits } from "../../support/JsonFits.ts"
import { examples } from "../../support/JsonSchemas.ts"

const file = fileURLToPath(new URL("../../../models/tiny-chat-q8_0.gguf", import.meta.url))

let llama: Llama
let model: LlamaModel
let context: LlamaContext

beforeAll(async () => {
  llama = await getLlama({
    gpu: buildFor(process.platform, process.arch),
    build: "never",
    logLevel: LlamaLogLevel.error,
    maxThreads: 1
  })
  model = await llama.loadModel({ modelPath: file, gpuLayers: 0 })
  context = await model.createContext({ contextSize: 512, sequences: 1, threads: 1 })
})

afterAll(() => llama.dispose())

const mostTokens = 200

/** The model's text under a grammar, and whether it ended by itself. */
const write = async (grammar: Grammar, seed: number) => {
  const native = await llama.createGrammar({ grammar: gbnfOf(grammar) })
  const sequence = context.getSequence()
  const prompt = model.tokenize(
    "<|im_start|>user\nExtract the name, age and city as JSON: Ruby is 34 years old and lives in Oslo.<|im_end|>\n" +
      "<|im_start|>assistant\n",
    true
  )
  const pieces: Array<number> = []
  let isWhole = false
  const tokens = sequence.evaluate(prompt, {
    temperature: 0.2 + (seed % 5) * 0.4,
    topK: 0,
    topP: 1,
    seed,
    yieldEogToken: true,
    grammarEvaluationState: new LlamaGrammarEvaluationState({ model, grammar: native })
  })
  for await (const token of tokens) {
    isWhole = model.isEogToken(token)
    if (isWhole || pieces.push(token) >= mostTokens) break
  }
  await sequence.dispose()
  return { isWhole, text: model.detokenize(pieces as never) }
}

const person = {
  type: "object",
  properties: {
    name: { type: "string" },
    age: { type: "integer", minimum: 0, maximum: 120 },
    city: { type: "string" }
  },
  required: ["name", "age"],
  additionalProperties: false
}

const schemas: Readonly<Record<string, JsonSchema>> = {
  "a bare string": { type: "string", maxLength: 20 },
  "a string of a length": { type: "string", minLength: 5, maxLength: 8 },
  "a boolean": { type: "boolean" },
  "an integer": { type: "integer" },
  "an integer in a range": { type: "integer", minimum: -17, maximum: 234 },
  "a number": { type: "number" },
  "a number in a range": { type: "number", minimum: 0, exclusiveMaximum: 1 },
  "an enum": { enum: ["Oslo", "Osaka", "Rome", 7, null, { a: [1] }] },
  "a pattern": { type: "string", pattern: "^[A-Z][a-z]{2,6}-\\d{3}$" },
  "a pattern anywhere": { type: "string", pattern: "[0-9]{2}", maxLength: 12 },
  "a date": { type: "string", format: "date" },
  "a moment": { type: "string", format: "date-time" },
  "an object": person,
  "an object of optional things": { ...person, required: [] },
  "alternatives": { anyOf: [person, { type: "null" }, { type: "array", items: { type: "integer" }, maxItems: 3 }] },
  "nested lists": {
    type: "array",
    minItems: 1,
    maxItems: 3,
    items: { type: "array", maxItems: 2, items: { type: "integer", minimum: 0, maximum: 9 } }
  },
  "a tuple": {
    type: "array",
    prefixItems: [{ type: "string", maxLength: 5 }, { type: "boolean" }],
    items: false,
    minItems: 2
  },
  "a record": { type: "object", additionalProperties: { type: "integer", minimum: 0, maximum: 99 } },
  "recursion": {
    $ref: "#/$defs/tree",
    $defs: {
      tree: {
        type: "object",
        properties: {
          value: { type: "integer", minimum: 0, maximum: 9 },
          children: { type: "array", items: { $ref: "#/$defs/tree" }, maxItems: 2 }
        },
        required: ["value", "children"]
      }
    }
  },
  "text in quotes and brackets": { enum: ["a\"b\\c", "[]^-", "é😀", "\u0001\n"] }
}

const seeds = [1, 22, 333, 4444, 55555]

let wholeAnswers = 0

describe("llama.cpp under a grammar", () => {
  for (const [name, schema] of Object.entries(schemas)) {
    it(`generates a valid ${name}`, async () => {
      const grammar = grammarOf({ type: "json_schema", schema })
      for (const seed of seeds) {
        const { isWhole, text } = await write(grammar, seed)
        const matcher = makeMatcher(grammar)
        assert.isTrue(matcher.allows(text), `the matcher disagrees on ${text}`)
        matcher.push(text)
        if (!isWhole) continue
        wholeAnswers++
        assert.isTrue(matcher.isComplete(), text)
        assert.isTrue(jsonFits(schema, JSON.parse(text)), text)
      }
    })
  }

  it("usually ends by itself", () => {
    assert.isAbove(wholeAnswers, Object.keys(schemas).length * seeds.length / 2)
  })

  it("writes any object", async () => {
    const grammar = grammarOf({ type: "json_object" })
    for (const seed of seeds) {
      const { isWhole, text } = await write(grammar, seed)
      assert.isTrue(makeMatcher(grammar).allows(text), text)
      if (isWhole) assert.isTrue(jsonFits({ type: "object" }, JSON.parse(text)), text)
    }
  })

  it("calls the required tool", async () => {
    const tools = [{
      name: "get_weather",
      parameters: { type: "object", properties: { city: { type: "string", maxLength: 12 } }, required: ["city"] }
    }]
    const grammar = toolGrammar(tools, { name: "get_weather" })
    for (const seed of seeds) {
      const { isWhole, text } = await write(grammar, seed)
      assert.isTrue(isWhole, text)
      assert.match(text, /^<tool_call>\n\{"name": "get_weather", "arguments": \{"city":.*\}\}\n<\/tool_call>$/)
    }
  })

  it("accepts the same texts as the matcher", async () => {
    for (const { schema, value } of fc.sample(examples, 100)) {
      const grammar = grammarOf({ type: "json_schema", schema: schema as JsonSchema })
      // Not in its types, and the only way to use llama.cpp's grammar without a model.
      const native = await llama.createGrammar({ grammar: gbnfOf(grammar) }) as LlamaGrammar & {
        readonly _testText: (text: string) => boolean
      }
      const text = JSON.stringify(value)
      const others = [
        `${text} `,
        text.slice(0, -1),
        text.replace("1", "2"),
        text.replace("a", "b"),
        text.replace("\"", "\"x")
      ]
      for (const one of [text, text.replace(":", ": "), ...others]) {
        const matcher = makeMatcher(grammar)
        matcher.push(one)
        assert.strictEqual(native._testText(one), matcher.isComplete(), `${one} for ${JSON.stringify(schema)}`)
      }
    }
  })

  it("accepts grammars of the largest size", async () => {
    const grammar = grammarOf({ type: "json_schema", schema: { type: "string", minLength: 9000, maxLength: 9500 } })
    const { text } = await write(grammar, 1)
    assert.isTrue(makeMatcher(grammar).allows(text))
  })
})
