/** The Engine seam's suite over every engine and both places it can run. */
import { fileURLToPath } from "node:url"
import type { Subject } from "./engine.ts"
import { engineConformance } from "./engine.ts"

const models = fileURLToPath(new URL("../../models/", import.meta.url))

const tinyChat: Omit<Subject, "name" | "options" | "where" | "abilities"> = {
  question: ["What is the capital of Japan?", "The capital of Japan is Tokyo."],
  long: "Write a story about a fox.",
  nearlyFull: `${"a ".repeat(485)}Write a story about a fox.`,
  tooLong: "a ".repeat(600),
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

const llama: Omit<Subject, "where"> = {
  ...tinyChat,
  name: "llama",
  options: { engine: "llama", file: `${models}tiny-chat-q8_0.gguf`, slots: 4, threads: 1 },
  abilities: ["generate", "tools", "format", "logprobs", "embed", "tokenize"]
}

const onnx = (device: "cpu" | "wasm"): Omit<Subject, "where"> => ({
  ...tinyChat,
  name: `onnx on ${device}`,
  options: { engine: "onnx", folder: `${models}tiny-chat-onnx`, device, slots: 4 },
  abilities: ["generate", "tools", "format", "logprobs", "tokenize"]
})

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
  engineConformance({ ...onnx("cpu"), where })
  engineConformance({ ...onnx("wasm"), where })
  engineConformance({ ...fake, where })
}
