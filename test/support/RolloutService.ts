/**
 * The real service in this process, whose model `chat` has a stable deployment and one that waits for a rollout, each at a
 * provider of this process.
 *
 * **Details**
 *
 * A provider answers, by chance or by the prompt, with an error, or late. Periods are milliseconds: a test waits for states,
 * never for times.
 */
import { Effect, Layer, Logger, Scope } from "effect"
import { HttpServer } from "effect/http"
import { once } from "node:events"
import type { Server, ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { setTimeout } from "node:timers/promises"
import * as App from "../../src/App.ts"
import type { RolloutView } from "../../src/layers/http/RolloutSchema.ts"
import * as SettingsFile from "../../src/layers/settings/SettingsFile.ts"
import { AdminAddress } from "../../src/services/settings/Settings.ts"

/** What a provider does with a request. */
export interface Behavior {
  /** Default 200. */
  readonly status?: number
  /** ms before the answer. */
  readonly delayMs?: number
  readonly finish?: string
}

const head = { id: "c", created: 1 }

const streamOf = (model: string, finish: string): string => {
  const chunk = (delta: object, reason: string | null) => {
    const choices = [{ index: 0, delta, finish_reason: reason }]
    return `data: ${JSON.stringify({ ...head, object: "chat.completion.chunk", model, choices })}\n\n`
  }
  return `${chunk({ role: "assistant", content: model }, null)}${chunk({}, finish)}data: [DONE]\n\n`
}

const bodyOf = (model: string, finish: string): string =>
  JSON.stringify({
    ...head,
    object: "chat.completion",
    model,
    choices: [
      { index: 0, message: { role: "assistant", content: model }, logprobs: null, finish_reason: finish }
    ],
    usage: { prompt_tokens: 3, completion_tokens: 5, total_tokens: 8 }
  })

/** A provider whose behavior may be changed at any time. */
export class ScriptedProvider {
  /** By the number of the request, from 0, and its prompt. */
  behave: (index: number, prompt: string) => Behavior = () => ({})
  /** Requests so far. */
  count = 0
  readonly #server: Server
  readonly name: string

  constructor(name: string) {
    this.name = name
    this.#server = createServer((request, response) => {
      let text = ""
      request.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk
      }).once("end", () => void this.#answer(text, response))
    })
  }

  async #answer(text: string, response: ServerResponse): Promise<void> {
    const { messages, stream } = JSON.parse(text) as {
      messages: ReadonlyArray<{ content: string }>
      stream?: boolean
    }
    const { delayMs = 0, finish = "stop", status = 200 } = this.behave(this.count++, messages.at(-1)!.content)
    if (delayMs > 0) await setTimeout(delayMs)
    if (status !== 200) {
      const error = { message: "No.", type: "server_error", code: null, param: null }
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify({ error }))
    } else if (stream === true) {
      response.writeHead(200, { "content-type": "text/event-stream" }).end(streamOf(this.name, finish))
    } else {
      response.writeHead(200, { "content-type": "application/json" }).end(bodyOf(this.name, finish))
    }
  }

  async listen(): Promise<void> {
    this.#server.listen(0, "127.0.0.1")
    await once(this.#server, "listening")
  }

  get baseUrl(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1`
  }

  close(): void {
    this.#server.close().closeAllConnections()
  }
}

/** Steps that pass at once, where the test does not say otherwise. */
export const quick = { every: "1 ms", evaluateEvery: "20 ms", minRequests: 20 }

/** A service and its providers. */
export interface RolloutService {
  readonly url: string
  readonly stable: ScriptedProvider
  readonly candidate: ScriptedProvider
  /** Answers of a chat: the status and the name of the provider. */
  readonly ask: (
    prompt?: string,
    headers?: Record<string, string>
  ) => Promise<{ status: number; by: string; text: string }>
  readonly admin: (method: "GET" | "POST", path: string, body?: object) => Promise<{ status: number; body: unknown }>
  readonly rollout: () => Promise<RolloutView>
  /** Asks until the rollout is as `check` wants it. */
  readonly askUntil: (check: (rollout: RolloutView) => boolean) => Promise<RolloutView>
  readonly stop: () => Promise<void>
}

const configOf = (
  stable: ScriptedProvider,
  candidate: ScriptedProvider,
  folder: string | undefined,
  extra: object
) => ({
  server: { port: 0, shutdownGrace: "1 second", admin: { socket: false, port: 0 } } as const,
  ...(folder === undefined ? {} : { storage: { type: "sqlite", folder } as const }),
  models: {
    chat: {
      deployments: [
        { provider: "openai", model: stable.name, baseUrl: stable.baseUrl, key: "none" },
        { provider: "openai", model: candidate.name, baseUrl: candidate.baseUrl, key: "none", rollout: "candidate" }
      ],
      rollout: quick,
      ...extra
    }
  }
})

/** @param folder where the service stores; default in memory */
export const startRolloutService = async (
  { extra = {}, folder, providers }: {
    readonly extra?: object
    readonly folder?: string
    readonly providers?: readonly [ScriptedProvider, ScriptedProvider]
  } = {}
): Promise<RolloutService> => {
  const [stable, candidate] = providers ?? [new ScriptedProvider("old"), new ScriptedProvider("new")]
  if (providers === undefined) await Promise.all([stable.listen(), candidate.listen()])
  const scope = Scope.makeUnsafe()
  const settings = SettingsFile.layer({ config: configOf(stable, candidate, folder, extra) as never })
  const context = await Effect.runPromise(
    Layer.buildWithScope(App.service.pipe(Layer.provide(settings), Layer.provide(Logger.layer([]))), scope)
  )
  const { address } = Effect.runSync(Effect.provide(HttpServer.HttpServer, context))
  const url = `http://127.0.0.1:${(address as { port: number }).port}`
  const { url: adminUrl } = Effect.runSync(Effect.provide(AdminAddress, context))
  const admin: RolloutService["admin"] = async (method, path, body) => {
    const response = await fetch(`${adminUrl}/admin/rollouts${path}`, {
      method,
      ...(body === undefined
        ? {}
        : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) })
    })
    const text = await response.text()
    if (text === "") throw new Error(`${method} ${path}: ${response.status} without a body`)
    return { status: response.status, body: JSON.parse(text) }
  }
  const ask: RolloutService["ask"] = async (prompt = "Hello", headers = {}) => {
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify({ model: "chat", messages: [{ role: "user", content: prompt }] })
    })
    const text = await response.text()
    const { choices } = JSON.parse(text) as { choices?: ReadonlyArray<{ message: { content: string } }> }
    return { status: response.status, by: choices?.[0]?.message.content ?? "", text }
  }
  const rollout = async () => (await admin("GET", "/chat")).body as RolloutView
  return {
    url,
    stable,
    candidate,
    ask,
    admin,
    rollout,
    askUntil: async (check) => {
      for (;;) {
        const found = await rollout()
        if (check(found)) return found
        await Promise.all(Array.from({ length: 20 }, () => ask()))
      }
    },
    stop: async () => {
      await Effect.runPromise(Scope.close(scope, await Effect.runPromise(Effect.exit(Effect.void))))
      if (providers !== undefined) return
      stable.close()
      candidate.close()
    }
  }
}
