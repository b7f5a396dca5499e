/** The Engine seam's suite over every engine and both places it can run. */
import { fileURLToPath } from "node:url"
import type { Subject } from "./engine.ts"
import { engineConformance } from "./engine.ts"

const tinyChat = fileURLToPath(new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url))

const llama: Omit<Subject, "where"> = {
  name: "llama",
  options: { engine: "llama", file: tinyChat, slots: 4, threads: 1 },
  question: ["What is the capital of Japan?", "The capital of Japan is Tokyo."],
  long: "Write a story about a fox.",
  nearlyFull: `${"a ".repeat(485)}Write a story about a fox.`,
  tooLong: "a ".repeat(600),
  abilities: ["generate", "tools", "format", "logprobs", "embed", "tokenize"],
  keepsPrompts: true,
  calls: {
    prompt: "What is the weather in Paris?",
    tools: [
      {
        name: "get_weather",
        description: "Get the weather in a city",
        parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
      },
      {
        name: "add",
        description: "Add two numbers",
        parameters: {
          type: "object",
          properties: { a: { type: "number" }, b: { type: "number" } },
          required: ["a", "b"],
          additionalProperties: false
        }
      }
    ],
    name: "get_weather",
    arguments: { city: "Paris" }
  },
  formats: [
    { type: "json_object" },
    {
      type: "json_schema",
      schema: {
        type: "object",
        properties: { city: { type: "string", maxLength: 20 }, known: { type: "boolean" } },
        required: ["city", "known"],
        additionalProperties: false
      }
    }
  ]
}

const fake: Omit<Subject, "where"> = {
  name: "fake",
  options: { engine: "fake", slots: 4, contextSize: 200, tokenDelayMs: 1 },
  question: ["Grüße an die 🦊 und die 日本語", "fake: Grüße an die 🦊 und die 日本語"],
  long: "one two three four five six seven eight nine ten eleven twelve",
  nearlyFull: "word ".repeat(110),
  tooLong: "word ".repeat(200),
  abilities: ["generate", "tools", "format", "logprobs", "embed", "rerank", "classify", "tokenize"],
  keepsPrompts: false,
  formats: [{ type: "json_object" }]
}

for (const where of ["thread", "process"] as const) {
  engineConformance({ ...llama, where })
  engineConformance({ ...fake, where })
}
