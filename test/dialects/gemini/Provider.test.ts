import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { gemini } from "../../../src/dialects/gemini/Provider.ts"
import type { Generation } from "../../../src/domain/Generation.ts"
import {
  bufferedOf,
  decode,
  frameOf,
  generationOf,
  plain,
  refusalsOf,
  requestsOf,
  sent,
  streamedOf,
  summaryOf,
  targetOf
} from "../../support/Dialects.ts"

const target = targetOf("gemini")

const refusalOf = (given: Partial<Generation>) =>
  plain(Result.getOrThrow(Result.flip(gemini.generate.request(generationOf(given), target, true)))) as {
    readonly _tag: string
    readonly path: string
  }

const sampling = { temperature: 1, topP: 1, seed: 7 }
const schema = (schema: object) => ({ format: { type: "json_schema", schema: { ...schema } } }) as const

describe("Gemini requests", () => {
  for (const { call, generation, name, options, stream } of requestsOf("gemini")) {
    it(`encode ${name}`, () => {
      const encoded = gemini.generate.request(generationOf(generation), targetOf("gemini", options), stream)
      assert.deepStrictEqual(sent(Result.getOrThrow(encoded)), call)
    })
  }

  it.each(
    [
      ["auto", { mode: "AUTO" }],
      ["none", { mode: "NONE" }],
      ["required", { mode: "ANY" }],
      [{ name: "f" }, { mode: "ANY", allowedFunctionNames: ["f"] }]
    ] as const
  )("encode the tool choice %j", (toolChoice, expected) => {
    const encoded = gemini.generate.request(generationOf({ tools: [{ name: "f" }], toolChoice }), target, true)
    const { toolConfig } = sent(Result.getOrThrow(encoded)).body as Record<string, unknown>
    assert.deepStrictEqual(toolConfig, { functionCallingConfig: expected })
  })

  it.each<readonly [string, Partial<Generation>]>([
    ["minP", { sampling: { ...sampling, minP: 0.1 } }],
    ["repeatPenalty", { sampling: { ...sampling, repeatPenalty: 1.1 } }],
    ["logitBias", { sampling: { ...sampling, logitBias: { 1: 2 } } }],
    ["logprobs", { logprobs: 3 }],
    ["stop", { stop: ["1", "2", "3", "4", "5", "6"] }],
    ["format.schema.properties.a.pattern", schema({ type: "object", properties: { a: { pattern: "a" } } })],
    ["format.schema.prefixItems[0].enum", schema({ prefixItems: [{ enum: [null] }] })],
    ["format.schema.$defs.a.const", schema({ $defs: { a: { const: true } } })],
    ["format.schema.additionalProperties.oneOf", schema({ additionalProperties: { oneOf: [] } })],
    ["format.schema.items", schema({ items: true })]
  ])("do not support %s", (path, given) => {
    const { _tag, path: actual } = refusalOf(given)
    assert.deepStrictEqual([_tag, actual], ["NotSupported", path])
  })

  it.each<readonly [string, Partial<Generation>]>([
    ["messages", { messages: [{ role: "user", content: "" }] }],
    ["messages[1].toolCallId", {
      messages: [{ role: "user", content: "Hi" }, { role: "tool", content: "x", toolCallId: "later" }]
    }],
    ["messages[0].toolCalls[1].arguments", {
      messages: [{
        role: "assistant",
        content: "",
        toolCalls: [{ id: "a", name: "f", arguments: "{}" }, { id: "b", name: "f", arguments: "{" }]
      }]
    }]
  ])("reject an invalid value at %s", (path, given) => {
    const { _tag, path: actual } = refusalOf(given)
    assert.deepStrictEqual([_tag, actual], ["InvalidRequest", path])
  })
})

