/** Cuts the text of a body into frames: SSE events by Effect's parser, or lines of JSON. Pieces may be cut anywhere. Pure. */
import { Sse as SseParser } from "effect/encoding"
import type { Dialect, Frame } from "./ProviderDialect.ts"

/** Takes the frames of a body in their order. */
export interface FrameReceiver {
  /** False: the rest of the body is not read. */
  readonly frame: (frame: Frame) => boolean
  /**
   * Takes whole events of a text that are written as most providers write them, from a place between two events on; returns
   * the place of the first one that it does not take.
   */
  readonly run: (text: string, from: number) => number
}

/** Reads one body; fails by throwing `Unreadable`. */
export interface FrameDecoder {
  readonly push: (text: string) => void
  /** The end of the body completes frames. An unfinished SSE event is dropped. */
  readonly end: () => void
}

/** A frame is too large, or the body is not text. */
export class Unreadable extends Error {}

const lineFeed = 0x0a
const byteOrderMark = "\ufeff"

const named = "event: "
const withData = "data: "

/** What precedes the data of an event that a run of events repeats, and what follows it. */
export const aroundData = ({ event }: Frame): readonly [before: string, after: string] => [
  event === "message" ? withData : `${named}${event}\n${withData}`,
  "\n\n"
]

/** Cuts SSE. Effect's parser reads what is not written as nearly all providers write it, and events in pieces. */
class Sse implements FrameDecoder {
  readonly #receiver: FrameReceiver
  readonly #parser: SseParser.Parser
  /** Whether the parser has no part of an event. */
  #isBetween = true
  #isStopped = false

  constructor(maxLength: number, receiver: FrameReceiver) {
    this.#receiver = receiver
    this.#parser = SseParser.makeParser((event) => {
      if (event._tag === "Event") this.#pass({ event: event.event, data: event.data })
    }, { maxEventSize: maxLength })
  }

  push(text: string): void {
    const isUsual = !text.includes("\r")
    let from = 0
    if (isUsual && !this.#isBetween) {
      const end = text.indexOf("\n\n")
      if (end !== -1) {
        from = end + 2
        this.#parse(text.slice(0, from))
      }
    }
    if (isUsual && this.#isBetween) from = this.#readLines(text, from)
    if (from < text.length && !this.#isStopped) this.#parse(text.slice(from))
  }

  end(): void {}

  #parse(text: string): void {
    // The parser drops a byte order mark at the beginning of what it is given first, which may be in the middle of the body.
    const given = this.#isBetween && text.startsWith(byteOrderMark) ? `\n${text}` : text
    if (this.#parser.feed(given) !== undefined) throw new Unreadable("an event that is too long")
    this.#isBetween = text.endsWith("\n\n")
  }

  #pass(frame: Frame): void {
    if (!this.#isStopped) this.#isStopped = !this.#receiver.frame(frame)
  }

  /** Reads events that are one line of data each, maybe after their name, up to another one. */
  #readLines(text: string, begin: number): number {
    let from = begin
    while (from < text.length && !this.#isStopped) {
      from = this.#receiver.run(text, from)
      const data = text.startsWith(named, from) ? text.indexOf("\n", from) + 1 : from
      const end = data >= from && text.startsWith(withData, data) ? text.indexOf("\n", data) : -1
      if (end === -1 || text.charCodeAt(end + 1) !== lineFeed) break
      const event = data === from ? "" : text.slice(from + named.length, data - 1)
      this.#pass({ event: event || "message", data: text.slice(data + withData.length, end) })
      from = end + 2
    }
    return from
  }
}

/** Cuts lines of JSON. */
class Lines implements FrameDecoder {
  readonly #maxLength: number
  readonly #receiver: FrameReceiver
  #pending: Array<string> = []
  #length = 0

  constructor(maxLength: number, receiver: FrameReceiver) {
    this.#maxLength = maxLength
    this.#receiver = receiver
  }

  push(text: string): void {
    const [first, ...others] = text.split("\n")
    this.#pending.push(first!)
    this.#length += first!.length
    if (this.#length > this.#maxLength) throw new Unreadable("a line that is too long")
    if (others.length === 0) return
    const lines = [this.#pending.join(""), ...others.slice(0, -1)]
    this.#pending = [others.at(-1)!]
    this.#length = this.#pending[0]!.length
    for (const line of lines) if (!this.#pass(line)) return
  }

  /** The last line may lack its line break; parsing shows whether it is complete. */
  end(): void {
    this.#pass(this.#pending.join(""))
  }

  #pass(line: string): boolean {
    return line.trim() === "" || this.#receiver.frame({ event: "message", data: line })
  }
}

/** @param maxLength of one frame, characters */
export const make = (framing: Dialect["framing"], maxLength: number, receiver: FrameReceiver): FrameDecoder =>
  framing === "sse" ? new Sse(maxLength, receiver) : new Lines(maxLength, receiver)
