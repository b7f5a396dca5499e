/**
 * Chunks of text that differ from one before in their text only: nearly all chunks of most answers. Pure.
 *
 * **Details**
 *
 * The first chunk of text is decoded like any other, and a template is made of it. OpenAI adds a text of random length to each
 * chunk, in `obfuscation`.
 */
import type { Event } from "../../domain/Inference.ts"
import type { Native } from "../../domain/Source.ts"
import type { ChunkTemplate, EventTemplate, Learned } from "../shared/EventTemplate.ts"
import { chunkTemplateOf, learn, RepeatedChunk } from "../shared/EventTemplate.ts"
import type { Fields } from "../shared/Json.ts"
import { at, fieldsOf, listAt } from "../shared/Json.ts"
import { eventOf } from "../shared/NativeEvents.ts"
import type { Frame } from "../shared/ProviderDialect.ts"

const begins = [/"content"\s*:\s*"/g, /"obfuscation"\s*:\s*"/g]

const choiceOf = (chunk: Fields): Fields | undefined => fieldsOf(listAt(chunk, "choices")[0])

const stringsOf = (chunk: Fields): ReadonlyArray<unknown> => [
  at(choiceOf(chunk), "delta", "content"),
  chunk["obfuscation"]
]

/** Whether a choice adds to the text only. */
const addsText = (choice: Fields | undefined, events: ReadonlyArray<Event>): boolean => {
  const [event] = events
  const delta = fieldsOf(choice?.["delta"])
  return events.length === 1 && event?.type === "text" && event.logprobs === undefined &&
    delta?.["content"] === event.text &&
    listAt(delta, "tool_calls").length === 0 && (delta["function_call"] ?? null) === null
}

/** Whether a chunk has one choice, the first, which adds to the text only. */
const isTextOnly = (chunk: Fields, events: ReadonlyArray<Event>): boolean => {
  const choice = choiceOf(chunk)
  return listAt(chunk, "choices").length === 1 && (choice?.["index"] ?? 0) === 0 && (chunk["usage"] ?? null) === null &&
    addsText(choice, events)
}

/** Templates without a match, after which no more are made: an answer may have other varying fields. */
const mostFailures = 3

/** The native chunk of a text, for a caller of the same dialect. */
type NativeOf = (chunk: Fields, choice: Fields) => Native

/** Recognizes the chunks of one answer. */
export class TextChunks {
  readonly #nativeOf: NativeOf | undefined
  #template: EventTemplate | undefined
  /** Undefined for callers of other dialects. */
  #chunk: ChunkTemplate | undefined
  #failures = 0

  /** @param nativeOf for callers of the same dialect */
  constructor(nativeOf: NativeOf | undefined) {
    this.#nativeOf = nativeOf
  }

  /** The text of a chunk like the one before; undefined for others, and for a chunk without text. */
  textOf({ data, event }: Frame): string | undefined {
    const template = this.#template
    if (template === undefined || event !== "message" || !template.matches(data) || template.text === "") {
      return undefined
    }
    this.#failures = 0
    return template.text
  }

  /** The events of the last chunk that was recognized. */
  eventsOf(text: Event): ReadonlyArray<Event> {
    return this.#chunk === undefined
      ? [text]
      : [eventOf(new RepeatedChunk(this.#chunk, this.#template!.literals), true), text]
  }

  /**
   * Called with other chunks.
   *
   * @param events without the native ones
   */
  add({ data, event }: Frame, chunk: Fields, events: ReadonlyArray<Event>): void {
    if (this.#failures === mostFailures || event !== "message" || !isTextOnly(chunk, events)) return
    this.#failures++
    const learned = learn(data, chunk, begins, stringsOf)
    if (learned !== undefined) this.#use(learned)
  }

  #use({ count, event, template }: Learned): void {
    const nativeOf = this.#nativeOf
    this.#chunk = nativeOf && chunkTemplateOf(nativeOf(event, choiceOf(event)!), count)
    this.#template = nativeOf !== undefined && this.#chunk === undefined ? undefined : template
  }
}
