/** Invalid and malicious responses of providers: none breaks the service, reveals a secret or is decoded as an answer. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted, Result, Schema } from "effect"
import * as fc from "fast-check"
import * as AnthropicEncodeStream from "../../src/dialects/anthropic/EncodeStream.ts"
import { anthropic } from "../../src/dialects/anthropic/Provider.ts"
import { gemini } from "../../src/dialects/gemini/Provider.ts"
import * as OllamaEncodeStream from "../../src/dialects/ollama/EncodeStream.ts"
import { ollama } from "../../src/dialects/ollama/Provider.ts"
import * as OpenAiEncodeStream from "../../src/dialects/openai/EncodeStream.ts"
import { openAi } from "../../src/dialects/openai/Provider.ts"
import { brief } from "../../src/dialects/shared/ErrorMapping.ts"
import type { Dialect } from "../../src/dialects/shared/ProviderDialect.ts"
import { troupe } from "../../src/dialects/troupe/Provider.ts"
import type { Event } from "../../src/domain/Inference.ts"
import { InvalidRequest, Reason } from "../../src/domain/InferenceError.ts"
import { retryAfterOf } from "../../src/domain/RetryAfter.ts"
import * as DeploymentKeys from "../../src/layers/providers/DeploymentKeys.ts"
import { makeEventReader } from "../../src/layers/providers/EventReader.ts"
import { engineAt, fixture, generation, json, outcome, served, textOf } from "../layers/providers/support.ts"
import { ollamaEnvelope, plain, streamedOf, targetOf } from "../support/Dialects.ts"
import * as Numbers from "../support/Numbers.ts"
import { repetitions } from "../support/Repetitions.ts"

const linesOf = (name: string) => {
  const recorded = fixture(name)
  return [recorded.text, recorded.tools].map(({ stream }) =>
    stream.join("").split("\n").map((line) => line.replace("data: ", "")).filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line) as object)
  )
}

const subjects: ReadonlyArray<readonly [name: string, Dialect, ReadonlyArray<ReadonlyArray<object>>]> = [
  ["openai", openAi, linesOf("openai")],
  ["anthropic", anthropic, streamedOf("anthropic").map(({ frames }) => frames)],
  ["gemini", gemini, streamedOf("gemini").map(({ frames }) => frames)],
  ["ollama", ollama, linesOf("ollama")]
]

/** Values that replace the expected one. */
const odd = fc.oneof(
  fc.constantFrom<unknown>(null, "", "constructor", "__proto__", -1, 1.5, 2 ** 60, "7", [], {}, true, "\0", "\ud800"),
  Numbers.number,
  fc.jsonValue()
)

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null

/** Replaces the value at a path. */
const spoil = (value: unknown, [step = 0, ...steps]: ReadonlyArray<number>, odd: unknown): unknown => {
  if (!isObject(value) || Object.keys(value).length === 0) return odd
  const name = Object.keys(value)[step % Object.keys(value).length]!
  const inner = steps.length === 0 ? odd : spoil(value[name], steps, odd)
  if (Array.isArray(value)) return value.map((one: unknown, index) => String(index) === name ? inner : one)
  return { ...value, [name]: inner }
}

const write = (dialect: Dialect, frame: unknown): string =>
  dialect.framing === "sse" ? `data: ${JSON.stringify(frame)}\n\n` : `${JSON.stringify(frame)}\n`

const read = (dialect: Dialect, body: string) => {
  const target = targetOf("openai")
  const reader = makeEventReader(dialect, target, generation)
  reader.push(Buffer.from(body))
  if (!reader.isOver()) reader.end()
  return reader.take()
}

