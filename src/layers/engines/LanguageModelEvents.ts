/**
 * Maps the answer of a `LanguageModel` to an engine's events.
 *
 * **Details**
 *
 * Sources, files and results of the provider's own tools are left out. Stop sequences are applied to the text here, and
 * `maxTokens` if the provider does not get it; the answer ends there and the model is interrupted.
 *
 * **Gotchas**
 *
 * A `LanguageModel` does not report the tokens of a piece, and may not report those of the answer. Without a report, four
 * bytes of text count as one token, a common figure for English.
 */
import { Data, Effect, Stream } from "effect"
import type { Response } from "effect/ai"
import { makeCounter } from "../../dialects/shared/TokenCounter.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type { FinishReason, ReportedUsage } from "../../domain/Job.ts"
import { bytesPerToken } from "../../domain/RoutingRequest.ts"
import { makeStopMatcher } from "../../domain/StopMatcher.ts"

/** The parts contain no answer; `detail` is the reason. */
export class Unanswered extends Data.TaggedError("Unanswered")<{ readonly detail: string }> {}

/** As many complete characters as fit. */
const within = (text: string, bytes: number): string =>
  Buffer.byteLength(text) <= bytes
    ? text
    : new TextDecoder().decode(Buffer.from(text).subarray(0, bytes), { stream: true })

/** As in `Job`; undefined if the answer failed. */
const reasons: Readonly<Record<Response.FinishReason, FinishReason | undefined>> = {
  stop: "stop",
  length: "length",
  "tool-calls": "tool_calls",
  pause: "stop",
  other: "stop",
  unknown: "stop",
  "content-filter": undefined,
  error: undefined
}

const reportedUsage = (usage: Response.Usage | undefined): ReportedUsage => ({
  promptTokens: usage?.inputTokens.total,
  completionTokens: usage?.outputTokens.total,
  cachedTokens: usage?.inputTokens.cacheRead,
  // Many models report 0 if they do not know.
  reasoningTokens: usage?.outputTokens.reasoning || undefined
})

/**
 * Writes events up to the finish, at the latest when the limit is reached.
 *
 * @param room limit of reasoning, text and arguments together, bytes
 */
const makeWriter = (generation: Generation, room: number) => {
  const counter = makeCounter(generation)
  let bytes = 0
  let ended = false
  let events: Array<Event> = []
  let failure: Unanswered | undefined

  const end = (reason: FinishReason, reported?: Response.Usage, stop?: string) => {
    if (ended) return
    ended = true
    const usage = counter.usage(reportedUsage(reported))
    events.push({ type: "finish", reason, usage, ...(stop === undefined ? {} : { stop }) })
  }
  /** Writes the text as far as it fits, with the tokens that it completes. */
  const write = (text: string, eventOf: (text: string, tokens: number) => Event) => {
    if (text === "" || ended) return
    const kept = within(text, room - bytes)
    bytes += Buffer.byteLength(kept)
    const tokens = counter.count(kept)
    if (kept !== "") events.push(eventOf(kept, tokens))
    if (kept !== text || bytes >= room) end("length")
  }
  return {
    end,
    text: (text: string) => write(text, (text, tokens) => ({ type: "text", text, tokens })),
    thoughts: (text: string) => write(text, (text, tokens) => ({ type: "thoughts", text, tokens })),
    call: (index: number, id: string, name: string) => {
      if (!ended) events.push({ type: "tool_call", index, id, name, arguments: "", tokens: 0 })
    },
    arguments: (index: number, text: string) =>
      write(text, (text, tokens) => ({ type: "tool_call", index, arguments: text, tokens })),
    fail: (detail: string) => {
      failure = new Unanswered({ detail })
    },
    /** The events since the last call. */
    take: (): Effect.Effect<ReadonlyArray<Event>, Unanswered> => {
      const taken = events
      events = []
      return failure === undefined || ended ? Effect.succeed(taken) : Effect.fail(failure)
    }
  }
}

type Writer = ReturnType<typeof makeWriter>
type Take = {
  readonly [Type in Response.AnyPart["type"]]?: (part: Extract<Response.AnyPart, { readonly type: Type }>) => void
}

/** A handler per type of part. */
const makeTake = (writer: Writer, generation: Generation): Take => {
  const stop = makeStopMatcher(generation.stop, generation.assistantPrefix)
  const calls = new Map<string, { readonly index: number; hasArguments: boolean }>()

  const addText = (text: string) => {
    const { sequence, stopped, text: emitted } = stop.push(text)
    writer.text(emitted)
    if (stopped) writer.end("stop", undefined, sequence)
  }
  const begin = (id: string, name: string) => {
    writer.text(stop.flush())
    const call = { index: calls.size, hasArguments: false }
    calls.set(id, call)
    writer.call(call.index, id, name)
  }
  const argue = (id: string, text: string) => {
    const call = calls.get(id)
    if (call === undefined || text === "") return
    call.hasArguments = true
    writer.arguments(call.index, text)
  }
  return {
    text: ({ text }) => addText(text),
    "text-delta": ({ delta }) => addText(delta),
    reasoning: ({ text }) => writer.thoughts(text),
    "reasoning-delta": ({ delta }) => writer.thoughts(delta),
    "tool-params-start": ({ id, name, providerExecuted }) => {
      if (!providerExecuted) begin(id, name)
    },
    "tool-params-delta": ({ delta, id }) => argue(id, delta),
    "tool-call": ({ id, name, params, providerExecuted }) => {
      if (providerExecuted) return
      if (!calls.has(id)) begin(id, name)
      if (calls.get(id)?.hasArguments === false) argue(id, JSON.stringify(params ?? {}))
    },
    finish: ({ reason, usage }) => {
      const known = reasons[reason]
      if (known === undefined) return writer.fail(`It ended with "${reason}".`)
      writer.text(stop.flush())
      writer.end(known === "stop" && calls.size > 0 ? "tool_calls" : known, usage)
    },
    error: ({ error }) => {
      writer.fail(error instanceof Error ? error.message.split("\n")[0]! : String(error))
    }
  }
}

/** @param cut ends the answer at `maxTokens`, which the provider does not get */
const makeDecoder = (generation: Generation, cut: boolean) => {
  const room = cut ? (generation.maxTokens ?? Number.POSITIVE_INFINITY) * bytesPerToken : Number.POSITIVE_INFINITY
  const writer = makeWriter(generation, room)
  const take = makeTake(writer, generation)
  const add = (part: Response.AnyPart) => (take[part.type] as ((part: Response.AnyPart) => void) | undefined)?.(part)
  return (parts: ReadonlyArray<Response.AnyPart>) => {
    parts.forEach(add)
    return writer.take()
  }
}

/** The answer's events up to its finish. Fails with the reason if the parts contain no answer. */
export const toEvents = <E>(
  generation: Generation,
  cut: boolean,
  parts: Stream.Stream<Response.AnyPart, E>
): Stream.Stream<Event, E | Unanswered> =>
  Stream.suspend(() => {
    const decode = makeDecoder(generation, cut)
    return parts.pipe(
      Stream.mapAccumArrayEffect(
        () => undefined,
        (state: undefined, some) => Effect.map(decode(some), (events) => [state, events] as const)
      ),
      Stream.takeUntil((event) => event.type === "finish")
    )
  })
