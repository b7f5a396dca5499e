/**
 * Encodes streamed answers of the OpenAI chat dialect as frames of server-sent events. Pure.
 *
 * **Gotchas**
 *
 * An encoder runs for every event of every stream: the part that all frames share is encoded once, and no schema is used.
 */
import type { Event } from "../../domain/Inference.ts"
import type { ContentRefused } from "../../domain/InferenceError.ts"
import type { TokenUsage } from "../../domain/Job.ts"
import type { Native } from "../../domain/Source.ts"
import { ChunkEncoder } from "../shared/EventTemplate.ts"
import type { OwnEvent } from "../shared/FrameBatch.ts"
import { write } from "../shared/FrameBatch.ts"
import type { Fields } from "../shared/Json.ts"
import { isObject, listOf } from "../shared/Json.ts"
import { detailOf } from "../shared/SignedFields.ts"
import type { Envelope } from "./EncodeAnswer.ts"
import { completed, isOpenAi, logprobsOf, usageOf } from "./EncodeAnswer.ts"
import type { ErrorBody } from "./Schema.ts"

const frame = (data: string): string => `data: ${data}\n\n`

const done = frame("[DONE]")

/** An error in the middle of a stream, which then ends without `[DONE]`. */
export const encodeError = (body: ErrorBody): string => frame(JSON.stringify(body))

/** Writes the frames of a stream. */
export interface FrameEncoder {
  /** Called before the events of a choice. */
  readonly begin: (choice: number, deployment: string) => void
  /** Frames for events of one choice; consecutive texts become one frame. */
  readonly events: (choice: number, events: ReadonlyArray<Event>) => string
  /** The last frames, after all choices have finished. */
  readonly end: () => string
  /** All frames of a provider's answer that is a refusal; undefined if the provider has another dialect. */
  readonly refuse: (reason: ContentRefused) => string | undefined
}

/** A message as a delta, in which calls have indexes. */
const deltaOf = (message: unknown): unknown =>
  isObject(message) && Array.isArray(message["tool_calls"])
    ? { ...message, tool_calls: message["tool_calls"].map((call: object, index) => ({ index, ...call })) }
    : message

/** A buffered answer as one chunk. */
const chunkOf = ({ choices, usage: _, ...body }: Fields): Fields => ({
  ...body,
  object: "chat.completion.chunk",
  choices: listOf(choices).map((choice) => {
    const { message, ...rest } = choice as Fields
    return { ...rest, delta: deltaOf(message) }
  })
})

/** With the service's id and model. Without `usage: null`, if the caller did not request usage. */
const withEnvelope = (given: Fields, { created, id, includeUsage, model }: Envelope): Fields => {
  const body = completed(given, { object: "chat.completion.chunk", created })
  if (includeUsage || body["usage"] !== null) return { ...body, id, model }
  const { usage: _, ...rest } = body
  return { ...rest, id, model }
}

/** The provider's chunk; undefined if the provider has another dialect. */
const nativeChunk = (native: Native, envelope: Envelope): Fields | undefined =>
  isOpenAi(native)
    ? withEnvelope(native.form === "buffered" ? chunkOf(native.body) : native.body, envelope)
    : undefined

type CallEvent = Extract<Event, { readonly type: "tool_call" }>

/** The first piece of a call has its id and name. */
const callDelta = ({ arguments: text, id, index, name }: CallEvent): string => {
  const begin = id === undefined ? "" : `"id":${JSON.stringify(id)},"type":"function",`
  const named = name === undefined ? "" : `"name":${JSON.stringify(name)},`
  return `{"tool_calls":[{"index":${index},${begin}"function":{${named}"arguments":${JSON.stringify(text)}}}]}`
}

type ThoughtsEvent = Extract<Event, { readonly type: "thoughts" }>

const isSigned = (event: OwnEvent): boolean => event.type === "thoughts" && event.signed !== undefined

/** Reasoning, and what its provider has signed of it. */
const thoughtsDelta = ({ signed, text }: ThoughtsEvent): string => {
  const content = `"reasoning_content":${JSON.stringify(text)}`
  if (signed === undefined) return `{${content}}`
  return `{${text === "" ? "" : `${content},`}"reasoning_details":[${JSON.stringify(detailOf(signed))}]}`
}

/** The finish reason, and the stop sequence under vLLM's name for it. */
const endOf = ({ reason, stop }: Extract<Event, { readonly type: "finish" }>): string =>
  JSON.stringify(reason) + (stop === undefined ? "" : `,"stop_reason":${JSON.stringify(stop)}`)

/** The text after this chunk is another deployment's. */
const handoffOf = (deployment: string): string => `,"troupe":{"handoff":{"deployment":${JSON.stringify(deployment)}}}`