/** The frames of a stream for callers of the provider's dialect. */
const callers: ReadonlyArray<readonly [subject: typeof subjects[number], encode: (body: string) => string]> = [
  [subjects[0]!, (body) => {
    const asked = { ...generation, source: { dialect: "openai", body: { messages: [] } } as const }
    const reader = makeEventReader(openAi, targetOf("openai"), asked)
    reader.push(Buffer.from(body))
    reader.end()
    const envelope = { id: "chatcmpl-1", created: 1, model: "m", includeUsage: true, parallelToolCalls: true }
    return OpenAiEncodeStream.makeFrameEncoder(envelope).events(0, reader.take().events)
  }],
  [subjects[1]!, (body) => {
    const asked = { ...generation, source: { dialect: "anthropic", body: { messages: [] } } as const }
    const reader = makeEventReader(anthropic, targetOf("anthropic"), asked)
    reader.push(Buffer.from(body))
    reader.end()
    const envelope = { id: "req_1", model: "m", parallelToolUse: true, thinking: true }
    return AnthropicEncodeStream.makeFrameEncoder(envelope).events(reader.take().events)
  }],
  [subjects[3]!, (body) => {
    const asked = { ...generation, source: { dialect: "ollama", body: { messages: [] } } as const }
    const reader = makeEventReader(ollama, targetOf("ollama"), asked)
    reader.push(Buffer.from(body))
    reader.end()
    return OllamaEncodeStream.makeFrameEncoder(ollamaEnvelope()).events(reader.take().events)
  }]
]

const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0

const expectEvent = (event: Event, known: Set<number>) => {
  if (event.type === "handoff" || event.type === "native") throw new Error(`Unexpected ${event.type}`)
  if (event.type === "finish") {
    assert.include(["stop", "length", "tool_calls", "content_filter"], event.reason)
    assert.isTrue(isCount(event.usage.completionTokens) && isCount(event.usage.cachedTokens))
    return
  }
  assert.isTrue(isCount(event.tokens))
  if (event.type === "text" || event.type === "thoughts") return assert.isString(event.text)
  assert.isString(event.arguments)
  assert.strictEqual(known.has(event.index), event.id === undefined)
  assert.isTrue(known.has(event.index) || (event.index === known.size && typeof event.name === "string"))
  known.add(event.index)
}

describe("a stream for callers of the provider's dialect", () => {
  for (const [[name, dialect, streams], encode] of callers) {
    it(`becomes frames with a value of it spoilt: ${name}`, () => {
      const place = fc.array(fc.nat(20), { minLength: 1, maxLength: 7 })
      fc.assert(
        fc.property(fc.constantFrom(...streams), fc.nat(20), place, odd, (frames, which, place, odd) => {
          const spoilt = frames.map((frame, index) =>
            index === which % frames.length ? spoil(frame, place, odd) : frame
          )
          assert.isString(encode(spoilt.map((frame) => write(dialect, frame)).join("")))
        }),
        { numRuns: repetitions(400, 2_000) }
      )
    })
  }
})

