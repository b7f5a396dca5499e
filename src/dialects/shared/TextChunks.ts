/**
 * Events of a stream that add to the text only, and differ from one before in it: nearly all events of most answers. Pure.
 *
 * **Details**
 *
 * The first event of text is decoded like any other, and a template is made of it.
 */
import type { Event } from "../../domain/Inference.ts"
import type { Native } from "../../domain/Source.ts"
import type { ChunkTemplate, EventForm, EventTemplate, Learned, Run } from "./EventTemplate.ts"
import { chunkTemplateOf, learn, RepeatedChunks } from "./EventTemplate.ts"
import { aroundData } from "./FrameDecoder.ts"
import type { Fields } from "./Json.ts"
import { eventOf } from "./NativeEvents.ts"
import type { Frame } from "./ProviderDialect.ts"

/** What a dialect's events of text are like. */
export interface TextForm extends EventForm {
  /**
   * Whether an event adds to the text, and changes nothing else.
   *
   * @param events decoded from it
   */
  readonly isTextOnly: (event: Fields, events: ReadonlyArray<Event>) => boolean
}

/** Templates without a match, after which no more are made: an answer may have other varying fields. */
const mostFailures = 3

/** The native chunk of an event of text alone, for a caller of the same dialect. */
type NativeOf = (event: Fields) => Native

/** Recognizes the chunks of one answer. */
export class TextChunks {
  readonly #form: TextForm
  readonly #nativeOf: NativeOf | undefined
  #template: EventTemplate | undefined
  /** Undefined for callers of other dialects. */
  #chunk: ChunkTemplate | undefined
  #failures = 0

  /** @param nativeOf for callers of the same dialect */
  constructor(form: TextForm, nativeOf: NativeOf | undefined) {
    this.#form = form
    this.#nativeOf = nativeOf
  }

  /** The chunks from a place on that are like the one before; undefined if the first is not, or has no text. */
  runFrom(text: string, from: number): Run | undefined {
    const run = this.#template?.runFrom(text, from)
    if (run !== undefined) this.#failures = 0
    return run
  }

  /** @param text event of the run's text */
  eventsOf(run: Run, text: Event): ReadonlyArray<Event> {
    return this.#chunk === undefined ? [text] : [eventOf(new RepeatedChunks(this.#chunk, run), true), text]
  }

  /**
   * Called with other chunks.
   *
   * @param events without the native ones
   */
  add(frame: Frame, event: Fields, events: ReadonlyArray<Event>): void {
    if (this.#failures === mostFailures || !this.#form.isTextOnly(event, events)) return
    this.#failures++
    const learned = learn(frame.data, event, this.#form, aroundData(frame))
    if (learned !== undefined) this.#use(learned)
  }

  #use({ count, event, template }: Learned): void {
    const nativeOf = this.#nativeOf
    this.#chunk = nativeOf && chunkTemplateOf(nativeOf(event), count)
    this.#template = nativeOf !== undefined && this.#chunk === undefined ? undefined : template
  }
}
