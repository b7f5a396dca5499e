/**
 * A conversation of the playground: one request to `/v1/chat/completions`, and what is seen of its answer while it arrives.
 */
import type { Signal } from "@preact/signals"
import { signal } from "@preact/signals"
import type { Record as Decision } from "../services/routing/DecisionRecord.ts"
import { ask, messageOf, request, RequestError, wasCancelled } from "./session.ts"
import { eventsOf } from "./stream.ts"

export interface ToolCall {
  readonly id: string
  readonly name: string
  readonly arguments: string
}

/** A message, as it is shown. */
export interface Message {
  readonly role: "user" | "assistant" | "tool"
  /** Of a result: the id of the tool call. */
  readonly callId?: string
  readonly text: string
  /** As `data:` URLs. */
  readonly images: ReadonlyArray<string>
  readonly reasoning: string
  readonly calls: ReadonlyArray<ToolCall>
  /** Of an answer. */
  readonly run: Run | undefined
}

/** How an answer was made. */
export interface Run {
  readonly deployment: string | undefined
  readonly attempts: string | undefined
  readonly cache: string | undefined
  /** The id of its decision record. */
  readonly decision: string | undefined
  readonly firstTokenMs: number | undefined
  readonly tookMs: number | undefined
  readonly promptTokens: number | undefined
  readonly completionTokens: number | undefined
  /** What it cost; undefined while that is not known. */
  readonly cost: Pick<Decision, "unpriced" | "usd"> | undefined
  readonly finish: string | undefined
  readonly problem: string | undefined
}

/** What is sent with every request of the playground. */
export interface Options {
  readonly system: string
  readonly temperature: string
  readonly maxTokens: string
  readonly effort: string
  /** JSON of the field `tools`. */
  readonly tools: string
  /** In place of the admin key. */
  readonly key: string
}

export interface Conversation {
  readonly model: Signal<string>
  readonly messages: Signal<ReadonlyArray<Message>>
  /** Stops the answer that is arriving. */
  readonly stopping: Signal<AbortController | undefined>
}

export const makeConversation = (): Conversation => ({
  model: signal(""),
  messages: signal<ReadonlyArray<Message>>([]),
  stopping: signal<AbortController | undefined>(undefined)
})

const nothing = { images: [], reasoning: "", calls: [], run: undefined }

export const userMessage = (text: string, images: ReadonlyArray<string>): Message => ({
  ...nothing,
  role: "user",
  text,
  images
})

/** A message of the user, or, where the last answer called tools, the result of each call. */
export const nextMessages = (
  messages: ReadonlyArray<Message>,
  text: string,
  images: ReadonlyArray<string>
): ReadonlyArray<Message> => {
  const calls = messages.at(-1)?.calls ?? []
  if (calls.length === 0) return [userMessage(text, images)]
  return calls.map(({ id }) => ({ ...nothing, role: "tool", callId: id, text }))
}

const emptyRun: Run = {
  deployment: undefined,
  attempts: undefined,
  cache: undefined,
  decision: undefined,
  firstTokenMs: undefined,
  tookMs: undefined,
  promptTokens: undefined,
  completionTokens: undefined,
  cost: undefined,
  finish: undefined,
  problem: undefined
}

const contentOf = ({ images, text }: Message): unknown =>
  images.length === 0
    ? text
    : [{ type: "text", text }, ...images.map((url) => ({ type: "image_url", image_url: { url } }))]

const wireMessage = (message: Message): object => ({
  role: message.role,
  content: contentOf(message),
  ...(message.callId === undefined ? {} : { tool_call_id: message.callId }),
  ...(message.calls.length === 0 ? {} : {
    tool_calls: message.calls.map((call) => ({
      id: call.id,
      type: "function",
      function: { name: call.name, arguments: call.arguments }
    }))
  })
})

const numberField = (name: string, text: string): object => text.trim() === "" ? {} : { [name]: Number(text) }

/** The body of a request. Fails where `tools` is not JSON. */
export const bodyOf = (model: string, messages: ReadonlyArray<Message>, options: Options): object => ({
  model,
  messages: [
    ...(options.system.trim() === "" ? [] : [{ role: "system", content: options.system }]),
    ...messages.map(wireMessage)
  ],
  stream: true,
  stream_options: { include_usage: true },
  ...numberField("temperature", options.temperature),
  ...numberField("max_completion_tokens", options.maxTokens),
  ...(options.effort === "" ? {} : { reasoning_effort: options.effort }),
  ...(options.tools.trim() === "" ? {} : { tools: JSON.parse(options.tools) as unknown })
})

