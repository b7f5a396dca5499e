/** Chunks that are recognized by a template are decoded and encoded as if each was parsed. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Envelope } from "../../../src/dialects/openai/EncodeAnswer.ts"
import * as EncodeStream from "../../../src/dialects/openai/EncodeStream.ts"
import { openAi } from "../../../src/dialects/openai/Provider.ts"
import type { Event } from "../../../src/domain/Inference.ts"
import { generationOf } from "../../support/Dialects.ts"
import { bodyOf, isRepeated, lengthOf, parsedOf, read, spaced, tokensOf } from "../../support/Streams.ts"

const ownCaller = generationOf({ source: { dialect: "openai", body: { model: "m", messages: [] } } })
const otherCaller = generationOf({ source: { dialect: "anthropic", body: { model: "m", messages: [] } } })
const legacyCaller = generationOf({ source: { dialect: "openai", body: { functions: [], messages: [] } } })
const openAiProvider = ["openai", openAi] as const
const envelope: Envelope = { id: "req_1", created: 5, model: "mine", includeUsage: false, parallelToolCalls: true }

/** The parsed chunks of the caller's stream. */
const framesOf = (given: Envelope, events: ReadonlyArray<Event>): ReadonlyArray<unknown> => {
  const encoder = EncodeStream.makeFrameEncoder(given)
  return encoder.events(0, events).split("\n\n").filter((text) => text !== "")
    .map((text) => JSON.parse(text.replace("data: ", "")) as unknown)
}

