/** The sixteen faults of a provider that a caller must not see, as scripts of two deployments and the expected outcome. */
import type { Play, Seen } from "./FaultServer.ts"

export const providerDialects = ["openai", "anthropic"] as const
export type ProviderDialect = typeof providerDialects[number]

/** The names of the deployments at their providers. */
export const names = { first: "model-of-the-first", next: "model-of-the-next" } as const
export type Name = keyof typeof names

const words = "The quick brown fox jumps over the lazy dog and runs away before it wakes up.".split(/(?<= )/)
export const text = words.join("")
export const tokens = { prompt: 19, completion: 21 } as const

const json = { "content-type": "application/json" }
const events = { "content-type": "text/event-stream" }
const sse = (data: object): string => `data: ${JSON.stringify(data)}\n\n`

const chunk = (delta: object, finish_reason: string | null = null): string =>
  sse({
    id: "c",
    object: "chat.completion.chunk",
    created: 1,
    model: "m",
    choices: [{ index: 0, delta, finish_reason }]
  })

const named = (data: { readonly type: string; readonly [name: string]: unknown }): string =>
  `event: ${data.type}\n${sse(data)}`

const openAiUsage = { prompt_tokens: 19, completion_tokens: 21, total_tokens: 40 }
const anthropicUsage = { input_tokens: 19, output_tokens: 21 }

/** One answer of a provider's dialect. */
interface Wire {
  readonly begin: ReadonlyArray<string>
  readonly piece: (text: string) => string
  readonly end: ReadonlyArray<string>
  /** An event that is not JSON. */
  readonly malformed: string
  readonly whole: (text: string) => string
  readonly refused: string
  readonly tooLong: string
}

const wires: Readonly<Record<ProviderDialect, Wire>> = {
  openai: {
    begin: [chunk({ role: "assistant", content: "" })],
    piece: (content) => chunk({ content }),
    end: [chunk({}, "stop"), sse({ choices: [], usage: openAiUsage }), "data: [DONE]\n\n"],
    malformed: "data: {\"choices\":[{\"index\":0,\"delta\":{\"conte\n\n",
    whole: (content) =>
      JSON.stringify({
        id: "c",
        object: "chat.completion",
        created: 1,
        model: "m",
        choices: [{ index: 0, message: { role: "assistant", content }, finish_reason: "stop" }],
        usage: openAiUsage
      }),
    refused: JSON.stringify({
      error: { message: "No.", type: "invalid_request_error", code: "content_policy_violation" }
    }),
    tooLong: JSON.stringify({ error: { message: "Too long.", code: "context_length_exceeded" } })
  },
  anthropic: {
    begin: [
      named({
        type: "message_start",
        message: {
          id: "msg",
          type: "message",
          role: "assistant",
          model: "m",
          content: [],
          stop_reason: null,
          stop_sequence: null,
          usage: { input_tokens: 19, output_tokens: 1 }
        }
      }),
      named({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } })
    ],
    piece: (text) => named({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } }),
    end: [
      named({ type: "content_block_stop", index: 0 }),
      named({
        type: "message_delta",
        delta: { stop_reason: "end_turn", stop_sequence: null },
        usage: { output_tokens: 21 }
      }),
      named({ type: "message_stop" })
    ],
    malformed: "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"ty\n\n",
    whole: (text) =>
      JSON.stringify({
        id: "msg",
        type: "message",
        role: "assistant",
        model: "m",
        content: [{ type: "text", text }],
        stop_reason: "end_turn",
        stop_sequence: null,
        usage: anthropicUsage
      }),
    refused: JSON.stringify({
      type: "error",
      error: { type: "invalid_request_error", message: "Output blocked by content filtering policy" }
    }),
    tooLong: JSON.stringify({
      type: "error",
      error: { type: "invalid_request_error", message: "prompt is too long: 2000 tokens > 1000 maximum" }
    })
  }
}

const cutAfter = 7

/** The answer of a provider, in the mode that it is asked in. */
const answerOf = (wire: Wire, stream: boolean): Play =>
  stream
    ? { headers: events, pieces: [...wire.begin, ...words.map(wire.piece), ...wire.end] }
    : { headers: json, pieces: [wire.whole(text)] }

/** An answer that ends after some words, or half of its body. */
const brokenOff = (wire: Wire, stream: boolean, kind: "cut" | "stall"): Play => {
  const whole = wire.whole(text)
  const pieces = stream
    ? [...wire.begin, ...words.slice(0, cutAfter).map(wire.piece)]
    : [whole.slice(0, whole.length / 2)]
  return { headers: stream ? events : json, pieces, fault: { kind, after: pieces.length } }
}

