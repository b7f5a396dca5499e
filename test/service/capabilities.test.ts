/**
 * Capabilities over HTTP, by endpoint and dialect: a deployment without the capability is skipped; if no deployment has
 * it, the request is rejected. Neither counts as a failure for a circuit.
 */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const abilities = ["generate", "tools", "format", "logprobs", "embed", "rerank", "classify", "tokenize"] as const
type Ability = typeof abilities[number]

const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 }

/** The providers' answers: OpenAI's chat completion, and Anthropic's message and count. */
const replies: ReadonlyArray<readonly [path: RegExp, body: object]> = [
  [/chat\/completions$/, {
    choices: [{ index: 0, message: { role: "assistant", content: "remote" }, finish_reason: "stop" }],
    usage
  }],
  [/more\/completions$/, { choices: [{ index: 0, text: "remote", finish_reason: "stop" }], usage }],
  [/more\/embeddings$/, { data: [{ index: 0, embedding: [1, 0] }], usage }],
  [/count_tokens$/, { input_tokens: 7 }],
  [/messages$/, {
    id: "msg_1",
    type: "message",
    role: "assistant",
    content: [{ type: "text", text: "remote" }],
    stop_reason: "end_turn",
    usage: { input_tokens: 1, output_tokens: 1 }
  }]
]

let upstream: FaultServer
let service: Service

beforeAll(async () => {
  upstream = await startFaultServer((_, request) => {
    const body = replies.find(([path]) => path.test(request.path))?.[1]
    const headers = { "content-type": "application/json" }
    // The operation does not exist at this provider.
    return body === undefined ? { status: 405, headers, pieces: ["{}"] } : { headers, pieces: [JSON.stringify(body)] }
  })
  const fake = (...without: ReadonlyArray<Ability>) =>
    `{ engine: fake, abilities: [${abilities.filter((ability) => !without.includes(ability)).join(", ")}] }`
  const openAi = `{ provider: openai, model: gpt, baseUrl: "${upstream.url}", stream: false }`
  const anthropic = `{ provider: anthropic, model: claude, baseUrl: "${upstream.url}", stream: false }`
  /** With chat only. */
  const chatOnly = (remote: string) => remote.replace("stream: false", "stream: false, abilities: [generate]")
  const models = [
    ...abilities.flatMap((ability) => [
      `  fake/${ability}: { deployments: [${fake(ability)}, ${fake()}] }`,
      `  fake/no-${ability}: { deployments: [${fake(ability)}, ${fake(ability)}] }`
    ]),
    `  openai: { deployments: [${anthropic}, ${openAi}] }`,
    `  anthropic: { deployments: [${openAi}, ${anthropic}] }`,
    `  openai-images: { deployments: [${chatOnly(openAi)}, ${openAi}] }`,
    `  anthropic-images: { deployments: [${chatOnly(anthropic)}, ${anthropic}] }`,
    `  anthropic-format: { deployments: [${chatOnly(anthropic)}, ${anthropic}] }`,
    `  anthropic-no-format: { deployments: [${chatOnly(anthropic)}, ${chatOnly(anthropic)}] }`,
    `  fake/no-more: { deployments: [${fake()}, ${fake()}] }`,
    `  learned: { deployments: [${openAi}, ${openAi.replace(upstream.url, `${upstream.url}/more`)}] }`,
    `  no-learned: { deployments: [${openAi}, ${openAi}] }`
  ]
  service = await startService(`models:\n${models.join("\n")}\n`)
})
afterAll(async () => {
  await service.stop()
  await upstream.close()
})

const image = "data:image/png;base64,AAAA"
const parameters = { type: "object", properties: {} }
const messages = [{ role: "user", content: "Hi" }]
const chat = "/v1/chat/completions"
const message = "/v1/messages"
const part = (value: object) => ({ messages: [{ role: "user", content: [{ type: "text", text: "Hi" }, value] }] })
const anthropicImage = { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } }
const anthropicTool = { name: "a", input_schema: parameters }

interface Row {
  readonly capability: string
  readonly path: string
  /** Besides the model. */
  readonly fields: object
  /** A model whose first deployment lacks the capability, and whose second has it. */
  readonly model: string
  /** A model without it. */
  readonly none: string
  /** The field that the error names. */
  readonly param: string
}

