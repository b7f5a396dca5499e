/** Bodies are cut into the events that Effect's parser finds, wherever pieces of them end. */
import { assert, describe, it } from "@effect/vitest"
import { Sse } from "effect/encoding"
import * as fc from "fast-check"
import * as FrameDecoder from "../../../src/dialects/shared/FrameDecoder.ts"
import type { Frame } from "../../../src/dialects/shared/ProviderDialect.ts"

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

describe("a body of server-sent events", () => {
  it("becomes the same events wherever its pieces end", () => {
    fc.assert(
      fc.property(
        fc.array(parts, { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 6 }),
        (texts, lengths) => {
          const text = `: begin\n\n${texts.join("")}`
          const bytes = Buffer.from(text)
          const decoder = FrameDecoder.make("sse", 1_000_000)
          const frames: Array<Frame> = []
          let from = 0
          for (let index = 0; from < bytes.length; index++) {
            const to = from + lengths[index % lengths.length]!
            frames.push(...decoder.push(bytes.subarray(from, to)))
            from = to
          }
          frames.push(...decoder.end())
          assert.deepStrictEqual(frames, expectedOf(text))
        }
      ),
      { numRuns: 5_000 }
    )
  })

  it("may be too long between two of its events", () => {
    const decoder = FrameDecoder.make("sse", 100)
    for (const piece of ["data: a\n\n", `data: ${"b".repeat(200)}\n\n`]) {
      assert.lengthOf(decoder.push(Buffer.from(piece)), 1)
    }
    assert.throws(() => decoder.push(Buffer.from(`data: ${"c".repeat(200)}`)), "too long")
  })
})
