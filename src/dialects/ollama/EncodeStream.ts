/**
 * Encodes streamed answers of Ollama's API as lines of JSON. Pure.
 *
 * **Details**
 *
 * A tool call is one line, when its arguments are complete. The lines of a provider of the same dialect are passed on with
 * the name of the model that answered.
 *
 * **Gotchas**
 *
 * A call whose arguments are not an object cannot be sent: the stream then ends with an error, and has no line with `done`.
 */
import type { Event } from "../../domain/Inference.ts"
import type { ContentRefused } from "../../domain/InferenceError.ts"
import type { ToolCall } from "../../domain/Job.ts"
import type { Native } from "../../domain/Source.ts"
import type { OwnEvent } from "../shared/FrameBatch.ts"
import { write } from "../shared/FrameBatch.ts"
import type { Content, Envelope } from "./EncodeAnswer.ts"
import { callOf, endOf, isOllama, lineOf, malformedCall } from "./EncodeAnswer.ts"
import * as EncodeError from "./EncodeError.ts"
import type { ErrorBody } from "./Schema.ts"

const frame = (line: object): string => `${JSON.stringify(line)}\n`

/** An error in the middle of a stream, which then has no line with `done`. */
export const encodeError = (body: ErrorBody): string => frame(body)

/** Writes the lines of a stream. */
export interface FrameEncoder {
  /** Called before the first lines. */
  readonly begin: (deployment: string) => void
  /** Lines for events; consecutive texts become one line. */
  readonly events: (events: ReadonlyArray<Event>) => string
  /** After the last line: an error if the answer had a malformed call. */
  readonly end: () => string
  /** A refusal is an error. */
  readonly refuse: (reason: ContentRefused) => undefined
}

type CallEvent = Extract<Event, { readonly type: "tool_call" }>
type FinishEvent = Extract<Event, { readonly type: "finish" }>

/** The lines of one answer. */
class Lines {
  #envelope: Envelope
  #firstAt: number | undefined
  #call: ToolCall | undefined
  #callAt = -1
  #hasNative = false
  /** The name of a call whose arguments are not an object. */
  malformed: string | undefined

  constructor(envelope: Envelope) {
    this.#envelope = envelope
  }

  /** The lines from here on are of this deployment. */
  answeredBy(deployment: string): void {
    const model = this.#envelope.servedModel?.(deployment)
    if (model !== undefined && model !== this.#envelope.model) this.#envelope = { ...this.#envelope, model }
  }

  begin(): string {
    this.#firstAt ??= this.#envelope.elapsed()
    return ""
  }

  isLeftOut(event: OwnEvent): boolean {
    if (event.type === "handoff") {
      this.#hasNative = false
      this.answeredBy(event.deployment)
    }
    return this.#hasNative || this.malformed !== undefined
  }

  native(part: Native): string {
    if (!isOllama(part)) return ""
    this.#hasNative = true
    return frame({ ...part.body, model: this.#envelope.model })
  }

  frameOf(event: OwnEvent): string {
    switch (event.type) {
      case "tool_call":
        return this.#piece(event)
      case "handoff":
        return ""
      case "finish":
        return this.#finish(event)
      default:
        return this.#endCall(false) + this.#content(event)
    }
  }

  #content(event: Extract<OwnEvent, { readonly type: "text" | "thoughts" }>): string {
    if (event.text === "") return ""
    if (event.type === "text") return this.#line({ text: event.text, logprobs: event.logprobs })
    return this.#envelope.thinking ? this.#line({ thoughts: event.text }) : ""
  }

  #line(content: Content): string {
    return frame(lineOf(this.#envelope, content, false))
  }

  #piece({ arguments: piece, id = "", index, name = "" }: CallEvent): string {
    const isNext = index !== this.#callAt
    const ended = isNext ? this.#endCall(false) : ""
    this.#callAt = index
    this.#call = isNext || this.#call === undefined
      ? { id, name, arguments: piece }
      : { ...this.#call, arguments: this.#call.arguments + piece }
    return ended
  }

  /** @param isCut the answer reached its limit, where an incomplete call is left out */
  #endCall(isCut: boolean): string {
    const call = this.#call
    this.#call = undefined
    if (call === undefined) return ""
    const encoded = callOf(call, this.#callAt)
    if (encoded !== undefined) return this.#line({ calls: [encoded] })
    if (!isCut) this.malformed ??= call.name
    return ""
  }

  #finish({ reason, usage }: FinishEvent): string {
    const ended = this.#endCall(reason === "length")
    if (this.malformed !== undefined) return ended
    const last = { ...lineOf(this.#envelope, {}, true), ...endOf(this.#envelope, reason, usage, this.#firstAt) }
    return ended + frame(last)
  }
}

export const makeFrameEncoder = (envelope: Envelope): FrameEncoder => {
  const lines = new Lines(envelope)
  const writer = {
    begin: () => lines.begin(),
    frameOf: (event: OwnEvent) => lines.frameOf(event),
    isLeftOut: (event: OwnEvent) => lines.isLeftOut(event),
    nativeFrames: (part: Native) => lines.native(part)
  }
  return {
    begin: (deployment) => lines.answeredBy(deployment),
    events: (events) => write(writer, events),
    end: () =>
      lines.malformed === undefined ? "" : encodeError(EncodeError.make(500, malformedCall(lines.malformed)).body),
    refuse: () => undefined
  }
}
