/**
 * Answers as the parts of `effect/ai`, buffered and streamed.
 *
 * **Details**
 *
 * Every run of text or reasoning and every tool call is a part with an id, a start and an end. A call is sent twice, as
 * `effect/ai` requires: its arguments as they arrive, and the complete call for its handler.
 */
import type { Array as Arr } from "effect"
import { Effect, Stream } from "effect"
import type { Response } from "effect/ai"
import { AiError, Tool } from "effect/ai"
import type { Answer, Event } from "../../domain/Inference.ts"
import type { FinishReason, TokenUsage, ToolCall } from "../../domain/Job.ts"
import { failWith } from "./AiFailure.ts"

const reasons = {
  stop: "stop",
  length: "length",
  tool_calls: "tool-calls",
  content_filter: "content-filter"
} as const satisfies Readonly<Record<FinishReason, Response.FinishReason>>

const finishPart = (reason: FinishReason, usage: TokenUsage): Response.FinishPartEncoded => ({
  type: "finish",
  reason: reasons[reason],
  usage: {
    inputTokens: {
      total: usage.promptTokens,
      uncached: usage.promptTokens - usage.cachedTokens - (usage.cacheWriteTokens ?? 0),
      cacheRead: usage.cachedTokens,
      cacheWrite: usage.cacheWriteTokens
    },
    outputTokens: {
      total: usage.completionTokens,
      text: usage.completionTokens - (usage.reasoningTokens ?? 0),
      reasoning: usage.reasoningTokens ?? 0
    }
  },
  response: undefined
})

const parse = ({ arguments: text }: ToolCall): unknown => text === "" ? {} : Tool.unsafeSecureJsonParse(text)

const unreadable = (method: string, name: string): AiError.AiError =>
  failWith(
    method,
    new AiError.ToolParameterValidationError({ toolName: name, description: "The arguments are not JSON." })
  )

/** The complete call; undefined if the answer was cut within it. */
const callPart = (
  method: string,
  call: ToolCall,
  reason: FinishReason
): Response.ToolCallPartEncoded | AiError.AiError | undefined => {
  try {
    return { type: "tool-call", id: call.id, name: call.name, params: parse(call) }
  } catch {
    return reason === "length" ? undefined : unreadable(method, call.name)
  }
}

/** The parts of a buffered answer. */
export const fromAnswer = Effect.fnUntraced(function*(
  method: string,
  { finishReason, text, thoughts, toolCalls, usage }: Answer
): Effect.fn.Return<Array<Response.PartEncoded>, AiError.AiError> {
  const parts: Array<Response.PartEncoded> = thoughts === undefined ? [] : [{ type: "reasoning", text: thoughts }]
  if (text !== "") parts.push({ type: "text", text })
  for (const call of toolCalls) {
    const part = callPart(method, call, finishReason)
    if (AiError.isAiError(part)) return yield* part
    if (part !== undefined) parts.push(part)
  }
  parts.push(finishPart(finishReason, usage))
  return parts
})

type Part = Response.StreamPartEncoded

const handoffOf = ({ deployment }: Extract<Event, { type: "handoff" }>) => ({
  metadata: { troupe: { handoff: { deployment } } }
})

/** Runs of text and reasoning. One run is open at a time. */
const makeRuns = (push: (part: Part) => void) => {
  let runs = 0
  let open: { readonly kind: "text" | "reasoning"; readonly id: string } | undefined
  const end = () => {
    if (open !== undefined) push({ type: `${open.kind}-end`, id: open.id })
    open = undefined
  }
  return {
    end,
    add: (kind: "text" | "reasoning", delta: string, more = {}) => {
      if (open?.kind !== kind) {
        end()
        open = { kind, id: `${kind}-${runs++}` }
        push({ type: `${kind}-start`, id: open.id })
      }
      push({ type: `${kind}-delta`, id: open.id, delta, ...more })
    }
  }
}

const makeEncoder = (method: string) => {
  let call: { readonly index: number; readonly id: string; readonly name: string; arguments: string } | undefined
  let failure: AiError.AiError | undefined
  let parts: Array<Part> = []

  const run = makeRuns((part) => parts.push(part))
  const endCall = (reason: FinishReason) => {
    if (call === undefined) return
    const part = callPart(method, call, reason)
    parts.push({ type: "tool-params-end", id: call.id })
    call = undefined
    if (AiError.isAiError(part)) failure = part
    else if (part !== undefined) parts.push(part)
  }
  const addText = (kind: "text" | "reasoning", delta: string, more = {}) => {
    endCall("tool_calls")
    run.add(kind, delta, more)
  }
  const addCall = (event: Extract<Event, { type: "tool_call" }>) => {
    run.end()
    if (call?.index !== event.index) {
      endCall("tool_calls")
      const { id = `call-${event.index}`, index, name = "" } = event
      call = { index, id, name, arguments: "" }
      parts.push({ type: "tool-params-start", id, name })
    }
    call.arguments += event.arguments
    parts.push({ type: "tool-params-delta", id: call.id, delta: event.arguments })
  }
  const add = (event: Event) => {
    if (event.type === "text") addText("text", event.text)
    else if (event.type === "thoughts") addText("reasoning", event.text)
    else if (event.type === "tool_call") addCall(event)
    else if (event.type === "handoff") addText("text", "", handoffOf(event))
    else if (event.type === "finish") {
      run.end()
      endCall(event.reason)
      parts.push(finishPart(event.reason, event.usage))
    }
  }
  return (events: Arr.NonEmptyReadonlyArray<Event>): Effect.Effect<Arr.NonEmptyArray<Part>, AiError.AiError> => {
    parts = []
    events.forEach(add)
    return failure === undefined ? Effect.succeed(parts as Arr.NonEmptyArray<Part>) : Effect.fail(failure)
  }
}

/**
 * A streamed answer's parts; events of one chunk stay in one chunk. The first start mark is sent with the first event,
 * because a plan cannot fall back after the first part.
 */
export const fromEvents = <E>(
  method: string,
  events: Stream.Stream<Event, E>
): Stream.Stream<Part, E | AiError.AiError> => Stream.suspend(() => Stream.mapArrayEffect(events, makeEncoder(method)))
