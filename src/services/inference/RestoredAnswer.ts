/**
 * Answers to redacted requests: the values are put in place of their placeholders, in complete answers and in streams. Pure.
 *
 * **Details**
 *
 * Chunks that a provider sent are left out, and the service encodes the content itself: a placeholder may come in several
 * chunks. Fields that Troupe does not model are lost with them. A whole answer of a provider is restored as it is.
 */
import type { Answer, Event, Request } from "../../domain/Inference.ts"
import type { SignedReasoning } from "../../domain/Message.ts"
import type { Native } from "../../domain/Source.ts"
import type { Encode, Redaction } from "../guard/Redaction.ts"
import { asJson, asText, Restoring } from "../guard/Redaction.ts"
import * as TextWalk from "../guard/TextWalk.ts"

/** Names of the fields in which the dialects have the text of an answer. */
const textFields = new Set<unknown>(["content", "text", "response"])

/** How a value is written in a place of a provider's answer. */
const encodeAt = (path: TextWalk.Path, ofText: Encode): Encode => {
  const last = path.at(-1)
  // The arguments of a call are JSON in a string, or an object, whose fields may have any name.
  if (last === "arguments") return asJson
  return textFields.has(last) && !path.includes("input") && !path.includes("arguments") ? ofText : asText
}

/** The answer as a provider sent it, with values; undefined for a chunk. */
const restoreNative = (
  { text: _, ...native }: Native,
  redaction: Redaction,
  ofText: Encode
): Native | undefined =>
  native.form === "chunk"
    ? undefined
    : {
      ...native,
      body: TextWalk.changeBody(native.body, (text, _, path) => redaction.restore(text, encodeAt(path, ofText)))
    }

/** How values are written in the text of an answer: as JSON if the request asks for JSON. */
export const encodeOf = ({ format }: Pick<Request, "format">): Encode => format === undefined ? asText : asJson

const restoreSigned = (signed: SignedReasoning, redaction: Redaction): SignedReasoning =>
  signed.type === "thinking" ? { ...signed, thinking: redaction.restore(signed.thinking) } : signed

/** A complete answer with the values in place of their placeholders. */
export const restoreAnswer = (
  { native, ...answer }: Answer,
  redaction: Redaction,
  ofText: Encode
): Answer => {
  const natives = native?.flatMap((one) => restoreNative(one, redaction, ofText) ?? []) ?? []
  return {
    ...answer,
    text: redaction.restore(answer.text, ofText),
    ...(answer.thoughts === undefined ? {} : { thoughts: redaction.restore(answer.thoughts) }),
    ...(answer.reasoning === undefined
      ? {}
      : { reasoning: answer.reasoning.map((signed) => restoreSigned(signed, redaction)) }),
    toolCalls: answer.toolCalls.map((call) => ({ ...call, arguments: redaction.restore(call.arguments, asJson) })),
    ...(natives.length === 0 ? {} : { native: natives })
  }
}

type CallEvent = Extract<Event, { readonly type: "tool_call" }>
type TextEvent = Extract<Event, { readonly type: "text" | "thoughts" }>

/** A text of an answer that comes in pieces: its text, its reasoning, or the arguments of a call. */
interface Channel {
  readonly name: string
  readonly restoring: Restoring
  /** The event of the rest. */
  readonly rest: (text: string) => Event
}

/** Restores the events of one stream. */
export class RestoredEvents {
  readonly #redaction: Redaction
  readonly #ofText: Encode
  #channel: Channel | undefined

  constructor(redaction: Redaction, ofText: Encode) {
    this.#redaction = redaction
    this.#ofText = ofText
  }

  /** May be empty: the begin of a placeholder waits for its end. */
  push(events: ReadonlyArray<Event>): ReadonlyArray<Event> {
    const restored: Array<Event> = []
    for (const event of events) this.#add(event, restored)
    return restored
  }

  #add(event: Event, out: Array<Event>): void {
    switch (event.type) {
      case "text":
      case "thoughts":
        return this.#text(event, out)
      case "tool_call":
        return this.#call(event, out)
      case "native": {
        const native = restoreNative(event.native, this.#redaction, this.#ofText)
        if (native !== undefined) out.push({ ...event, native })
        return
      }
      case "handoff":
        // The next deployment continues the text, also within a placeholder.
        if (this.#channel?.name !== "text") this.#flush(out)
        out.push(event)
        return
      case "finish": {
        this.#flush(out)
        const { native: _, ...finish } = event
        out.push(finish)
      }
    }
  }

  #text(event: TextEvent, out: Array<Event>): void {
    if (event.type === "thoughts" && event.signed !== undefined) {
      this.#flush(out)
      out.push({ ...event, signed: restoreSigned(event.signed, this.#redaction) })
      return
    }
    const { type } = event
    const encode = type === "text" ? this.#ofText : asText
    const text = this.#in(type, encode, (text) => ({ type, text, tokens: 0 }), out).push(event.text)
    if (text !== "") out.push({ ...event, text })
  }

  #call(event: CallEvent, out: Array<Event>): void {
    const { id, index, name } = event
    const rest = (text: string): Event => ({ type: "tool_call", index, arguments: text, tokens: 0 })
    const text = this.#in(`call ${index}`, asJson, rest, out).push(event.arguments)
    if (text !== "" || id !== undefined || name !== undefined) out.push({ ...event, arguments: text })
  }

  /** The pieces of a channel; another one ends. */
  #in(name: string, encode: Encode, rest: Channel["rest"], out: Array<Event>): Restoring {
    if (this.#channel?.name !== name) {
      this.#flush(out)
      this.#channel = { name, rest, restoring: new Restoring(this.#redaction, encode) }
    }
    return this.#channel.restoring
  }

  #flush(out: Array<Event>): void {
    const channel = this.#channel
    this.#channel = undefined
    const text = channel?.restoring.end() ?? ""
    if (text !== "") out.push(channel!.rest(text))
  }
}
