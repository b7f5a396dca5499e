/** Tool calls in every form that providers send. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { anthropic } from "../../src/dialects/anthropic/Provider.ts"
import { gemini } from "../../src/dialects/gemini/Provider.ts"
import { ollama } from "../../src/dialects/ollama/Provider.ts"
import { azureOpenAi, openAi } from "../../src/dialects/openai/Provider.ts"
import type { Dialect } from "../../src/dialects/shared/ProviderDialect.ts"
import { troupe } from "../../src/dialects/troupe/Provider.ts"
import type { ToolCall } from "../../src/domain/Job.ts"
import { decode, frameOf, generationOf, sent, summaryOf, targetOf } from "../support/Dialects.ts"
import { repetitions } from "../support/Repetitions.ts"

const names = ["get_weather", "get_time", "get_weather_later", "add"]
const generation = generationOf({ tools: names.map((name) => ({ name, parameters: { type: "object" } })) })

interface Given {
  readonly index?: number
  readonly id?: unknown
  readonly function?: { readonly name?: unknown; readonly arguments?: unknown }
}

const chunkOf = (delta: object, finish_reason: string | null = null) => ({
  choices: [{ index: 0, delta, finish_reason }]
})

/** The calls of a stream of these deltas; each is the `tool_calls` of one chunk. */
const callsOf = (chunks: ReadonlyArray<ReadonlyArray<Given>>, dialect: Dialect = openAi, given = generation) => {
  const frames = [...chunks.map((tool_calls) => chunkOf({ tool_calls })), chunkOf({}, "tool_calls")].map(frameOf)
  const summary = summaryOf(decode(dialect, frames, given, targetOf("openai")))
  if (summary.reason !== undefined) throw new Error(JSON.stringify(summary.reason))
  return summary.calls ?? []
}

const oslo = "{\"city\":\"Oslo\"}"
const rome = "{\"city\":\"Rome\"}"
const call = (name: unknown, text: unknown, more: object = {}): Given => ({
  ...more,
  function: { name, arguments: text }
})
/** Name and arguments of the calls. */
const briefly = (calls: ReadonlyArray<ToolCall>) => calls.map(({ arguments: text, name }) => [name, text])

const one = [["get_weather", oslo]]
const two = [["get_weather", oslo], ["get_time", rome]]
const same = [["get_weather", oslo], ["get_weather", rome]]

