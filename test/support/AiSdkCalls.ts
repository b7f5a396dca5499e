/** Calls of the `ai` package that a service answers in the same way through each of the package's providers. */
import { assert } from "@effect/vitest"
import type { LanguageModel } from "ai"
import { generateText, isStepCount, jsonSchema, Output, streamText, tool } from "ai"

const object = (properties: Record<string, object>) => ({
  type: "object" as const,
  properties,
  required: Object.keys(properties),
  additionalProperties: false
})

/** What all calls have, for the same answer each time. */
export const common = { instructions: "You are a helpful assistant.", temperature: 0, maxRetries: 0 }

/**
 * A call whose answer needs a tool.
 *
 * @param cities gets the city of each call of the tool
 */
export const weather = (cities: Array<string>) => ({
  ...common,
  prompt: "What is the weather in Paris?",
  tools: {
    get_weather: tool({
      description: "Get the weather in a city",
      inputSchema: jsonSchema<{ readonly city: string }>(object({ city: { type: "string" } })),
      execute: ({ city }) => {
        cities.push(city)
        return "sunny"
      }
    })
  },
  stopWhen: isStepCount(3)
})

/** The answers after a call of the tool, buffered and streamed, and the cities that the tool gets. */
export const answersOfTool = async (model: LanguageModel, more: { readonly maxOutputTokens?: number } = {}) => {
  const cities: Array<string> = []
  const call = { ...weather(cities), ...more, model }
  const texts = [(await generateText(call)).text, await streamText(call).text]
  return { texts, cities }
}

/** What `answersOfTool` is. */
export const sunny = { texts: ["It is sunny in Paris.", "It is sunny in Paris."], cities: ["Paris", "Paris"] }

/** A call whose answer is `ruby`. */
export const extraction = {
  ...common,
  prompt: "Extract the name, age and city as JSON: Ruby is 34 years old and lives in Oslo.",
  output: Output.object({
    schema: jsonSchema<{ readonly name: string; readonly age: number; readonly city: string }>(
      object({ name: { type: "string" }, age: { type: "integer" }, city: { type: "string" } })
    )
  })
}

export const ruby = { name: "Ruby", age: 34, city: "Oslo" }

const abortFirst = async (model: LanguageModel) => {
  const controller = new AbortController()
  const stream = streamText({
    ...common,
    model,
    prompt: "Go",
    maxOutputTokens: 5_000,
    abortSignal: controller.signal,
    onError: () => {}
  })
  for await (const piece of stream.textStream) {
    controller.abort()
    return piece
  }
  return assert.fail("ended")
}

/** The first pieces of two streams that are aborted: where a model has one slot, the second one waits for the first. */
export const abortTwice = async (model: LanguageModel) => [await abortFirst(model), await abortFirst(model)]
