/** Exchanges with providers, as their documentation shows them, and the decoded results. */
import { Result, Schema } from "effect"
import { readFileSync } from "node:fs"
import type { Envelope as OllamaEnvelope } from "../../src/dialects/ollama/EncodeAnswer.ts"
import type { Call, DecodeResult, Dialect, Frame, Target } from "../../src/dialects/shared/ProviderDialect.ts"
import type { Provider, RemoteDeployment } from "../../src/domain/Deployment.ts"
import type { Generation } from "../../src/domain/Generation.ts"
import type { Event } from "../../src/domain/Inference.ts"
import { Reason } from "../../src/domain/InferenceError.ts"
import type { ToolCall } from "../../src/domain/Job.ts"

interface RequestCase {
  readonly name: string
  readonly generation: Partial<Generation>
  readonly options?: Partial<RemoteDeployment>
  readonly stream: boolean
  readonly call: Call
}

type FinishEvent = Extract<Event, { readonly type: "finish" }>

/** The content of an answer. */
export interface Summary {
  readonly thoughts?: string
  readonly text?: string
  readonly calls?: ReadonlyArray<ToolCall>
  readonly finish?: Omit<FinishEvent, "type">
  readonly reason?: unknown
}

interface AnswerCase extends Summary {
  readonly name: string
  readonly frames?: ReadonlyArray<object>
  readonly buffered?: object
}

interface RefusalCase {
  readonly name: string
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body: unknown
  readonly reason: unknown
}

const fixture = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../fixtures/providers/${name}.json`, import.meta.url), "utf8"))

export const requestsOf = (provider: Provider) => fixture(`${provider}-requests`) as ReadonlyArray<RequestCase>

export const refusalsOf = (provider: Provider) => fixture(`${provider}-refusals`) as ReadonlyArray<RefusalCase>

const answersOf = (provider: Provider) => fixture(`${provider}-answers`) as ReadonlyArray<AnswerCase>

/** Answers that arrive as frames. */
export const streamedOf = (provider: Provider) =>
  answersOf(provider).flatMap(({ frames, name, buffered: _, ...summary }) =>
    frames === undefined ? [] : [{ name, frames, summary }]
  )

/** Answers that arrive as one body. */
export const bufferedOf = (provider: Provider) =>
  answersOf(provider).flatMap(({ frames: _, name, buffered, ...summary }) =>
    buffered === undefined ? [] : [{ name, buffered, summary }]
  )

export const generationOf = (given: Partial<Generation> = {}): Generation => ({
  messages: [{ role: "user", content: "Hi" }],
  sampling: {},
  stop: [],
  ...given
})

export const targetOf = (provider: Provider, options: Partial<RemoteDeployment> = {}): Target => ({
  deployment: "x#0",
  model: "x",
  options: { engine: "remote", provider, model: "m", ...options }
})

/** The value as JSON sends it, without undefined fields. */
export const sent = (call: Call): Call => JSON.parse(JSON.stringify(call))

/** A reason as plain data. */
export const plain: (reason: Reason) => unknown = Schema.encodeSync(Reason)

type CallEvent = Extract<Event, { readonly type: "tool_call" }>

/** The call that an event begins or continues. */
const callAfter = (calls: ReadonlyArray<ToolCall>, { arguments: piece, id, index, name }: CallEvent): ToolCall => {
  const { [index]: before } = calls
  if ((id === undefined) === (before === undefined)) throw new Error(`Call ${index} out of turn`)
  return before === undefined
    ? { id: id!, name: name!, arguments: piece }
    : { ...before, arguments: before.arguments + piece }
}

/** Of an event before the finish. */
const contentOf = (event: Event): Extract<Event, { readonly type: "text" | "thoughts" | "tool_call" }> => {
  if (event.type === "text" || event.type === "thoughts" || event.type === "tool_call") return event
  throw new Error(`Unexpected ${event.type} before the finish`)
}

/** The content of events: joined reasoning, text and calls, without empty ones. */
export const summaryOf = (result: DecodeResult): Summary => {
  if (Result.isFailure(result)) return { reason: plain(result.failure) }
  const events = result.success
  const last = events.at(-1)
  if (last?.type !== "finish") throw new Error("An answer without a finish at its end")
  const { reason, usage } = last
  const calls: Array<ToolCall> = []
  let thoughts = ""
  let text = ""
  for (const event of events.slice(0, -1).map(contentOf)) {
    if (event.type === "text") text += event.text
    else if (event.type === "thoughts") thoughts += event.text
    else calls[event.index] = callAfter(calls, event)
  }
  return {
    ...(thoughts === "" ? {} : { thoughts }),
    ...(text === "" ? {} : { text }),
    ...(calls.length === 0 ? {} : { calls }),
    finish: { reason, usage }
  }
}

export const frameOf = (data: object): Frame => ({
  event: "type" in data ? String(data.type) : "message",
  data: JSON.stringify(data)
})

/** Decodes frames like `RemoteEngine`: until the finish, a failure, or the end. */
export const decode = (
  dialect: Dialect,
  frames: ReadonlyArray<Frame>,
  generation: Generation,
  target: Target
): DecodeResult => {
  const decoder = dialect.generate.events(generation, target)
  const events: Array<Event> = []
  for (const next of [...frames.map((frame) => () => decoder.push(frame)), decoder.end]) {
    const result = next()
    if (Result.isFailure(result)) return result
    events.push(...result.success)
    if (result.success.at(-1)?.type === "finish") break
  }
  return Result.succeed(events)
}

/** What an answer in Ollama's dialect has beside its content. */
export const ollamaEnvelope = (over: Partial<OllamaEnvelope> = {}): OllamaEnvelope => ({
  model: "m",
  endpoint: "chat",
  thinking: true,
  elapsed: () => 1,
  loaded: () => 0,
  now: () => "",
  ...over
})