describe("the text of a provider's error", () => {
  for (const [name, dialect, streams] of subjects) {
    it(`becomes valid events or a reason if one of its values is replaced: ${name}`, () => {
      const place = fc.array(fc.nat(20), { minLength: 1, maxLength: 7 })
      fc.assert(
        fc.property(fc.constantFrom(...streams), fc.nat(20), place, odd, (frames, which, place, odd) => {
          const spoilt = frames.map((frame, index) =>
            index === which % frames.length ? spoil(frame, place, odd) : frame
          )
          const { events, failure } = read(dialect, spoilt.map((frame) => write(dialect, frame)).join(""))
          const known = new Set<number>()
          for (const event of events) expectEvent(event, known)
          const finishes = events.filter(({ type }) => type === "finish").length
          assert.strictEqual(finishes, failure === undefined ? 1 : 0)
          if (failure !== undefined) Schema.encodeSync(Reason)(failure)
        }),
        { numRuns: repetitions(400, 2_000) }
      )
    })

    it(`is malformed if it is nested too deeply: ${name}`, () => {
      const depth = 200_000
      const deep = `${"{\"a\":".repeat(depth)}1${"}".repeat(depth)}`
      const bodies: Readonly<Record<string, string>> = {
        openai: `{"choices":[{"index":0,"delta":{"content":"x"},"a":${deep}}]}`,
        anthropic:
          `{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"a","name":"f","input":${deep}}}` +
          "\n\ndata: {\"type\":\"content_block_stop\",\"index\":0}",
        gemini:
          `{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":${deep}}}]},"finishReason":"STOP"}]}`,
        ollama: `{"message":{"tool_calls":[{"function":{"name":"f","arguments":${deep}}}]},"done":true}`
      }
      const { failure } = read(dialect, `${dialect.framing === "sse" ? "data: " : ""}${bodies[name]}\n\n`)
      assert.deepInclude(failure, { _tag: "UpstreamFailed" })
    })
  }

  it("may have names that every object inherits", () => {
    for (const name of ["constructor", "toString", "__proto__", "hasOwnProperty"]) {
      for (const [, dialect] of subjects) {
        const { failure } = read(
          dialect,
          write(dialect, { type: "error", error: { code: name, type: name, message: "x" } })
        )
        assert.isDefined(plain(failure!))
      }
      const { events } = read(openAi, write(openAi, { choices: [{ delta: { content: "x" }, finish_reason: name }] }))
      assert.deepInclude(events.at(-1), { type: "finish", reason: "stop" })
    }
  })

  it("may have more calls in one event than the stack has room for", () => {
    const calls = Array.from({ length: 200_000 }, (_, index) => ({ index, id: `${index}`, function: { name: "f" } }))
    const { events, failure } = read(
      openAi,
      write(openAi, { choices: [{ index: 0, delta: { tool_calls: calls }, finish_reason: "tool_calls" }] })
    )
    assert.isUndefined(failure)
    assert.lengthOf(events.filter((event) => event.type === "tool_call" && event.id !== undefined), calls.length)
    assert.strictEqual(events.at(-1)?.type, "finish")
  })

  it("may be an error of millions of words that almost match a pattern", () => {
    for (const words of ["context length is 1 tokens ", "prompt has 1 tokens, and the context window of "]) {
      const error = { message: words.repeat(200_000), code: "context_length_exceeded" }
      const decoder = openAi.generate.events(generation, targetOf("openai"))
      assert.isTrue(Result.isFailure(decoder.push({ event: "message", data: JSON.stringify({ error }) })))
    }
  })

  it("may be a vector with more numbers than the stack has room for, or with numbers that are too large", () => {
    const answer = (embedding: ReadonlyArray<number>) =>
      openAi.embed!.answer({ data: [{ index: 0, embedding }] }, ["a"], targetOf("openai"))
    assert.isTrue(Result.isSuccess(answer(Array.from({ length: 500_000 }, () => 1))))
    assert.isTrue(Result.isFailure(answer([1e200, 1e200])))
  })
})

describe("results with an index", () => {
  it("are malformed if an index is missing, repeated or out of range", () => {
    const target = targetOf("troupe")
    for (const [one, two] of [[0, 0], [1, 1], [0, 2], [0, 4_000_000_000], [-1, 0]]) {
      const data = [{ index: one, embedding: [1] }, { index: two, embedding: [1] }]
      const results = [{ index: one, relevance_score: 0.5 }, { index: two, relevance_score: 0.5 }]
      assert.isTrue(Result.isFailure(openAi.embed!.answer({ data }, ["a", "b"], target)))
      assert.isTrue(Result.isFailure(troupe.rerank!.answer({ results }, { query: "q", documents: ["a", "b"] }, target)))
    }
  })

  it("are sorted by index", () => {
    const decoded = troupe.rerank!.answer(
      { results: [{ index: 1, relevance_score: 0.1 }, { index: 0, relevance_score: 0.9 }] },
      { query: "q", documents: ["a", "b"] },
      targetOf("troupe")
    )
    assert.deepStrictEqual(Result.getOrThrow(decoded).scores, [0.9, 0.1])
  })
})

describe("the time to wait before a retry", () => {
  const day = 86_400_000
  const of = (headers: Record<string, string>) => retryAfterOf({ headers, body: "", now: 1_700_000_000_000 })

  it("is at most a day or absent, whatever the headers contain", () => {
    const value = fc.oneof(
      fc.string(),
      fc.double().map(String),
      fc.nat(400).map((length) => "9".repeat(length)),
      fc.constantFrom(
        "-1",
        "Infinity",
        "1e999",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "1h1h"
      ),
      fc.tuple(fc.nat(), fc.constantFrom("ms", "s", "m", "h")).map(([number, unit]) => `${number}${unit}`)
    )
    fc.assert(fc.property(value, value, value, (exact, after, reset) => {
      const retryAfterMs = of({
        "retry-after-ms": exact,
        "retry-after": after,
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": reset
      })
      return retryAfterMs === undefined || (retryAfterMs >= 0 && retryAfterMs <= day)
    }))
    assert.strictEqual(of({ "retry-after": "9".repeat(400) }), day)
  })

  it("is not read from text that is not a date", () => {
    for (const text of ["soon 5", "-5", "May", "about 1 hour", "1700000000 x"]) {
      assert.isUndefined(of({ "retry-after": text }))
    }
    assert.strictEqual(of({ "retry-after": "Tue, 14 Nov 2023 22:13:30 GMT" }), 10_000)
  })
})