describe("Gemini answers", () => {
  for (const { frames, name, summary } of streamedOf("gemini")) {
    it(`are decoded when streamed: ${name}`, () => {
      assert.deepStrictEqual(summaryOf(decode(gemini, frames.map(frameOf), generationOf(), target)), summary)
    })
  }

  for (const { name, summary, buffered } of bufferedOf("gemini")) {
    it(`are decoded when buffered: ${name}`, () => {
      assert.deepStrictEqual(summaryOf(gemini.generate.buffered(buffered, generationOf(), target)), summary)
    })
  }

  const part = fc.oneof(
    fc.string().map((text) => ({ part: { text, later: 1 }, thoughts: "", text, call: undefined })),
    fc.string().map((thoughts) => ({
      part: { text: thoughts, thought: true },
      thoughts,
      text: "",
      call: undefined
    })),
    fc.record({
      id: fc.option(fc.uuid()),
      name: fc.string({ minLength: 1 }),
      args: fc.dictionary(fc.string(), fc.string())
    }).map(
      ({ args, id, name }) => ({
        part: { functionCall: { name, args, ...(id === null ? {} : { id }) } },
        thoughts: "",
        text: "",
        call: { id, name, arguments: JSON.stringify(args) }
      })
    ),
    fc.constantFrom({ part: { inlineData: { data: "" } }, thoughts: "", text: "", call: undefined }, {
      part: {},
      thoughts: "",
      text: "",
      call: undefined
    })
  )

  const end = {
    candidates: [{ finishReason: "STOP" }],
    usageMetadata: { promptTokenCount: 5, candidatesTokenCount: 9 }
  }

  it("are assembled from any parts in any chunks", () => {
    fc.assert(fc.property(fc.array(fc.array(part)), fc.array(fc.string()), (pieces, earlier) => {
      const messages = [...earlier, "Hi"].map((content) => ({ role: "user", content }) as const)
      const parts = pieces.flat()
      const frames = pieces.map((piece) => ({ candidates: [{ content: { parts: piece.map(({ part }) => part) } }] }))
      const decoded = summaryOf(decode(gemini, [...frames, end].map(frameOf), generationOf({ messages }), target))
      const calls = parts.flatMap(({ call }) => call === undefined ? [] : [call])
        .map((call, index) => ({ ...call, id: call.id ?? `call_${messages.length}_${index}` }))
      assert.strictEqual(decoded.thoughts ?? "", parts.map(({ thoughts }) => thoughts).join(""))
      assert.strictEqual(decoded.text ?? "", parts.map(({ text }) => text).join(""))
      assert.deepStrictEqual(decoded.calls ?? [], calls)
      assert.deepStrictEqual(decoded.finish, {
        reason: calls.length > 0 ? "tool_calls" : "stop",
        usage: { promptTokens: 5, completionTokens: 9, cachedTokens: 0 }
      })
      const cut = summaryOf(decode(gemini, frames.map(frameOf), generationOf({ messages }), target))
      assert.strictEqual((cut.reason as { kind: string }).kind, "cut")
    }))
  })

  it("are malformed if a frame is not an object", () => {
    const garbage = fc.constantFrom("", "{", "[]", "null", "1", "\"x\"", "[DONE]", "[1]")
    fc.assert(fc.property(garbage, (data) => {
      const { reason } = summaryOf(decode(gemini, [{ event: "message", data }], generationOf(), target))
      assert.strictEqual((reason as { kind: string }).kind, "malformed")
    }))
  })

  it("never throw, whatever a chunk contains", () => {
    const field = fc.constantFrom("candidates", "content", "parts", "error", "promptFeedback", "usageMetadata", "text")
    const inner = fc.dictionary(field, fc.jsonValue())
    const value = fc.oneof(fc.jsonValue(), inner, fc.array(inner))
    fc.assert(fc.property(fc.dictionary(field, value), (fields) => {
      assert.isDefined(decode(gemini, [frameOf(fields)], generationOf(), target))
      assert.isDefined(gemini.generate.buffered(fields, generationOf(), target))
    }))
  })
})

describe("Gemini embeddings", () => {
  const embed = gemini.embed!

  it("are requested for all texts at once", () => {
    assert.deepStrictEqual(sent(Result.getOrThrow(embed.request(["a", "b"], target))), {
      path: "/v1beta/models/m:batchEmbedContents",
      body: {
        requests: [
          { model: "models/m", content: { parts: [{ text: "a" }] } },
          { model: "models/m", content: { parts: [{ text: "b" }] } }
        ]
      }
    })
  })

  it("have unit length and share the tokens of the prompt", () => {
    const body = { embeddings: [{ values: [3, 4] }, { values: [0, 2] }], usageMetadata: { promptTokenCount: 6 } }
    const each = Result.getOrThrow(embed.answer(body, ["aa", "b"], target)).map((one) => Result.getOrThrow(one))
    assert.deepStrictEqual(each.map(({ vector }) => vector), [new Float32Array([0.6, 0.8]), new Float32Array([0, 1])])
    assert.deepStrictEqual(each.map(({ promptTokens }) => promptTokens), [4, 2])
  })

  it("are rejected beyond the provider's limit", () => {
    const reason = Result.getOrThrow(Result.flip(embed.request(Array.from({ length: 101 }, () => "a"), target)))
    assert.strictEqual(reason._tag === "NotSupported" && reason.path, "inputs")
  })

  it("are malformed unless there is one for each text", () => {
    const decoded = embed.answer({ embeddings: [{ values: [1] }] }, ["a", "b"], target)
    const reason = Result.getOrThrow(Result.flip(decoded))
    assert.strictEqual(reason._tag === "UpstreamFailed" && reason.kind, "malformed")
  })
})

describe("Gemini refusals", () => {
  for (const { body, headers = {}, name, reason, status } of refusalsOf("gemini")) {
    it(`are decoded: ${name}`, () => {
      assert.deepStrictEqual(plain(gemini.failure({ status, headers, body, now: 1000 }, target)), reason)
    })
  }
})