/** One choice's frames. */
const makeChoice = (
  headOf: (deployment: string | undefined) => string,
  tail: string,
  parallelToolCalls: boolean,
  nativeOf: (native: Native) => string | undefined
) => {
  const chunk = (delta: string, logprobs = "null", reason = "null", more = ""): string =>
    `data: ${head}${delta},"logprobs":${logprobs},"finish_reason":${reason}}${tail}${more}}\n\n`
  let head = headOf(undefined)
  let begun = false
  let native = false

  const begin = (first: OwnEvent): string => {
    if (begun) return ""
    begun = true
    return chunk(`{"role":"assistant","content":${first.type === "tool_call" ? "null" : "\"\""}}`)
  }
  const frameOf = (event: OwnEvent): string => {
    if (event.type === "finish") return chunk("{}", "null", endOf(event))
    if (event.type === "tool_call") return chunk(callDelta(event))
    if (event.type === "handoff") return chunk("{}", "null", "null", handoffOf(event.deployment))
    if (event.text === "" && !isSigned(event)) return ""
    if (event.type === "thoughts") return chunk(thoughtsDelta(event))
    const logprobs = event.logprobs === undefined ? "null" : JSON.stringify(logprobsOf(event.logprobs))
    return chunk(`{"content":${JSON.stringify(event.text)}}`, logprobs)
  }

  /** Whether the provider's own chunks have the content, or the answer may have one call only. */
  const isLeftOut = (event: OwnEvent): boolean => {
    if (event.type === "handoff") {
      native = false
      head = headOf(event.deployment)
    }
    return native || (event.type === "tool_call" && event.index > 0 && !parallelToolCalls)
  }

  const nativeFrames = (part: Native): string => {
    const chunk = nativeOf(part)
    native ||= chunk !== undefined
    begun ||= native
    return chunk ?? ""
  }

  const writer = { begin, frameOf, isLeftOut, nativeFrames }
  return {
    answeredBy(deployment: string): void {
      head = headOf(deployment)
    },
    events: (events: ReadonlyArray<Event>): string => write(writer, events)
  }
}

/** A chunk of usage alone. */
const isUsage = ({ body: { choices, usage } }: Native): boolean =>
  (usage ?? null) !== null && Array.isArray(choices) && choices.length === 0

/** Used with several choices: each may be the answer of another deployment. */
const noNativeChunk = (): undefined => undefined

/** What the chunks of a stream begin with: its envelope, and the model that answers. */
class Head {
  envelope: Envelope

  constructor(envelope: Envelope) {
    this.envelope = envelope
  }

  /** @param deployment that answers from here on; undefined, the same one */
  of(deployment?: string): string {
    const model = deployment === undefined ? undefined : this.envelope.servedModel?.(deployment)
    if (model !== undefined && model !== this.envelope.model) this.envelope = { ...this.envelope, model }
    const { created, id } = this.envelope
    return `{"id":${JSON.stringify(id)},"object":"chat.completion.chunk","created":${created},` +
      `"model":${JSON.stringify(this.envelope.model)},"choices":[`
  }
}

/** @param count choices of the answer; default 1 */
export const makeFrameEncoder = (envelope: Envelope, count = 1): FrameEncoder => {
  const { includeUsage, parallelToolCalls } = envelope
  const head = new Head(envelope)
  let nativeUsage: string | undefined
  const texts = new ChunkEncoder("openai", (chunk) => frame(JSON.stringify(withEnvelope(chunk, head.envelope))))
  const nativeOf = (native: Native): string | undefined => {
    const text = texts.encode(native)
    if (text !== undefined) return text
    const chunk = nativeChunk(native, head.envelope)
    if (chunk === undefined) return undefined
    const usage = native.body["usage"] ?? null
    if (usage !== null) {
      // Some hosts have it in the last chunk of the text.
      nativeUsage = native.form === "buffered" ? frame(JSON.stringify({ ...chunk, choices: [], usage })) : ""
    }
    return frame(JSON.stringify(chunk))
  }
  const tail = includeUsage ? "],\"usage\":null" : "]"
  const choices: Array<ReturnType<typeof makeChoice>> = []
  const usages: Array<TokenUsage> = []
  const choiceOf = (choice: number) =>
    choices[choice] ??= makeChoice(
      (deployment) => `${head.of(deployment)}{"index":${choice},"delta":`,
      tail,
      parallelToolCalls,
      count === 1 ? nativeOf : noNativeChunk
    )

  return {
    begin: (choice, deployment) => choiceOf(choice).answeredBy(deployment),
    events(choice, events) {
      const last = events.at(-1)
      if (last?.type === "finish") {
        usages.push(last.usage)
        if (last.native !== undefined && count === 1) nativeUsage = nativeOf(last.native)
      }
      return choiceOf(choice).events(events)
    },
    end() {
      if (!includeUsage) return done
      return (nativeUsage ?? frame(`${head.of()}],"usage":${JSON.stringify(usageOf(usages))}}`)) + done
    },
    refuse({ answer = [], deployment }) {
      head.of(deployment)
      const frames = (answer as ReadonlyArray<Native>).flatMap((part) =>
        includeUsage || !isUsage(part) ? nativeOf(part) ?? [] : []
      )
      return frames.length === 0 ? undefined : frames.join("") + done
    }
  }
}
