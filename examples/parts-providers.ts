/** An application with providers and no engine: it starts no thread and loads no model. */
import { Console, Effect, Layer } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { App, Inference } from "troupe"

/** A fake provider with the same answer for each chat completion. */
const server = createServer((_, response) => {
  response.setHeader("content-type", "application/json").end(JSON.stringify({
    choices: [{ index: 0, message: { role: "assistant", content: "Snow is white." }, finish_reason: "stop" }],
    usage: { prompt_tokens: 5, completion_tokens: 4 }
  }))
})
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
const { port } = server.address() as AddressInfo

const config: App.Config = {
  models: {
    remote: {
      deployments: [{ provider: "openai", model: "gpt-4o-mini", baseUrl: `http://127.0.0.1:${port}/v1`, stream: false }]
    }
  }
}

const program = Effect.gen(function*() {
  const inference = yield* Inference.Inference
  const { deployment, text } = yield* inference.generate({
    model: "remote",
    messages: [{ role: "user", content: "What color is snow?" }]
  })
  yield* Console.log(`${deployment}: ${text}`)
})

const app = App.core.pipe(Layer.provide(App.providers), Layer.provide(App.settings({ config })))

await Effect.runPromise(Effect.provide(program, app))
server.close()