const sources: DeploymentKeys.Sources = { now: () => 0, random: () => 0 }

describe("a reason", () => {
  it("contains no part of a key, wherever the provider's text is shortened", () => {
    const key = "Kp7-Zq9_Xw3.Vb5"
    const ring = DeploymentKeys.make(
      { engine: "remote", provider: "openai", model: "m", key: Redacted.make(key) },
      sources
    )
    fc.assert(fc.property(fc.nat(400), fc.nat(400), (before, after) => {
      const detail = `${brief(`${"x".repeat(before)}${key}${"y".repeat(after)}`)} (HTTP status 400)`
      const clean = ring.clean(new InvalidRequest({ detail, path: `a.${key}` }))
      const text = JSON.stringify(plain(clean))
      assert.notInclude(text, key.slice(0, 4))
      assert.notInclude(text, key.slice(-4))
    }))
  })

  it("contains no part of a key that is the prefix of another, or of one after the scheme of a header", () => {
    const ring = DeploymentKeys.make({
      engine: "remote",
      provider: "openai",
      model: "m",
      keys: [{ key: Redacted.make("sk-one") }, { key: Redacted.make("sk-one-more") }],
      headers: { authorization: Redacted.make("Bearer sk-header") }
    }, sources)
    const clean = ring.clean(new InvalidRequest({ detail: "Neither sk-one-more nor sk-header nor sk-one is one." }))
    assert.strictEqual(clean.message, "Neither <redacted> nor <redacted> nor <redacted> is one.")
  })
})

const { stream: pieces } = fixture("openai").text
const answerText = "Grüße aus 東京 🎌"
const bodyOf = (text: string) => JSON.stringify({ choices: [{ message: { content: text }, finish_reason: "stop" }] })

describe("a connection", () => {
  it.live("is not used again after it was cut, reset or abandoned", () =>
    Effect.gen(function*() {
      const server = yield* served((index) =>
        index % 2 === 1 ? { pieces } : { pieces, fault: { kind: index % 4 === 0 ? "cut" : "reset", after: 2 } }
      )
      const engine = yield* engineAt(server.url, { maxConcurrent: 1 })
      for (let round = 0; round < 4; round++) {
        assert.strictEqual((yield* outcome(engine)).reason?._tag, "UpstreamFailed")
        const { events, reason } = yield* outcome(engine)
        assert.isUndefined(reason)
        assert.strictEqual(textOf(events), answerText)
      }
    }))

  it.live("drops an unrequested second response", () =>
    Effect.gen(function*() {
      const wire = (text: string) => {
        const body = bodyOf(text)
        const head = ["HTTP/1.1 200 OK", "content-type: application/json", `content-length: ${Buffer.byteLength(body)}`]
        return `${head.join("\r\n")}\r\n\r\n${body}`
      }
      const server = yield* served((index) =>
        index === 0
          ? { raw: true, pieces: [wire("First") + wire("Smuggled")], fault: { kind: "stall", after: 1 } }
          : { headers: json, pieces: [bodyOf("Own")] }
      )
      const engine = yield* engineAt(server.url, { maxConcurrent: 1, stream: false })
      const first = yield* outcome(engine)
      const second = yield* outcome(engine)
      assert.notInclude([textOf(first.events), textOf(second.events)], "Smuggled")
      // The second response may be detected before the first one is read.
      assert.strictEqual(second.reason === undefined ? textOf(second.events) : second.reason._tag, "Own")
    }))

  it.live("may be closed by the provider after a response without an error of the next request", () =>
    Effect.gen(function*() {
      const server = yield* served(() => ({ headers: { ...json, connection: "close" }, pieces: [bodyOf("Hello")] }))
      const engine = yield* engineAt(server.url, { maxConcurrent: 1, stream: false })
      for (let index = 0; index < 5; index++) assert.isUndefined((yield* outcome(engine)).reason)
    }))
})
