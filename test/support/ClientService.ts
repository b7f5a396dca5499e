/** The service for tests of unmodified clients: local models, and remote ones of a provider in this process. */
import type { FaultServer, Play, Seen } from "./FaultServer.ts"
import { startFaultServer } from "./FaultServer.ts"
import type { Service } from "./Service.ts"
import { startService } from "./Service.ts"

export interface ClientService extends Service {
  readonly provider: FaultServer
}

/** What the remote model `thinker` thinks and says. */
export const thought = "Hm, snow."
export const said = "White."

const json = { "content-type": "application/json" }
const usage = {
  prompt_tokens: 3,
  completion_tokens: 5,
  total_tokens: 8,
  completion_tokens_details: { reasoning_tokens: 3 }
}

const chunk = (delta: object, rest: object = {}, finish_reason: string | null = null) =>
  `data: ${
    JSON.stringify({ id: "c", object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason }], ...rest })
  }\n\n`

const answer = ({ body }: Seen): Play => {
  if ((body as { readonly stream?: boolean }).stream === true) {
    return {
      pieces: [
        chunk({ role: "assistant", content: "" }),
        chunk({ reasoning_content: thought }),
        chunk({ content: said }),
        chunk({}, { usage }, "stop"),
        "data: [DONE]\n\n"
      ]
    }
  }
  const message = { role: "assistant", content: said, reasoning_content: thought }
  return {
    headers: json,
    pieces: [
      JSON.stringify({
        id: "c",
        object: "chat.completion",
        choices: [{ index: 0, message, finish_reason: "stop" }],
        usage
      })
    ]
  }
}

const failure = (status: number, message: string, headers: Record<string, string> = {}): Play => ({
  status,
  headers: { ...json, ...headers },
  pieces: [JSON.stringify({ error: { message } })]
})

const playOf = (shaky: { failures: number }) => (_: number, request: Seen): Play => {
  switch ((request.body as { readonly model: string }).model) {
    case "shaky":
      return shaky.failures-- > 0 ? failure(503, "Down for now.") : answer(request)
    case "limited":
      return failure(429, "Slow down.", { "retry-after": "3600" })
    case "down":
      return failure(503, "Down for now.")
    default:
      return answer(request)
  }
}

const remote = (model: string, url: string): object => ({
  preload: false,
  policy: "once",
  deployments: [{ provider: "openai", model, baseUrl: url, key: "${K}" }]
})

/**
 * Starts the service. Its models are `tiny-chat` and `tiny-embed`; `thinker`, whose answers have reasoning; `shaky`, which
 * fails once; `limited` and `down`, which always fail; and `fake/slow`, with one slot and an answer of minutes.
 */
export const startClientService = async (): Promise<ClientService> => {
  const provider = await startFaultServer(playOf({ failures: 1 }))
  const names = ["thinker", "shaky", "limited", "down"]
  const service = await startService(
    JSON.stringify({
      circuits: { failures: 1000 },
      policies: { once: { retries: 0 } },
      models: {
        "tiny-chat": { deployments: [{ engine: "llama", file: "builtin:tiny-chat" }] },
        "tiny-embed": { preload: false, deployments: [{ engine: "onnx", folder: "builtin:tiny-embed" }] },
        "fake/slow": {
          preload: false,
          deployments: [{
            engine: "fake",
            slots: 1,
            tokenDelayMs: 20,
            contextSize: 100_000,
            reply: "word ".repeat(10_000)
          }]
        },
        ...Object.fromEntries(names.map((name) => [name, remote(name, provider.url)]))
      }
    }),
    { K: "key" }
  )
  return {
    ...service,
    provider,
    stop: async () => {
      const finished = await service.stop()
      await provider.close()
      return finished
    }
  }
}