const refusal = (status: number, body: string, headers: Readonly<Record<string, string>> = {}): Play => ({
  status,
  headers: { ...json, ...headers },
  pieces: [body]
})

/** Whether a request ends with the text so far, which some models reject. */
const hasPrefill = ({ body }: Seen): boolean =>
  (body as { readonly messages: ReadonlyArray<{ readonly role: string }> }).messages.at(-1)!.role === "assistant"

interface Expected {
  readonly by: Name
  /** The deployment that the answer begins with. */
  readonly from?: Name
}

export interface Fault {
  readonly name: string
  /** What the first deployment does. */
  readonly play: (wire: Wire, stream: boolean) => Play
  readonly outcome: (stream: boolean) => Expected
  readonly policy?: string
  /** Fields of the model that name what comes after the first deployment; default a second deployment. */
  readonly next?: "contextFallbacks" | "contentFallbacks"
  /** Default 1. */
  readonly requests?: number
  /** Requests that the first deployment gets at most; default 1. */
  readonly most?: number
}

const byNext = (): Expected => ({ by: "next" })
const continued = (stream: boolean): Expected => ({ by: "next", from: stream ? "first" : "next" })
const byFirst = (): Expected => ({ by: "first" })
const serverError = JSON.stringify({ error: { message: "Something failed.", type: "api_error" } })

export const faults: ReadonlyArray<Fault> = [
  { name: "429 with Retry-After", play: () => refusal(429, serverError, { "retry-after": "60" }), outcome: byNext },
  { name: "429 without Retry-After", play: () => refusal(429, serverError), outcome: byNext },
  { name: "500", play: () => refusal(500, serverError), outcome: byNext, policy: "again", most: 2 },
  { name: "503", play: () => refusal(503, serverError), outcome: byNext },
  { name: "reset", play: () => ({ pieces: [], silent: "reset" }), outcome: byNext },
  { name: "silence", play: () => ({ pieces: [], silent: "stall" }), outcome: byNext, policy: "limited" },
  {
    name: "slow first token",
    play: ({ begin }, stream) => ({
      headers: stream ? events : json,
      pieces: stream ? begin : [],
      fault: { kind: "stall", after: begin.length }
    }),
    outcome: byNext,
    policy: "limited"
  },
  { name: "cut", play: (wire, stream) => brokenOff(wire, stream, "cut"), outcome: continued },
  { name: "stall", play: (wire, stream) => brokenOff(wire, stream, "stall"), outcome: continued, policy: "limited" },
  {
    name: "malformed event in the middle",
    play: (wire, stream) => {
      const { headers = {}, pieces } = answerOf(wire, stream)
      return { headers, pieces: stream ? [...pieces.slice(0, 6), wire.malformed, ...pieces.slice(6)] : pieces }
    },
    outcome: byFirst
  },
  { name: "clean stream", play: answerOf, outcome: byFirst },
  { name: "context too long", play: ({ tooLong }) => refusal(400, tooLong), outcome: byNext, next: "contextFallbacks" },
  { name: "refused content", play: ({ refused }) => refusal(400, refused), outcome: byNext, next: "contentFallbacks" },
  { name: "no-prefill model", play: (wire, stream) => brokenOff(wire, stream, "cut"), outcome: continued },
  { name: "long outage", play: () => refusal(503, serverError), outcome: byNext, requests: 8, most: 5 },
  { name: "a stand-in's identity", play: () => ({ pieces: [], silent: "reset" }), outcome: byNext }
]

export const policies = {
  once: { strategy: "quality", retries: 0, continue: true },
  again: { strategy: "quality", retries: 1, continue: true, backoff: { initial: "10 millis" } },
  limited: {
    strategy: "quality",
    retries: 0,
    continue: true,
    timeouts: { firstToken: "3 seconds", stall: "3 seconds" }
  }
}

/** The models of one case, by name. */
export const modelsOf = (
  id: string,
  { next, policy = "once" }: Fault,
  provider: ProviderDialect,
  url: string
): Readonly<Record<string, unknown>> => {
  const [first, second] = (["first", "next"] as const).map((name) => ({
    provider,
    model: names[name],
    baseUrl: `${url}/${id}/${name}/${provider === "openai" ? "v1" : ""}`.replace(/\/$/, ""),
    key: "${K}",
    quality: name === "first" ? 0.9 : 0.1
  }))
  const model = { preload: false, policy }
  return next === undefined
    ? { [id]: { ...model, deployments: [first, second] } }
    : {
      [id]: { ...model, deployments: [first], [next]: [`${id}+`] },
      [`${id}+`]: { ...model, deployments: [second] }
    }
}

