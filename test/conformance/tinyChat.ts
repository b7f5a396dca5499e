/** The prompts of the engine suite for tiny-chat, local and remote. */
import type { Subject } from "./engine.ts"

export const prompts: Pick<Subject, "question" | "long" | "nearlyFull" | "tooLong" | "calls" | "formats"> = {
  question: ["What is the capital of Japan?", "The capital of Japan is Tokyo."],
  long: "Write a story about a fox.",
  nearlyFull: `${"a ".repeat(485)}Write a story about a fox.`,
  tooLong: "a ".repeat(600),
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
