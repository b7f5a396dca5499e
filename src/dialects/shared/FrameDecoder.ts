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

const makeSse = (maxLength: number): Splitter => {
  let frames: Array<Frame> = []
  const parser = Sse.makeParser((event) => {
    if (event._tag === "Event") frames.push(event)
  }, { maxEventSize: maxLength })
  return {
    push: (text) => {
      frames = []
      if (parser.feed(text) !== undefined) throw new Unreadable("an event that is too long")
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