const shapes: ReadonlyArray<readonly [name: string, chunks: ReadonlyArray<ReadonlyArray<Given>>, expected: unknown]> = [
  ["index 0 for all, empty ids", [
    [call("get_weather", oslo, { index: 0, id: "" })],
    [call("get_weather", rome, { index: 0, id: "" })]
  ], same],
  ["index 0 for all, no ids", [
    [call("get_weather", oslo, { index: 0 })],
    [call("get_time", rome, { index: 0 })]
  ], two],
  ["no index, no ids", [[call("get_weather", oslo)], [call("get_time", rome)]], two],
  ["no index, no ids, in one delta", [[call("get_weather", oslo), call("get_time", rome)]], two],
  ["no index, ids, arguments later", [
    [call("get_weather", "", { id: "a" })],
    [call(undefined, "{\"city\":")],
    [call(undefined, "\"Oslo\"}")],
    [call("get_time", "", { id: "b" })],
    [call(undefined, rome)]
  ], two],
  ["index 0 for all, ids, interleaved", [
    [call("get_weather", "{\"city\":", { index: 0, id: "a" })],
    [call("get_time", "{\"city\":", { index: 0, id: "b" })],
    [call(undefined, "\"Oslo\"}", { index: 0, id: "a" })],
    [call(undefined, "\"Rome\"}", { index: 0, id: "b" })]
  ], two],
  ["name after the id", [
    [call("", "", { index: 0, id: "a" })],
    [call("get_weather", oslo, { index: 0, id: "a" })]
  ], one],
  ["name after an id that comes once", [
    [call("", "", { index: 0, id: "a" })],
    [call("get_weather", oslo, { index: 0, id: "" })]
  ], one],
  ["name after null", [
    [call(null, "", { index: 0, id: "a" })],
    [call("get_weather", oslo, { index: 0, id: "a" })]
  ], one],
  ["name after the arguments", [
    [call(undefined, oslo, { index: 0, id: "a" })],
    [call("get_weather", "", { index: 0, id: "a" })]
  ], one],
  ["name and id repeated with every delta", [
    [call("get_weather", "{\"city\":", { index: 0, id: "a" })],
    [call("get_weather", "\"Oslo\"}", { index: 0, id: "a" })]
  ], one],
  ["name repeated without ids", [
    [call("get_weather", "{\"city\":", { index: 0 })],
    [call("get_weather", "\"Oslo\"}", { index: 0 })]
  ], one],
  ["name in pieces", [
    [call("get_", "", { index: 0, id: "a" })],
    [call("weather", "", { index: 0 })],
    [call(undefined, oslo, { index: 0 })]
  ], one],
  ["name that grows with every delta", [
    [call("get", "", { index: 0, id: "a" })],
    [call("get_wea", "", { index: 0, id: "a" })],
    [call("get_weather", oslo, { index: 0, id: "a" })]
  ], one],
  ["name that begins another tool's, in pieces", [
    [call("get_weather", "", { index: 0, id: "a" })],
    [call("_later", oslo, { index: 0 })]
  ], [["get_weather_later", oslo]]],
  ["id after the name", [
    [call("get_weather", "", { index: 0 })],
    [call(undefined, oslo, { index: 0, id: "a" })],
    [call("get_time", rome, { index: 0, id: "b" })]
  ], two],
  ["a new id with every delta", [
    [call("get_weather", "{\"city\":", { index: 0, id: "a" })],
    [call(null, "\"Os", { index: 0, id: "b" })],
    [call(null, "lo\"}", { index: 0, id: "c" })],
    [call(null, "", { index: 0, id: "d" })],
    [call("get_time", rome, { index: 1, id: "e" })]
  ], two],
  ["one id for all", [
    [call("get_weather", oslo, { index: 0, id: "a" })],
    [call("get_time", rome, { index: 0, id: "a" })]
  ], two],
  ["arguments as an object", [[call("get_weather", { city: "Oslo" }, { index: 0, id: "a" })]], one],
  ["arguments null, empty and missing", [[
    call("add", null, { index: 0 }),
    call("add", "", { index: 1 }),
    { index: 2, function: { name: "add" } }
  ]], [["add", "{}"], ["add", "{}"], ["add", "{}"]]],
  ["braces within strings", [
    [call("get_weather", "{\"city\":\"}\\\"}{\"", { index: 0 })],
    [call("get_weather", "}", { index: 0 })]
  ], [["get_weather", "{\"city\":\"}\\\"}{\"}"]]],
  ["an empty delta at the end", [
    [call("get_weather", oslo, { index: 0, id: "a" })],
    [call("", "", { index: 0, id: "b" })],
    [{ index: 1 }]
  ], one]
]

describe("deltas of calls", () => {
  for (const [name, chunks, expected] of shapes) {
    for (const [host, dialect] of [["openai", openAi], ["azure-openai", azureOpenAi], ["troupe", troupe]] as const) {
      it(`are assembled into calls: ${name} (${host})`, () => {
        const calls = callsOf(chunks, dialect)
        assert.deepStrictEqual<unknown>(briefly(calls), expected)
        assert.strictEqual(new Set(calls.map(({ id }) => id)).size, calls.length)
        assert.isFalse(calls.some(({ id }) => id === ""))
      })
    }
  }

  it("are malformed if arguments or an id have no name", () => {
    assert.throws(() => callsOf([[call("", oslo, { index: 0, id: "a" })]]), "a tool call without a name")
    assert.throws(() => callsOf([[call(null, "", { index: 0, id: "a" })]]), "a tool call without a name")
  })

  it("may be of tools that the request does not declare", () => {
    assert.deepStrictEqual(
      briefly(callsOf([[call("search", "", { index: 0 })], [call("", "{}", { index: 0 })]], openAi, generationOf())),
      [["search", "{}"]]
    )
  })
})

/** How a provider formats calls and splits them into deltas. */
interface Manner {
  readonly index: "own" | "zero" | "none"
  readonly ids: "once" | "repeated" | "none" | "changing" | "one for all" | "late"
  readonly names: "once" | "repeated" | "late" | "split"
  readonly nothing: "" | null | undefined
  readonly object: boolean
}

