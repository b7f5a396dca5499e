/**
 * Decodes a body's bytes into frames: SSE events by Effect's parser, or lines of JSON. Pieces may be cut anywhere, also within
 * a character. Pure.
 */
import { Sse } from "effect/encoding"
import type { Dialect, Frame } from "./ProviderDialect.ts"

/** Reads one body; both fail by throwing `Unreadable`. */
export interface FrameDecoder {
  readonly push: (bytes: Uint8Array) => ReadonlyArray<Frame>
  /** The frames that the end of the body completes. An unfinished SSE event is dropped. */
  readonly end: () => ReadonlyArray<Frame>
}

/** The bytes are not UTF-8, or a frame is too large. */
export class Unreadable extends Error {}

interface Splitter {
  readonly push: (text: string) => ReadonlyArray<Frame>
  readonly end: () => ReadonlyArray<Frame>
}

const lineFeed = 0x0a

const named = "event: "
const withData = "data: "

/** Reads the events at the beginning of a text that are one line of data each, maybe after their name, up to another one. */
const readLines = (text: string, frames: Array<Frame>): number => {
  let from = 0
  while (from < text.length) {
    const data = text.startsWith(named, from) ? text.indexOf("\n", from) + 1 : from
    const end = data >= from && text.startsWith(withData, data) ? text.indexOf("\n", data) : -1
    if (end === -1 || text.charCodeAt(end + 1) !== lineFeed) break
    const event = data === from ? "" : text.slice(from + named.length, data - 1)
    frames.push({ event: event || "message", data: text.slice(data + withData.length, end) })
    from = end + 2
  }
  return from
}

/** Effect's parser reads what is not written as nearly all providers write it, and events in pieces. */
const makeSse = (maxLength: number): Splitter => {
  let frames: Array<Frame> = []
  /** Whether the parser has no part of an event. */
  let isBetween = false
  const parser = Sse.makeParser((event) => {
    if (event._tag === "Event") frames.push({ event: event.event, data: event.data })
  }, { maxEventSize: maxLength })
  return {
    push: (text) => {
      frames = []
      const rest = isBetween && !text.includes("\r") ? text.slice(readLines(text, frames)) : text
      if (rest === "") return frames
      if (parser.feed(rest) !== undefined) throw new Unreadable("an event that is too long")
      isBetween = rest.endsWith("\n\n")
      return frames
    },
    end: () => []
  }
}

const lineFrame = (line: string): ReadonlyArray<Frame> => line.trim() === "" ? [] : [{ event: "message", data: line }]

const makeLines = (maxLength: number): Splitter => {
  let pending: Array<string> = []
  let length = 0
  return {
    push: (text) => {
      const [first, ...others] = text.split("\n")
      pending.push(first!)
      length += first!.length
      if (length > maxLength) throw new Unreadable("a line that is too long")
      if (others.length === 0) return []
      const lines = [pending.join(""), ...others.slice(0, -1)]
      pending = [others.at(-1)!]
      length = pending[0]!.length
      return lines.flatMap(lineFrame)
    },
    // The last line may lack its line break; parsing shows whether it is complete.
    end: () => lineFrame(pending.join(""))
  }
}

const splitters = { sse: makeSse, ndjson: makeLines }

/** @param maxLength of one frame, characters */
export const make = (framing: Dialect["framing"], maxLength: number): FrameDecoder => {
  const decoder = new TextDecoder("utf-8", { fatal: true })
  const splitter = splitters[framing](maxLength)
  const decode = (bytes?: Uint8Array): string => {
    try {
      return bytes === undefined ? decoder.decode() : decoder.decode(bytes, { stream: true })
    } catch {
      throw new Unreadable("the body is not UTF-8")
    }
  }
  return {
    push: (bytes) => splitter.push(decode(bytes)),
    end: () => [...splitter.push(decode()), ...splitter.end()]
  }
}
