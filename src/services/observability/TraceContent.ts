/**
 * The prompt and the answer of an inference for its span, where their capture is on: `gen_ai.input.messages` and
 * `gen_ai.output.messages`, in the shape of OpenTelemetry's GenAI conventions.
 *
 * **Details**
 *
 * Both are JSON. Images are named by their type, without their bytes. A text above `longestText` is cut: telemetry backends reject
 * or cut long attributes themselves.
 */
import type { Event } from "../../domain/Inference.ts"
import type { Content as MessageContent, Message, Part } from "../../domain/Message.ts"
import { partsOf } from "../../domain/Message.ts"
import * as Text from "../../domain/Text.ts"

/** Characters of one text. */
const longestText = 32_768

/** The latest messages that are captured. */
const mostMessages = 100

type Json = Readonly<Record<string, unknown>>

const cut = (text: string): string => Text.cut(text, longestText)

const partOf = (part: Part): Json => {
  if (part.type === "text") return { type: "text", content: cut(part.text) }
  const { source } = part
  return source.type === "url"
    ? { type: "uri", modality: "image", uri: source.url }
    : { type: "blob", modality: "image", mime_type: source.mediaType }
}

const callOf = ({ arguments: given, id, name }: { readonly [K in "arguments" | "id" | "name"]: string }): Json => ({
  type: "tool_call",
  id,
  name,
  arguments: cut(given)
})

const textOf = (content: MessageContent): Json | string =>
  typeof content === "string" ? cut(content) : { parts: partsOf(content).map(partOf) }

const messageOf = ({ content, role, thoughts, toolCallId, toolCalls = [] }: Message): Json => ({
  role,
  parts: toolCallId === undefined
    ? [
      ...(thoughts === undefined ? [] : [{ type: "reasoning", content: cut(thoughts) }]),
      ...partsOf(content).map(partOf),
      ...toolCalls.map(callOf)
    ]
    : [{ type: "tool_call_response", id: toolCallId, response: textOf(content) }]
})

/** A text that grows up to its limit. */
class Growing {
  text = ""

  add(piece: string): void {
    if (this.text.length <= longestText) this.text += piece
  }
}

/** The content of one inference. */
export class Content {
  readonly #messages: ReadonlyArray<Message>
  readonly #answer = new Growing()
  readonly #thoughts = new Growing()
  readonly #calls: Array<{ id: string; name: string; readonly given: Growing }> = []
  #finishReason: string | undefined

  constructor(messages: ReadonlyArray<Message>) {
    this.#messages = messages
  }

  /** Adds events of the answer. */
  add(events: ReadonlyArray<Event>): void {
    for (const event of events) {
      if (event.type === "text") this.#answer.add(event.text)
      else if (event.type === "thoughts") this.#thoughts.add(event.text)
      else if (event.type === "tool_call") this.#addCall(event)
      else if (event.type === "finish") this.#finishReason = event.reason
    }
  }

  #addCall({ arguments: piece, id = "", index, name = "" }: Extract<Event, { type: "tool_call" }>): void {
    const call = this.#calls[index] ??= { id, name, given: new Growing() }
    call.given.add(piece)
  }

  attributes(): Json {
    const answer = {
      role: "assistant",
      parts: [
        ...(this.#thoughts.text === "" ? [] : [{ type: "reasoning", content: cut(this.#thoughts.text) }]),
        ...(this.#answer.text === "" ? [] : [{ type: "text", content: cut(this.#answer.text) }]),
        ...this.#calls.map(({ given, id, name }) => callOf({ id, name, arguments: given.text }))
      ],
      finish_reason: this.#finishReason
    }
    return {
      "gen_ai.input.messages": JSON.stringify(this.#messages.slice(-mostMessages).map(messageOf)),
      "gen_ai.output.messages": answer.parts.length === 0 ? undefined : JSON.stringify([answer])
    }
  }
}