const manner: fc.Arbitrary<Manner> = fc.record({
  index: fc.constantFrom("own", "zero", "none"),
  ids: fc.constantFrom("once", "repeated", "none", "changing", "one for all", "late"),
  names: fc.constantFrom("once", "repeated", "late", "split"),
  nothing: fc.constantFrom("" as const, null, undefined),
  object: fc.boolean()
})

const argument = fc.dictionary(fc.string({ maxLength: 4 }), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 3 })

const cutAt = (text: string, places: ReadonlyArray<number>): ReadonlyArray<string> => {
  const cuts = [0, ...places.map((place) => place % (text.length + 1)).sort((a, b) => a - b), text.length]
  return cuts.slice(1).map((end, index) => text.slice(cuts[index], end))
}

const idIn = ({ ids, nothing }: Manner, which: number, step: number): unknown => {
  if (ids === "none" || (ids === "once" && step > 0) || (ids === "late" && step !== 1)) return nothing
  if (ids === "one for all") return "id"
  return ids === "changing" ? `id-${which}-${step}` : `id-${which}`
}

const namesIn = ({ names, nothing }: Manner, name: string, steps: number): ReadonlyArray<unknown> => {
  const rest = Array.from({ length: steps }, () => names === "repeated" ? name : nothing)
  if (names === "split") return [name.slice(0, 2), name.slice(2), ...rest.slice(2)]
  return names === "late" ? [nothing, name, ...rest.slice(2)] : [name, ...rest.slice(1)]
}

/** The deltas of a call in this form. A new call's name may only be late or split where an index or id starts it. */
const deltasOf = (manner: Manner, name: string, args: object, which: number, places: ReadonlyArray<number>) => {
  const { index, nothing, object } = manner
  const late = manner.names === "late" || manner.names === "split"
  const isTold = index === "own" || manner.ids === "repeated" || manner.ids === "once"
  const own = late && !isTold ? { ...manner, names: "once" as const } : manner
  const texts = object ? [nothing, nothing, args] : ["", "", ...cutAt(JSON.stringify(args), places)]
  // A name with every delta, and nothing else, continues the call only while its arguments are not complete.
  const pieces = texts.filter((text, step) => step < 2 || object || text !== "")
  const spoken = namesIn(own, name, pieces.length)
  return pieces.map((piece, step): Given => ({
    ...(index === "none" ? {} : { index: index === "zero" ? 0 : which }),
    id: idIn(own, which, step),
    // A new id with a name starts a new call if all have one index.
    function: {
      name: own.ids === "changing" && step > 0 && own.names === "repeated" ? nothing : spoken[step],
      arguments: piece
    }
  }))
}

describe("calls", () => {
  it("are the same however a provider formats and splits them", () => {
    const calls = fc.array(
      fc.record({ name: fc.constantFrom(...names), args: argument, places: fc.array(fc.nat(), { maxLength: 4 }) }),
      { minLength: 1, maxLength: 4 }
    )
    fc.assert(
      fc.property(calls, manner, fc.boolean(), (given, manner, together) => {
        fc.pre(manner.names !== "split" || manner.ids !== "changing")
        const deltas = given.flatMap(({ args, name, places }, which) => deltasOf(manner, name, args, which, places))
        const chunks = together && manner.index !== "none" ? [deltas] : deltas.map((delta) => [delta])
        const made = callsOf(chunks)
        assert.deepStrictEqual(
          briefly(made),
          given.map(({ args, name }) => [name, JSON.stringify(args)])
        )
        assert.strictEqual(new Set(made.map(({ id }) => id)).size, made.length)
      }),
      { numRuns: repetitions(600, 3_000) }
    )
  })

  it("are assembled in linear time", () => {
    const text = JSON.stringify({ text: "x".repeat(200_000) })
    const deltas = Array.from(text, (char) => [call(undefined, char, { index: 0 })])
    assert.deepStrictEqual(briefly(callsOf([[call("add", "", { index: 0 })], ...deltas])), [["add", text]])
  })
})

