/** Requests as coding agents send them are answered by local models and by remote ones of every dialect. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { AgentRequest } from "../support/AgentRequests.ts"
import { chatAgents, claudeCode, claudeCount, codexCli } from "../support/AgentRequests.ts"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"
import type { Dialect } from "../support/Wires.ts"
import { wires } from "../support/Wires.ts"

const dialects: ReadonlyArray<Dialect> = ["openai", "anthropic", "gemini", "ollama"]

const calling = (name: string): string =>
  `I look.<tool_call>{"name": "${name}", "arguments": {"command": "ls"}}</tool_call>`

/** The local models: one that answers with text, and those that call the tool of an agent. */
const local = {
  "fake/says": "Here they are.",
  "fake/Bash": calling("Bash"),
  "fake/shell": calling("shell"),
  "fake/bash": calling("bash")
}

let upstream: FaultServer
let service: Service

const dialectOf = (path: string): Dialect => {
  if (path.startsWith("/v1beta") || path.includes(":stream") || path.includes(":generate")) return "gemini"
  if (path.includes("/api/")) return "ollama"
  return path.includes("/messages") ? "anthropic" : "openai"
}

beforeAll(async () => {
  const json = { "content-type": "application/json" }
  upstream = await startFaultServer((_, { body, path }) => {
    const wire = wires[dialectOf(path)]
    const isStreamed = (body as { readonly stream?: boolean }).stream === true || path.includes(":stream")
    return isStreamed ? { headers: wire.headers, pieces: wire.pieces } : { headers: json, pieces: [wire.buffered] }
  })
  const fakes = Object.entries(local).map(([name, reply]) => [name, {
    preload: false,
    deployments: [{ engine: "fake", contextSize: 100_000, reply }]
  }])
  const remotes = dialects.map((provider) => [provider, {
    preload: false,
    deployments: [{ provider, model: "up", baseUrl: upstream.url, ...(provider === "ollama" ? {} : { key: "${K}" }) }]
  }])
  service = await startService(
    JSON.stringify({
      circuits: { failures: 1000 },
      policies: { default: { retries: 0 } },
      models: Object.fromEntries([...fakes, ...remotes]) as object
    }),
    { K: "key" }
  )
}, 60_000)

afterAll(async () => {
  await service.stop()
  await upstream.close()
})

const send = async ({ body, headers, path }: AgentRequest, model: string) => {
  const response = await fetch(`${service.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ ...body, model })
  })
  return { status: response.status, text: await response.text() }
}

/** The fake engine shuffles the words of its reply at other temperatures. */
const greedy = (request: AgentRequest): AgentRequest => ({ ...request, body: { ...request.body, temperature: 0 } })

/** Whether the stream is complete, or the answer is not streamed. */
const isComplete = ({ body, path }: AgentRequest, text: string): boolean => {
  if (body["stream"] !== true) return text.endsWith("}")
  if (path.startsWith("/v1/messages")) return text.includes("event: message_stop")
  return path.startsWith("/v1/responses") ? text.includes("event: response.completed") : text.includes("data: [DONE]")
}

const { "a title as JSON": title, ...claudeOthers } = claudeCode
const { "a tool of the provider": ofProvider, ...codexOthers } = codexCli
const agents = { "Claude Code": claudeOthers, Codex: codexOthers, "An agent over chat completions": chatAgents }

for (const [agent, requests] of Object.entries(agents)) {
  describe(agent, () => {
    for (const [name, request] of Object.entries(requests as Record<string, AgentRequest>)) {
      it.each(["fake/says", ...dialects])(`gets an answer to ${name} from %s`, async (model) => {
        const { status, text } = await send(request, model)
        assert.strictEqual(status, 200, text)
        assert.isTrue(isComplete(request, text), text)
      })
    }
  })
}

describe("Claude Code", () => {
  it.each(dialects)("gets a title as JSON from %s", async (model) => {
    const { status, text } = await send(title, model)
    assert.strictEqual(status, 200, text)
    assert.isTrue(isComplete(title, text), text)
  })

  it("counts the tokens of its prompt on a local model", async () => {
    const { status, text } = await send(claudeCount, "fake/says")
    assert.strictEqual(status, 200, text)
    assert.isAbove((JSON.parse(text) as { readonly input_tokens: number }).input_tokens, 100)
  })

  it("gets a call of its tool from a local model", async () => {
    const { text } = await send(greedy(claudeCode["results of tools"]), "fake/Bash")
    assert.include(text, "\"type\":\"tool_use\"")
    assert.include(text, "\"name\":\"Bash\"")
    assert.include(text, "\"stop_reason\":\"tool_use\"")
  })

  it("reaches a provider of its dialect unchanged: marks, thoughts with signatures, edits of the context", async () => {
    const request = claudeCode["results of tools"]
    const from = upstream.seen.length
    await send(request, "anthropic")
    const { body, headers } = upstream.seen[from]!
    const { model: _, stream: __, ...sent } = body as Record<string, unknown>
    const { stream: ___, ...asked } = request.body
    assert.deepStrictEqual(sent, asked)
    assert.strictEqual(headers["anthropic-beta"], request.headers["anthropic-beta"])
  })
})

describe("Codex", () => {
  it("gets a call of its tool from a local model", async () => {
    const { text } = await send(greedy(codexCli["results of tools"]), "fake/shell")
    const [, data] = /event: response.function_call_arguments.done\ndata: (.*)/.exec(text) ?? []
    assert.strictEqual((JSON.parse(data!) as { readonly arguments: string }).arguments, "{\"command\": \"ls\"}")
  })

  it("is told which tool is not supported", async () => {
    const { status, text } = await send(ofProvider, "fake/says")
    assert.strictEqual(status, 400)
    for (const name of ["tools[2].type", "web_search"]) assert.include(text, name)
  })
})

describe("An agent over chat completions", () => {
  it("gets a call of its tool from a local model", async () => {
    const { text } = await send(greedy(chatAgents["OpenCode with results of tools"]), "fake/bash")
    assert.include(text, "\"name\":\"bash\"")
    assert.include(text, "\"finish_reason\":\"tool_calls\"")
    assert.include(text, "\"usage\":{")
  })
})
