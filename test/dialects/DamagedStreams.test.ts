import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as AnthropicStream from "../../src/dialects/anthropic/EncodeStream.ts"
import { anthropic } from "../../src/dialects/anthropic/Provider.ts"
import * as OpenAiStream from "../../src/dialects/openai/EncodeStream.ts"
import { openAi } from "../../src/dialects/openai/Provider.ts"
import type { Dialect } from "../../src/dialects/shared/ProviderDialect.ts"
import type { Provider } from "../../src/domain/Deployment.ts"
import type { Event } from "../../src/domain/Inference.ts"
import { generationOf } from "../support/Dialects.ts"
import { lengthOf, parsedOf, read, tokensOf } from "../support/Streams.ts"

const words = fc.array(
  fc.oneof(fc.string({ unit: "grapheme" }), fc.constantFrom("word ", "\"", "\\", "\ud800", "\n\n", "data: ", "日本")),
  { minLength: 2, maxLength: 12 }
)

const message = { type: "message", id: "m", model: "c", usage: { input_tokens: 2 } }

const anthropicOf = (texts: ReadonlyArray<string>): string =>
  [
    { type: "message_start", message },
    { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
    ...texts.map((text) => ({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } })),
    { type: "ping" },
    { type: "content_block_stop", index: 0 },
    { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 3 } },
    { type: "message_stop" }
  ].map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join("")

const openAiOf = (texts: ReadonlyArray<string>): string =>
  [
    ...[{ role: "assistant", content: "" }, ...texts.map((content) => ({ content })), {}].map((delta, index) =>
      JSON.stringify({
        id: "chatcmpl-1",
        created: 1,
        model: "m",
        choices: [{ index: 0, delta, finish_reason: index > texts.length ? "stop" : null }]
      })
    ),
    JSON.stringify({
      id: "chatcmpl-1",
      choices: [],
      usage: { prompt_tokens: 2, completion_tokens: 3, total_tokens: 5 }
    }),
    "[DONE]"
  ].map((data) => `data: ${data}\n\n`).join("")

type Damage = (bytes: Buffer) => Buffer

/** Other bytes in place of some at a place. */
const damage: fc.Arbitrary<Damage> = fc.tuple(
  fc.noBias(fc.nat(10_000)),
  fc.nat(3),
  fc.oneof(
    fc.uint8Array({ maxLength: 3 }),
    fc.constantFrom(
      "",
      "\n",
      "\n\n",
      "\r",
      "\r\n",
      "\ufeff",
      "data: ",
      "event: ",
      ": comment\n\n",
      "\"",
      "\\",
      "{",
      "}"
    )
      .map((text) => Buffer.from(text))
  )
).map(([part, count, inserted]) => (bytes) => {
  const place = Math.floor(part / 10_000 * bytes.length)
  return Buffer.concat([bytes.subarray(0, place), inserted, bytes.subarray(place + count)])
})

/** Some bytes once more, in another place. */
const repetition: fc.Arbitrary<Damage> = fc.noBias(fc.tuple(fc.nat(1_000), fc.nat(1_000), fc.nat(1_000))).map(
  ([from, to, place]) => (bytes) =>
    Buffer.concat([bytes.subarray(0, place), bytes.subarray(from, to), bytes.subarray(place)])
)

const end: fc.Arbitrary<Damage> = fc.noBias(fc.nat(2_000)).map((length) => (bytes) => bytes.subarray(0, length))

const damages = fc.array(fc.oneof({ weight: 4, arbitrary: damage }, repetition, end), { maxLength: 3 })

const lengths = fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 40, max: 3_000 })), {
  minLength: 1,
  maxLength: 5
})

/** The dialect with each event parsed. */
const withoutRuns = (dialect: Dialect): Dialect => ({
  ...dialect,
  generate: {
    ...dialect.generate,
    events: (generation, target) => {
      const { end, isFinished, push } = dialect.generate.events(generation, target)
      return isFinished === undefined ? { push, end } : { push, end, isFinished }
    }
  }
})

/** The JSON of a caller's frames. */
const jsonOf = (frames: string): ReadonlyArray<unknown> =>
  frames.split("\n").filter((line) => line.startsWith("data: {")).map((line) => JSON.parse(line.slice(6)))

const openAiEnvelope = { id: "req_1", created: 5, model: "mine", includeUsage: true, parallelToolCalls: true }

/** A dialect, a stream of it, and what a caller of it gets. */
const cases: ReadonlyArray<
  readonly [Provider, Dialect, (texts: ReadonlyArray<string>) => string, (events: ReadonlyArray<Event>) => string]
> = [
  ["openai", openAi, openAiOf, (events) => OpenAiStream.makeFrameEncoder(openAiEnvelope).events(0, events)],
  [
    "anthropic",
    anthropic,
    anthropicOf,
    (events) =>
      AnthropicStream.makeFrameEncoder({ id: "req_1", model: "mine", parallelToolUse: true, thinking: true }).events(
        events
      )
  ]
]

describe("a stream that is damaged anywhere and cut anywhere", () => {
  for (const [provider, dialect, streamOf, framesOf] of cases) {
    it(`becomes the same events and frames with and without runs of ${provider} events`, () => {
      let repeated = 0
      fc.assert(
        fc.property(words, damages, lengths, fc.constantFrom("openai", "anthropic"), (texts, some, pieces, caller) => {
          const body = some.reduce<Buffer>((bytes, change) => change(bytes), Buffer.from(streamOf(texts)))
          const generation = generationOf({ source: { dialect: caller, body: { model: "m", messages: [] } } })
          const found = read([provider, dialect], generation, body, pieces)
          const expected = read([provider, withoutRuns(dialect)], generation, body, [1_000_000])
          assert.deepStrictEqual(parsedOf(found.events), parsedOf(expected.events))
          assert.strictEqual(tokensOf(found.events), tokensOf(expected.events))
          assert.deepStrictEqual(found.failure, expected.failure)
          if (caller === provider) {
            assert.deepStrictEqual(jsonOf(framesOf(found.events)), jsonOf(framesOf(expected.events)))
          }
          repeated += found.events.reduce((sum, event) => sum + lengthOf(event), 0)
        }),
        { numRuns: 2_000 }
      )
      assert.isAbove(repeated, 1_000)
    })
  }
})