const row = (
  capability: string,
  path: string,
  fields: object,
  param: string,
  model = `fake/${capability}`,
  none = `fake/no-${capability}`
): Row => ({ capability, path, fields, model, none, param })

const tool = { type: "function", function: { name: "a", parameters } }
const audio = { type: "input_audio", input_audio: { data: "AAAA", format: "wav" } }

const rows: ReadonlyArray<Row> = [
  row("generate", chat, { messages }, "model"),
  row("generate", message, { messages }, "model"),
  row("embed", "/v1/embeddings", { input: "Hi" }, "model"),
  row("rerank", "/v1/rerank", { query: "Hi", documents: ["a"] }, "model"),
  row("classify", "/v1/classify", { input: "Hi" }, "model"),
  row("tokenize", "/v1/tokenize", { prompt: "Hi" }, "model"),
  row("tools", chat, { messages, tools: [tool] }, "tools"),
  row("tools", message, { messages, tools: [anthropicTool] }, "tools"),
  row("tools", "/v1/tokenize", { messages, tools: [tool] }, "tools"),
  row("format", chat, { messages, response_format: { type: "json_object" } }, "response_format"),
  row(
    "format",
    message,
    { messages, output_config: { format: { type: "json_schema", schema: parameters } } },
    "output_config.format",
    "anthropic-format",
    "anthropic-no-format"
  ),
  row("logprobs", chat, { messages, logprobs: true }, "logprobs"),
  row(
    "images",
    chat,
    part({ type: "image_url", image_url: { url: image } }),
    "messages[0].content[1]",
    "openai-images",
    "fake/no-more"
  ),
  row("images", message, part(anthropicImage), "messages[0].content[1]", "anthropic-images", "fake/no-more"),
  row("audio", chat, part(audio), "messages[0].content[1]", "openai", "fake/no-more"),
  row(
    "documents",
    message,
    part({ type: "document", source: { type: "file", file_id: "f" } }),
    "messages[0].content[1]",
    "anthropic",
    "fake/no-more"
  ),
  row("unknown fields", chat, { messages, prediction: {} }, "prediction", "openai", "fake/no-more"),
  row("unknown fields", message, { messages, container: "c" }, "container", "anthropic", "fake/no-more"),
  row("count", `${message}/count_tokens`, { messages }, "model", "anthropic", "fake/no-tokenize"),
  row("embed, by a refusal", "/v1/embeddings", { input: "Hi" }, "model", "learned", "no-learned"),
  row("complete, by a refusal", "/v1/completions", { prompt: "Hi" }, "model", "learned", "no-learned")
]

const post = async (path: string, body: object) => {
  const response = await fetch(`${service.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...path === message ? { max_tokens: 9 } : {}, ...body })
  })
  return {
    status: response.status,
    deployment: decodeURIComponent(response.headers.get("x-troupe-deployment") ?? ""),
    json: await response.json() as { readonly error?: { readonly message: string; readonly param?: string | null } }
  }
}

const openCircuits = async () => {
  const { circuits } = await (await fetch(`${service.admin}/admin/circuits`)).json() as {
    readonly circuits: ReadonlyArray<{ readonly phase: string }>
  }
  return circuits.filter(({ phase }) => phase !== "closed")
}

describe.each(rows.map((one) => [one.capability, one.path, one] as const))("%s at %s", (_, path, one) => {
  const { fields, model, none, param } = one

  it("is answered by the deployment that has it", async () => {
    const { deployment, json, status } = await post(path, { ...fields, model })
    assert.deepStrictEqual([status, deployment], [200, `${model}#1`], JSON.stringify(json))
  })

  it("is rejected by its field if no deployment has it", async () => {
    const { json, status } = await post(path, { ...fields, model: none })
    assert.strictEqual(status, 400, JSON.stringify(json))
    const { error } = json
    if (path.startsWith(message)) assert.match(error!.message.replace(param, "FIELD"), /^FIELD(?:\.type)?: /)
    else assert.strictEqual(error?.param, param, error?.message)
  })

  it("opens no circuit", async () => {
    for (let times = 0; times < 6; times++) {
      await post(path, { ...fields, model })
      await post(path, { ...fields, model: none })
    }
    assert.deepStrictEqual(await openCircuits(), [])
  })
})