/** An event of a streamed answer. */
export interface Chunk {
  readonly choices?: ReadonlyArray<{
    readonly finish_reason?: string | null
    readonly delta?: {
      readonly content?: string | null
      readonly reasoning_content?: string | null
      readonly tool_calls?: ReadonlyArray<{
        readonly index: number
        readonly id?: string
        readonly function?: { readonly name?: string; readonly arguments?: string }
      }>
    }
  }>
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number } | null
  readonly error?: { readonly message?: string }
}

type Delta = NonNullable<NonNullable<Chunk["choices"]>[number]["delta"]>

const withCalls = (calls: ReadonlyArray<ToolCall>, parts: Delta["tool_calls"] = []): ReadonlyArray<ToolCall> => {
  if (parts.length === 0) return calls
  const all = [...calls]
  for (const { function: called = {}, id, index } of parts) {
    const known = all[index] ?? { id: "", name: "", arguments: "" }
    all[index] = {
      id: id ?? known.id,
      name: known.name + (called.name ?? ""),
      arguments: known.arguments + (called.arguments ?? "")
    }
  }
  return all
}

const withUsage = (run: Run, { error, usage }: Chunk): Run => ({
  ...run,
  ...(usage === undefined || usage === null
    ? {}
    : { promptTokens: usage.prompt_tokens, completionTokens: usage.completion_tokens }),
  ...(error === undefined ? {} : { problem: error.message ?? "The answer ended with an error." })
})

const hasContent = ({ content, reasoning_content: reasoning, tool_calls: calls = [] }: Delta): boolean =>
  Boolean(content) || Boolean(reasoning) || calls.length > 0

const withTimes = (run: Run, delta: Delta, finish: string | null | undefined, sinceMs: number): Run => ({
  ...run,
  finish: finish ?? run.finish,
  firstTokenMs: run.firstTokenMs ?? (hasContent(delta) ? sinceMs : undefined)
})

/** The answer after one more event. */
export const applied = (message: Message, chunk: Chunk, sinceMs: number): Message => {
  const { delta = {}, finish_reason: finish } = chunk.choices?.[0] ?? {}
  const run = withUsage(message.run ?? emptyRun, chunk)
  return {
    ...message,
    text: message.text + (delta.content ?? ""),
    reasoning: message.reasoning + (delta.reasoning_content ?? ""),
    calls: withCalls(message.calls, delta.tool_calls),
    run: withTimes(run, delta, finish, sinceMs)
  }
}

const routeOf = (headers: Headers): Partial<Run> => ({
  deployment: headers.get("x-troupe-deployment") ?? undefined,
  attempts: headers.get("x-troupe-attempts") ?? undefined,
  cache: headers.get("x-troupe-cache") ?? undefined,
  decision: headers.get("x-troupe-decision") ?? undefined
})

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Of the decision record, which ends a moment after the answer. The record may be gone: then the cost is not known. */
const costOf = async (decision: string | undefined): Promise<Pick<Decision, "unpriced" | "usd"> | undefined> => {
  if (decision === undefined) return undefined
  for (const ms of [0, 200, 800]) {
    await pause(ms)
    const record = await ask<Decision>(`/admin/decisions/${encodeURIComponent(decision)}`).catch(() => undefined)
    if (record === undefined || record.end !== undefined) return record
  }
  return undefined
}

/** Sends the conversation, and adds the answer to it while it arrives. */
export const answer = async ({ messages, model, stopping }: Conversation, options: Options): Promise<void> => {
  const begun = performance.now()
  const stop = new AbortController()
  stopping.value = stop
  const sent = messages.peek()
  let current: Message = { ...nothing, role: "assistant", text: "", run: emptyRun }
  const show = (next: Message) => {
    current = next
    messages.value = [...sent, current]
  }
  const end = (problem: string | undefined) =>
    show({
      ...current,
      run: { ...current.run!, tookMs: performance.now() - begun, problem: problem ?? current.run!.problem }
    })
  show(current)
  try {
    const body = bodyOf(model.peek(), sent, options)
    const key = options.key === "" ? undefined : options.key
    const response = await request("/v1/chat/completions", { method: "POST", body, key, signal: stop.signal })
    show({ ...current, run: { ...current.run!, ...routeOf(response.headers) } })
    for await (const { data } of eventsOf(response)) {
      if (data !== "[DONE]") show(applied(current, JSON.parse(data) as Chunk, performance.now() - begun))
    }
    end(undefined)
  } catch (error) {
    const headers = error instanceof RequestError ? error.headers : undefined
    if (headers !== undefined) show({ ...current, run: { ...current.run!, ...routeOf(headers) } })
    end(wasCancelled(error) ? "Stopped." : messageOf(error))
  }
  stopping.value = undefined
  const ended = current
  const cost = await costOf(ended.run!.decision)
  messages.value = messages.peek().map((one) => one === ended ? { ...ended, run: { ...ended.run!, cost } } : one)
}
