/** The AI SDK with a model in this process: `streamText` with a tool, and the route of each step. */
import { isStepCount, jsonSchema, streamText, tool } from "ai"
import { Troupe } from "troupe"
import type { Metadata } from "troupe/ai-sdk"
import { createTroupe } from "troupe/ai-sdk"

const troupe = Troupe.start()
const models = createTroupe(troupe)

const result = streamText({
  model: models("tiny-chat"),
  instructions: "You are a helpful assistant.",
  prompt: "What is the weather in Paris?",
  temperature: 0,
  stopWhen: isStepCount(3),
  tools: {
    get_weather: tool({
      description: "Get the weather in a city",
      inputSchema: jsonSchema<{ readonly city: string }>({
        type: "object",
        properties: { city: { type: "string" } },
        required: ["city"],
        additionalProperties: false
      }),
      execute: ({ city }) => {
        console.log(`The weather in ${city}?`)
        return "sunny"
      }
    })
  },
  onStepEnd({ finishReason, providerMetadata }) {
    const { costUsd, deployment } = providerMetadata!["troupe"] as Metadata
    console.log(`${deployment}: ${finishReason}, ${costUsd ?? "unknown"} USD`)
  }
})

let text = ""
for await (const piece of result.textStream) text += piece
console.log(text)

await troupe.close()