describe("buffered answers", () => {
  const answered = (message: object, finish_reason: string) => ({ choices: [{ index: 0, message, finish_reason }] })
  const cases: ReadonlyArray<readonly [name: string, Dialect, body: object]> = [
    ["openai, an object", openAi, answered({ tool_calls: [call("get_weather", { city: "Oslo" })] }, "tool_calls")],
    ["openai, text and stop", openAi, answered({ tool_calls: [call("get_weather", oslo)] }, "stop")],
    [
      "openai, function_call",
      openAi,
      answered({ function_call: { name: "get_weather", arguments: oslo } }, "function_call")
    ],
    ["ollama, text", ollama, { message: { tool_calls: [call("get_weather", oslo)] }, done: true, done_reason: "stop" }],
    ["ollama, an object", ollama, { message: { tool_calls: [call("get_weather", { city: "Oslo" })] }, done: true }],
    ["gemini", gemini, {
      candidates: [{
        content: { parts: [{ functionCall: { name: "get_weather", args: { city: "Oslo" } } }] },
        finishReason: "STOP"
      }]
    }],
    ["gemini, text", gemini, {
      candidates: [{
        content: { parts: [{ functionCall: { name: "get_weather", args: oslo } }] },
        finishReason: "stop"
      }]
    }],
    ["anthropic, without an id", anthropic, {
      content: [{ type: "tool_use", name: "get_weather", input: { city: "Oslo" } }],
      stop_reason: "end_turn"
    }],
    ["anthropic, text", anthropic, {
      content: [{ type: "tool_use", id: "", name: "get_weather", input: oslo }],
      stop_reason: "tool_use"
    }]
  ]
  for (const [name, dialect, body] of cases) {
    it(`have the call: ${name}`, () => {
      const summary = summaryOf(dialect.generate.buffered(body, generation, targetOf("openai")))
      assert.deepStrictEqual<unknown>(briefly(summary.calls ?? []), one)
      assert.strictEqual(summary.finish?.reason, "tool_calls")
      assert.notStrictEqual(summary.calls?.[0]?.id, "")
    })
  }
})

describe("ids of calls", () => {
  const before = { id: "call_3_0", name: "get_time", arguments: "{}" }
  const earlier = generationOf({
    tools: generation.tools!,
    messages: [
      { role: "user", content: "Hi" },
      { role: "assistant", content: "", toolCalls: [before, { ...before, id: "same" }] },
      { role: "tool", content: "noon", toolCallId: "call_3_0" }
    ]
  })

  it("differ from all ids of the conversation, with and without ids of the provider", () => {
    const answers = [
      callsOf([[call("add", "{}", { index: 0, id: "same" }), call("add", "{}", { index: 1 })]], openAi, earlier),
      summaryOf(gemini.generate.buffered(
        { candidates: [{ content: { parts: [{ functionCall: { id: "same", name: "add" } }] }, finishReason: "STOP" }] },
        earlier,
        targetOf("gemini")
      )).calls ?? [],
      summaryOf(
        ollama.generate.buffered(
          { message: { tool_calls: [call("add", {})] }, done: true },
          earlier,
          targetOf("ollama")
        )
      )
        .calls ?? [],
      summaryOf(anthropic.generate.buffered(
        { content: [{ type: "tool_use", id: "same", name: "add", input: {} }], stop_reason: "tool_use" },
        earlier,
        targetOf("anthropic")
      )).calls ?? []
    ]
    for (const calls of answers) {
      const ids = calls.map(({ id }) => id)
      assert.isAbove(ids.length, 0)
      assert.strictEqual(new Set([...ids, "same", "call_3_0"]).size, ids.length + 2)
    }
  })

  it("that occur again in a later turn give each result the name of its own call", () => {
    const turn = (name: string) => [
      { role: "assistant" as const, content: "", toolCalls: [{ id: "call_0", name, arguments: "{}" }] },
      { role: "tool" as const, content: "1", toolCallId: "call_0" }
    ]
    const request = generationOf({
      messages: [{ role: "user", content: "Hi" }, ...turn("get_time"), ...turn("add")]
    })
    const bodyOf = (dialect: Dialect) =>
      JSON.stringify(sent(Result.getOrThrow(dialect.generate.request(request, targetOf("ollama"), false))).body)
    const found = (body: string, pattern: RegExp) => [...body.matchAll(pattern)].map(([, name]) => name)
    assert.deepStrictEqual(found(bodyOf(ollama), /"tool_name":"(\w+)"/g), ["get_time", "add"])
    assert.deepStrictEqual(found(bodyOf(gemini), /"functionResponse":\{"id":"call_0","name":"(\w+)"/g), [
      "get_time",
      "add"
    ])
  })
})
