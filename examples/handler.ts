/** The HTTP API in a server of the program's own: as a function of web requests, and as a listener of Node's `http`. */
import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import OpenAI from "openai"
import { Troupe } from "troupe"

const troupe = Troupe.start()

// A function of requests, as the `fetch` of a client here, or as the route of Hono or Next.
const inProcess = new OpenAI({
  baseURL: "http://localhost/v1",
  apiKey: "none",
  fetch: (url, init) => troupe.handler(new Request(url, init))
})
const chat = {
  model: "tiny-chat",
  messages: [{ role: "user" as const, content: "What color is snow?" }],
  temperature: 0
}
const { choices: [choice] } = await inProcess.chat.completions.create(chat)
console.log(`handler: ${choice?.message.content ?? ""}`)

// A listener, as for Express and Fastify.
const server = createServer(troupe.listener)
await once(server.listen(0, "127.0.0.1"), "listening")
const { port } = server.address() as AddressInfo
const overHttp = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "none" })
let text = ""
for await (const chunk of await overHttp.chat.completions.create({ ...chat, stream: true })) {
  text += chunk.choices[0]?.delta.content ?? ""
}
console.log(`listener: ${text}`)

server.closeAllConnections()
server.close()
await troupe.close()