/** What the provider at a path does. */
export const playOf = (seen: Seen): Play => {
  const [, id = "", name] = seen.path.split("/")
  const [index, provider] = id.split("-")
  const fault = faults[Number(index)]!
  const wire = wires[provider as ProviderDialect]
  const stream = (seen.body as { readonly stream?: boolean }).stream === true
  if (name === "first") return fault.play(wire, stream)
  if (fault.name === "no-prefill model" && hasPrefill(seen)) return refusal(400, serverError)
  return answerOf(wire, stream)
}

/** The dialects of callers. */
export const callerDialects = ["openai", "anthropic", "responses", "ollama"] as const
export type CallerDialect = typeof callerDialects[number]

/** What a caller gets. */
export interface Outcome {
  readonly status: number
  readonly text: string
  readonly prompt: number | undefined
  readonly completion: number | undefined
  /** The last one that was named. */
  readonly model: string | undefined
  /** Whether the answer has its usual end, and no error. */
  readonly isWhole: boolean
}

type Fields = Readonly<Record<string, unknown>>

interface Caller {
  readonly path: string
  readonly body: Fields
  readonly streamed?: Fields
  /** Where its JSON has the text, the usage and the model: paths, the first that is there counts. */
  readonly text: ReadonlyArray<string>
  readonly prompt: ReadonlyArray<string>
  readonly completion: ReadonlyArray<string>
  readonly model: ReadonlyArray<string>
  /** The last event has the whole text. */
  readonly isTextLast?: boolean
  readonly isEnd: (body: string) => boolean
}

const messages = [{ role: "user", content: "Hello" }]

const valueAt = (part: unknown, path: string): unknown =>
  path.split(".").reduce<unknown>((value, name) => (value as Fields | undefined | null)?.[name], part)

const firstAt = (part: unknown, paths: ReadonlyArray<string>): unknown =>
  paths.map((path) => valueAt(part, path)).find((value) => value !== undefined && value !== null)

const callers: Readonly<Record<CallerDialect, Caller>> = {
  openai: {
    path: "/v1/chat/completions",
    body: { messages },
    streamed: { stream_options: { include_usage: true } },
    text: ["choices.0.delta.content", "choices.0.message.content"],
    prompt: ["usage.prompt_tokens"],
    completion: ["usage.completion_tokens"],
    model: ["model"],
    isEnd: (body) => body.endsWith("data: [DONE]\n\n")
  },
  anthropic: {
    path: "/v1/messages",
    body: { messages, max_tokens: 1000 },
    text: ["delta.text", "content.0.text"],
    prompt: ["usage.input_tokens", "message.usage.input_tokens"],
    completion: ["usage.output_tokens"],
    model: ["model", "message.model"],
    isEnd: (body) => body.endsWith("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
  },
  responses: {
    path: "/v1/responses",
    body: { input: "Hello" },
    text: ["response.output.0.content.0.text", "output.0.content.0.text"],
    prompt: ["response.usage.input_tokens", "usage.input_tokens"],
    completion: ["response.usage.output_tokens", "usage.output_tokens"],
    model: ["response.model", "model"],
    isTextLast: true,
    isEnd: (body) => body.includes("event: response.completed\n")
  },
  ollama: {
    path: "/api/chat",
    body: { messages },
    text: ["message.content"],
    prompt: ["prompt_eval_count"],
    completion: ["eval_count"],
    model: ["model"],
    isEnd: (body) => body.includes("\"done\":true")
  }
}

const read = (
  { completion, isTextLast = false, model, prompt, text }: Caller,
  parts: ReadonlyArray<Fields>
): Omit<Outcome, "status" | "isWhole"> => {
  const last = (paths: ReadonlyArray<string>): unknown =>
    parts.map((part) => firstAt(part, paths)).findLast((value) => value !== undefined)
  return {
    text: (isTextLast ? parts.slice(-1) : parts).map((part) => (firstAt(part, text) ?? "") as string).join(""),
    prompt: last(prompt) as number | undefined,
    completion: last(completion) as number | undefined,
    model: last(model) as string | undefined
  }
}

export const ask = async (url: string, dialect: CallerDialect, model: string, stream: boolean): Promise<Outcome> => {
  const caller = callers[dialect]
  const { body, isEnd, path, streamed = {} } = caller
  const response = await fetch(`${url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, stream, ...body, ...(stream ? streamed : {}) })
  })
  const received = await response.text()
  const parts = received.split("\n").map((line) => line.replace(/^data: /, "")).filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Fields)
  const isFailed = parts.some((part) => (part["error"] ?? null) !== null)
  return { status: response.status, ...read(caller, parts), isWhole: !isFailed && (!stream || isEnd(received)) }
}

/** A row of the result. */
export const rowOf = (name: string, passed: number, all: number): string =>
  `${name.padEnd(32)}${passed} of ${all}  ${passed === all ? "pass" : "FAIL"}`