/** JSON in another spelling. */
const spellings: ReadonlyArray<(json: string) => string> = [
  (json) => json,
  (json) => json.replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`),
  (json) => json.replaceAll("/", "\\/").replaceAll(",\"", ", \"").replaceAll("\":", "\": ")
]

const text = fc.oneof(
  fc.string({ unit: "grapheme" }),
  fc.string({ unit: "binary" }),
  fc.constantFrom(
    "",
    "a",
    "\"",
    "\\",
    "\ud800",
    "\t",
    "\u0000",
    "\u2028",
    "<troupe:first>",
    "<troupe:second>",
    "\"content\":\"",
    "データ",
    "/"
  )
)

const content = text.map((content) => ({ content }))

/** Of all deltas of a run. */
const deltaFields: fc.Arbitrary<object> = fc.oneof(
  fc.constantFrom<object>(
    {},
    { role: "assistant", refusal: null },
    { refusal: "No." },
    { vendor: "<troupe:first>" },
    { vendor: { content: "x" } },
    { vendor: { content: "x", obfuscation: "y" } },
    { tool_calls: [] },
    { tool_calls: [{ index: 0, id: "c", function: { name: "f", arguments: "{" } }] },
    { tool_calls: [{ index: 0, function: { arguments: "{" } }] },
    { tool_calls: [{ index: 0, id: "c", type: "custom", custom: { name: "sql", input: "x" } }] },
    { function_call: null },
    { function_call: { name: "f", arguments: "" } },
    { function_call: { arguments: "1" } }
  ),
  text.map((reasoning_content) => ({ reasoning_content }))
)

const odd: fc.Arbitrary<object> = fc.constantFrom(
  {},
  { content: null },
  { content: [{ type: "text", text: "part" }] },
  {
    content: 5
  }
)

const fields = fc.record({
  id: fc.constantFrom("chatcmpl-1", "chatcmpl-2"),
  created: fc.constantFrom("1", "9007199254740993", "1e400"),
  usage: fc.constantFrom("null", "null", "{\"prompt_tokens\":1,\"completion_tokens\":2}"),
  index: fc.constantFrom("0", "0", "0", "1", "-1", "-0", "null"),
  more: fc.constantFrom(
    "",
    "",
    ",\"content\":\"top\"",
    ",\"logprobs\":{\"content\":\"<troupe:first>\"}",
    ",\"é\":\"é\""
  ),
  obfuscation: fc.boolean(),
  choices: fc.constantFrom(1, 1, 1, 1, 0, 2),
  finish: fc.constantFrom("null", "null", "null", "null", "\"\"", "\"stop\"", "\"tool_calls\"")
}, { requiredKeys: ["id", "created", "index", "more", "obfuscation", "choices", "finish"] })

const plainFields = {
  id: "chatcmpl-1",
  created: "1",
  index: "0",
  more: "",
  obfuscation: true,
  choices: 1,
  finish: "null",
  usage: "null"
}

/** Chunks as a provider writes them: runs of chunks with the same fields, and any others. */
const chunks: fc.Arbitrary<ReadonlyArray<string>> = fc.tuple(
  fc.array(
    fc.tuple(
      fc.oneof(fields, { weight: 2, arbitrary: fc.constant(plainFields) }),
      deltaFields,
      fc.array(fc.tuple(fc.oneof({ weight: 8, arbitrary: content }, odd), text), { minLength: 1, maxLength: 8 })
    ),
    { maxLength: 4 }
  ),
  fc.constantFrom(...spellings)
).map(([runs, spell]) =>
  runs.flatMap(([{ choices, created, finish, id, index, more, obfuscation, usage }, common, pieces]) =>
    pieces.map(([own, random]) => {
      const delta = { ...common, ...own }
      const choice = `{"index":${index},"delta":${JSON.stringify(delta)},"finish_reason":${finish}${more}}`
      return spell(
        `{"id":"${id}","created":${created},"choices":[${Array.from({ length: choices }, () => choice).join(",")}]` +
          (usage === undefined ? "" : `,"usage":${usage}`) +
          (obfuscation ? `,"obfuscation":${JSON.stringify(random)}` : "") + "}"
      )
    })
  )
)

const ends: ReadonlyArray<ReadonlyArray<string>> = [
  ["{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}", "[DONE]"],
  ["[DONE]"],
  []
]

const damaged = fc.tuple(
  chunks,
  fc.constantFrom(...ends),
  fc.nat(30),
  fc.nat(300),
  fc.constantFrom("", "\"", "}", "\\")
)
  .map(([some, end, which, at, damage]): ReadonlyArray<string> =>
    some.map((chunk, index) => index === which ? chunk.slice(0, at) + damage + chunk.slice(at + 1) : chunk).concat(end)
  )

const streams = fc.oneof(
  fc.tuple(chunks, fc.constantFrom(...ends)).map(([some, end]) => [...some, ...end]),
  damaged
)

describe("chunks that differ in their text", () => {
  const given = ["Hé", "llo \"", "\\", "\ud83d\ude00", "\n", "!"]

  it.each([
    ["", (_: string) => ""],
    [" and in a text without meaning", (word: string) => `,"obfuscation":"${"x".repeat(word.length)}"`]
  ])("are recognized%s", (_, more) => {
    const body = bodyOf([
      ...given.map((word) =>
        `{"id":"a","model":"m","choices":[{"index":0,"delta":{"content":${
          JSON.stringify(word)
        }},"finish_reason":null}]${more(word)}}`
      ),
      ...ends[0]!
    ])
    const { events } = read(openAiProvider, ownCaller, body, [body.length])
    assert.deepStrictEqual(events.map(lengthOf).filter((length) => length > 0), [given.length - 1])
    const run = JSON.parse(JSON.stringify(events.filter(isRepeated))) as ReadonlyArray<{ readonly native: object }>
    assert.nestedPropertyVal(run[0], "native.body.choices[0].delta.content", given.slice(1).join(""))
    assert.strictEqual(events.map((event) => event.type === "text" ? event.text : "").join(""), given.join(""))
    const frames = framesOf(envelope, events) as ReadonlyArray<Record<string, unknown>>
    assert.deepStrictEqual(
      frames.slice(0, given.length).map(({ id, model }) => [id, model]),
      given.map(() => ["req_1", "mine"])
    )
  })

  it("become the same events, and frames of the same JSON, as chunks that are parsed", () => {
    let repeated = 0
    fc.assert(
      fc.property(
        streams,
        fc.constantFrom(ownCaller, ownCaller, otherCaller, legacyCaller, generationOf()),
        fc.array(fc.oneof(fc.integer({ min: 1, max: 400 }), fc.integer({ min: 400, max: 4_000 })), {
          minLength: 1,
          maxLength: 5
        }),
        fc.boolean(),
        (some, generation, lengths, includeUsage) => {
          const found = read(openAiProvider, generation, bodyOf(some), lengths)
          const expected = read(openAiProvider, generation, bodyOf(spaced(some)), [1_000_000])
          assert.isFalse(expected.events.some(isRepeated))
          assert.deepStrictEqual(parsedOf(found.events), parsedOf(expected.events))
          assert.strictEqual(tokensOf(found.events), tokensOf(expected.events))
          assert.deepStrictEqual(found.failure, expected.failure)
          const caller = { ...envelope, includeUsage }
          assert.deepStrictEqual(framesOf(caller, found.events), framesOf(caller, expected.events))
          repeated += found.events.reduce((sum, event) => sum + lengthOf(event), 0)
        }
      ),
      { numRuns: 1_000 }
    )
    assert.isAbove(repeated, 100)
  })
})
