/** A model of another provider, with a local model that answers where the provider fails. */
import { createOpenAI } from "@ai-sdk/openai"
import { generateText, streamText, wrapLanguageModel } from "ai"
import { Troupe } from "troupe"
import { createTroupe, fallback } from "troupe/ai-sdk"

const troupe = Troupe.start()
const models = createTroupe(troupe)

// `fetch` never connects to port 9: this provider is always unavailable.
const openai = createOpenAI({ baseURL: "http://127.0.0.1:9/v1", apiKey: "none" })

const model = wrapLanguageModel({
  model: openai("gpt-5"),
  middleware: fallback(models("tiny-chat"), {
    when(error) {
      console.log(`The provider failed: ${String(error)}`)
      return true
    }
  })
})

const call = { model, prompt: "What color is snow?", temperature: 0 }
const { response, text } = await generateText(call)
console.log(`${response.modelId}: ${text}`)

for await (const piece of streamText(call).textStream) process.stdout.write(piece)
console.log()

await troupe.close()
