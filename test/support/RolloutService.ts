/**
 * The real service in this process, whose model `chat` has a deployment at one provider and one that waits for a rollout at
 * another, each a server of this process. Periods of rollouts are milliseconds: a test waits for states, never for times.
 */
import { Context, Effect, Exit, Layer, Logger, Scope } from "effect"
import { HttpServer } from "effect/http"
import { once } from "node:events"
import type { Server } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import * as App from "../../src/App.ts"
import type { RolloutView } from "../../src/layers/http/RolloutSchema.ts"
import * as SettingsFile from "../../src/layers/settings/SettingsFile.ts"
import { Reload } from "../../src/services/settings/Reload.ts"
import { AdminAddress } from "../../src/services/settings/Settings.ts"

const bodyOf = (model: string): string =>
  JSON.stringify({
    id: "c",
    created: 1,
    object: "chat.completion",
    model,
    choices: [{ index: 0, message: { role: "assistant", content: model }, logprobs: null, finish_reason: "stop" }],
    usage: { prompt_tokens: 3, completion_tokens: 5, total_tokens: 8 }
  })

const failure = JSON.stringify({ error: { message: "No.", type: "server_error", code: null, param: null } })

/** A provider that answers with the name of the requested model, by default its own. */
export class ScriptedProvider {
  readonly name: string
  /** Whether it fails a request, by its number from 0. */
  fails: (index: number) => boolean = () => false
  /** Whether it leaves a request without an answer until `answer`. */
  hangs: (index: number) => boolean = () => false
  /** Requests so far. */
  count = 0
  readonly #server: Server
  #hanging: Array<() => void> = []

  constructor(name: string) {
    this.name = name
    this.#server = createServer((request, response) => {
      let text = ""
      request.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk
      }).once("end", () => {
        const index = this.count++
        const isFailed = this.fails(index)
        const respond = () => {
          response.writeHead(isFailed ? 500 : 200, { "content-type": "application/json" })
          response.end(isFailed ? failure : bodyOf((JSON.parse(text) as { readonly model: string }).model))
        }
        if (this.hangs(index)) this.#hanging.push(respond)
        else respond()
      })
    })
  }

  async listen(): Promise<void> {
    this.#server.listen(0, "127.0.0.1")
    await once(this.#server, "listening")
  }

  /** Answers what hangs, and hangs no longer. */
  answer(): void {
    this.hangs = () => false
    for (const respond of this.#hanging.splice(0)) respond()
  }

  get options() {
    const baseUrl = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1`
    return { provider: "openai", model: this.name, baseUrl, key: "none" } as const
  }

  close(): void {
    this.#server.close().closeAllConnections()
  }
}

/** A service between its callers and the providers. */
export interface RolloutService {
  /** The URL of administration. */
  readonly adminUrl: string
  /** The answer of a chat: the status, and the name of the model at the provider. */
  readonly ask: () => Promise<string>
  readonly admin: (method: "GET" | "POST", path: string, body?: object) => Promise<{ status: number; body: unknown }>
  /** The deployments of the model with a share of their own. */
  readonly versions: () => Promise<unknown>
  /** The newest rollout. */
  readonly rollout: () => Promise<RolloutView>
  /**
   * Applies other deployments of the model, as another configuration does.
   *
   * @param more settings of the model
   */
  readonly change: (deployments: ReadonlyArray<object>, more?: object) => Promise<void>
  readonly stop: () => Promise<void>
}

const json = { "content-type": "application/json" }

const adminOf = (adminUrl: string): RolloutService["admin"] => async (method, path, body) => {
  const given = body === undefined ? {} : { headers: json, body: JSON.stringify(body) }
  const response = await fetch(`${adminUrl}/admin/rollouts${path}`, { method, ...given })
  return { status: response.status, body: await response.json() }
}

const askAt = (url: string): RolloutService["ask"] => async () => {
  const body = JSON.stringify({ model: "chat", messages: [{ role: "user", content: "Hello" }] })
  const response = await fetch(`${url}/v1/chat/completions`, { method: "POST", headers: json, body })
  const { choices } = await response.json() as { choices?: ReadonlyArray<{ message: { content: string } }> }
  return `${response.status} ${choices?.[0]?.message.content ?? ""}`
}

/**
 * @param folder where the service stores
 * @param given deployments and other settings of the model, and settings beside the models
 */
export const startRolloutService = async (
  [stable, candidate]: readonly [ScriptedProvider, ScriptedProvider],
  folder: string,
  given: { readonly deployments?: ReadonlyArray<object>; readonly model?: object; readonly beside?: object } = {}
): Promise<RolloutService> => {
  const configOf = (deployments: ReadonlyArray<object>, more: object = given.model ?? {}) => ({
    config: {
      ...given.beside,
      server: { port: 0, shutdownGrace: "1 second", admin: { socket: false as const, port: 0 } },
      storage: { type: "sqlite" as const, folder },
      models: {
        chat: {
          deployments: deployments as never,
          rollout: {
            steps: [0.5, 1],
            every: "1 ms",
            evaluateEvery: "20 ms",
            minRequests: 20,
            metrics: ["errors" as const]
          },
          ...more
        }
      }
    }
  })
  const settings = SettingsFile.layer(
    configOf(given.deployments ?? [stable.options, { ...candidate.options, rollout: "candidate" }])
  )
  const scope = Scope.makeUnsafe()
  const context = await Effect.runPromise(
    Layer.buildWithScope(App.service.pipe(Layer.provide(settings), Layer.provide(Logger.layer([]))), scope)
  )
  const { address } = Effect.runSync(Effect.provideContext(HttpServer.HttpServer, context))
  const { url: adminUrl = "" } = Effect.runSync(Effect.provideContext(AdminAddress, context))
  const admin = adminOf(adminUrl)
  const url = `http://127.0.0.1:${(address as { readonly port: number }).port}`
  return {
    adminUrl,
    admin,
    ask: askAt(url),
    versions: async () => (await (await fetch(`${url}/v1/models/chat`)).json() as { versions?: unknown }).versions,
    rollout: async () => (await admin("GET", "/chat")).body as RolloutView,
    change: async (deployments, more) => {
      const { run } = Context.get(context, Reload)
      await Effect.runPromiseWith(context)(
        run({ trigger: "program", settings: SettingsFile.load(configOf(deployments, more)) })
      )
    },
    stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}
