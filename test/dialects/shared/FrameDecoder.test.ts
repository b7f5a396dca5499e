/** Bodies are cut into the events that Effect's parser finds, wherever pieces of them end. */
import { assert, describe, it } from "@effect/vitest"
import { Sse } from "effect/encoding"
import * as fc from "fast-check"
import * as FrameDecoder from "../../../src/dialects/shared/FrameDecoder.ts"
import type { Frame } from "../../../src/dialects/shared/ProviderDialect.ts"
import { repetitions } from "../../support/Repetitions.ts"

const parts = fc.constantFrom(
  "data: {\"a\":1}\n\n",
  "data: é東\n\n",
  "event: ping\ndata: x\n\n",
  "event: \ndata: x\n\n",
  "event: ping\n",
  "data: \n\n",
  "data:x\n\n",
  "data: x",
  "data: x\r\n\r\n",
  "data: x\ry\n\n",
  "id: 1\n",
  "retry: 5\n\n",
  ": comment\n\n",
  "\ufeff",
  "event: ",
  "\n",
  "\r"
)

const expectedOf = (text: string): ReadonlyArray<Frame> => {
  const frames: Array<Frame> = []
  const parser = Sse.makeParser((event) => {
    if (event._tag === "Event") frames.push({ event: event.event, data: event.data })
  })
  parser.feed(text)
  return frames
}

const receiverOf = (frames: Array<Frame>): FrameDecoder.FrameReceiver => ({
  frame: (frame) => frames.push(frame) > 0,
  run: (_, from) => from
})

describe("a body of server-sent events", () => {
  it("becomes the same events wherever its pieces end", () => {
    fc.assert(
      fc.property(
        fc.array(parts, { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 6 }),
        (texts, lengths) => {
          const text = `: begin\n\n${texts.join("")}`
          const frames: Array<Frame> = []
          const decoder = FrameDecoder.make("sse", 1_000_000, receiverOf(frames))
          let from = 0
          for (let index = 0; from < text.length; index++) {
            const to = from + lengths[index % lengths.length]!
            decoder.push(text.slice(from, to))
            from = to
          }
          decoder.end()
          assert.deepStrictEqual(frames, expectedOf(text))
        }
      ),
      { numRuns: repetitions(1_000, 5_000) }
    )
  })

  it("may be too long between two of its events", () => {
    const frames: Array<Frame> = []
    const decoder = FrameDecoder.make("sse", 100, receiverOf(frames))
    for (const piece of ["data: a\n\n", `data: ${"b".repeat(200)}\n\n`]) decoder.push(piece)
    assert.lengthOf(frames, 2)
    assert.throws(() => decoder.push(`data: ${"c".repeat(200)}`), "too long")
  })

  it("has a byte order mark at its beginning only", () => {
    const frames: Array<Frame> = []
    const decoder = FrameDecoder.make("sse", 100, receiverOf(frames))
    for (const piece of ["data: a\n\n", "\ufeffdata: b\n\n", "data: c\n\n"]) decoder.push(piece)
    assert.deepStrictEqual(frames.map(({ data }) => data), ["a", "c"])
  })

  it("is not read after a frame that ends it", () => {
    for (const pieces of [["data: a\n\ndata: b\n\n"], ["data: a\n\n", "data: b\n\n"], ["data: a\r\n\r\ndata: b\n\n"]]) {
      const data: Array<string> = []
      const decoder = FrameDecoder.make("sse", 100, {
        frame: (frame) => data.push(frame.data) > 1,
        run: (_, from) => from
      })
      for (const piece of pieces) decoder.push(piece)
      assert.deepStrictEqual(data, ["a"])
    }
  })
})
