import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { countRequest } from "../../../src/dialects/anthropic/EncodeRequest.ts"
import { anthropic } from "../../../src/dialects/anthropic/Provider.ts"
import type { Generation } from "../../../src/domain/Generation.ts"
import type { Summary } from "../../support/Dialects.ts"
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

const target = targetOf("anthropic")

const refusalOf = (given: Partial<Generation>) =>
  plain(Result.getOrThrow(Result.flip(anthropic.generate.request(generationOf(given), target, true)))) as {
    readonly _tag: string
    readonly path: string
  }

const bodyOf = (given: Partial<Generation>) =>
  sent(Result.getOrThrow(anthropic.generate.request(generationOf(given), target, true))).body as Record<string, unknown>

const sampling = { temperature: 1, topP: 1, seed: 7 }
const tools = [{ name: "f" }]
const schema = (schema: object) => ({ format: { type: "json_schema", schema: { ...schema } } }) as const

describe("Anthropic requests", () => {
  for (const { call, generation, name, options, stream } of requestsOf("anthropic")) {
    it(`encode ${name}`, () => {
      const encoded = anthropic.generate.request(generationOf(generation), targetOf("anthropic", options), stream)
      assert.deepStrictEqual(sent(Result.getOrThrow(encoded)), call)
    })
  }

  it.each(
    [
      ["auto", { type: "auto" }],
      ["none", { type: "none" }],
      ["required", { type: "any" }],
      [{ name: "f" }, { type: "tool", name: "f" }]
    ] as const
  )("encode the tool choice %j", (toolChoice, expected) => {
    assert.deepStrictEqual(bodyOf({ tools, toolChoice })["tool_choice"], expected)
  })

  it.each<readonly [string, Partial<Generation>]>([
    ["temperature", { sampling: { ...sampling, temperature: 1.5 } }],
    ["minP", { sampling: { ...sampling, minP: 0.1 } }],
    ["repeatPenalty", { sampling: { ...sampling, repeatPenalty: 1.1 } }],
    ["presencePenalty", { sampling: { ...sampling, presencePenalty: 0.5 } }],
    ["frequencyPenalty", { sampling: { ...sampling, frequencyPenalty: -0.5 } }],
    ["logitBias", { sampling: { ...sampling, logitBias: { 1: 2 } } }],
    ["logprobs", { logprobs: 0 }],
    ["stop[1]", { stop: ["a", "\n"] }],
    ["tools[0].name", { tools: [{ name: "a.b" }] }],
    ["format", { format: { type: "json_object" } }],
    ["format.schema.additionalProperties", schema({ type: "object" })],
    ["format.schema.minLength", schema({ type: "string", minLength: 2 })],
    ["format.schema.properties.a.items.anyOf[1].minimum", {
      ...schema({ properties: { a: { type: "array", items: { anyOf: [{ type: "null" }, { minimum: 3 }] } } } })
    }],
    ["format.schema.constructor", schema({ constructor: 1 })]
  ])("do not support %s", (path, given) => {
    const { _tag, path: actual } = refusalOf(given)
    assert.deepStrictEqual([_tag, actual], ["NotSupported", path])
  })

  it.each<readonly [string, Partial<Generation>]>([
    ["messages", { messages: [{ role: "system", content: "Be brief." }] }],
    ["messages[0].toolCallId", { messages: [{ role: "tool", content: "x" }] }],
    ["messages[0].toolCalls[0].arguments", {
      messages: [{ role: "assistant", content: "", toolCalls: [{ id: "a", name: "f", arguments: "[1]" }] }]
    }]
  ])("reject an invalid value at %s", (path, given) => {
    const { _tag, path: actual } = refusalOf(given)
    assert.deepStrictEqual([_tag, actual], ["InvalidRequest", path])
  })

  it("alternate between user and assistant, and keep all text", () => {
    const message = fc.record({
      role: fc.constantFrom("system" as const, "user" as const, "assistant" as const),
      content: fc.string()
    })
    fc.assert(fc.property(fc.array(message), (messages) => {
      const encoded = anthropic.generate.request(generationOf({ messages }), target, true)
      const spoken = messages.filter(({ content, role }) => role !== "system" && content !== "")
      if (Result.isFailure(encoded)) return assert.strictEqual(spoken.length, 0)
      const body = sent(encoded.success).body as {
        readonly messages: ReadonlyArray<{ role: string; content: ReadonlyArray<{ readonly text: string }> }>
      }
      body.messages.slice(1).forEach(({ role }, index) => assert.notStrictEqual(role, body.messages[index]!.role))
      assert.deepStrictEqual(
        body.messages.flatMap(({ content, role }) => content.map(({ text }) => ({ role, content: text }))),
        spoken
      )
    }))
  })
})

describe("reasoning in a caller's own request", () => {
  const signed = { type: "thinking", thinking: "Hm.", signature: "s" }
  const unsigned = { type: "thinking", thinking: "Hm.", signature: "" }
  const text = { type: "text", text: "Hi" }
  const turns = (...contents: ReadonlyArray<ReadonlyArray<object>>) => [
    { role: "user", content: "Hello" },
    ...contents.map((content) => ({ role: "assistant", content })),
    { role: "user", content: "And?" }
  ]
  const sentTo = (baseUrl: string | undefined, messages: ReadonlyArray<object>) => {
    const body = { model: "m", max_tokens: 5, messages }
    const { options } = targetOf("anthropic")
    const call = anthropic.generate.passThrough!(
      generationOf(),
      { dialect: "anthropic", body },
      { ...target, options: baseUrl === undefined ? options : { ...options, baseUrl } },
      false,
      undefined
    )
    return (Result.getOrThrow(call).body as typeof body).messages
  }

  const countedAt = (baseUrl: string | undefined, messages: ReadonlyArray<object>) => {
    const { options } = targetOf("anthropic")
    const body = { model: "m", messages }
    const call = countRequest(
      { messages: [{ role: "user", content: "Hello" }], source: { dialect: "anthropic", body } },
      { ...target, options: baseUrl === undefined ? options : { ...options, baseUrl } }
    )
    return (Result.getOrThrow(call).body as typeof body).messages
  }

  for (const baseUrl of [undefined, "https://api.anthropic.com", "https://api.anthropic.com/"]) {
    it(`is sent to Anthropic only with a signature: ${baseUrl ?? "default"}`, () => {
      const given = turns([unsigned, signed, text], [unsigned], [unsigned, text])
      assert.deepStrictEqual(sentTo(baseUrl, given), turns([signed, text], [text]))
      assert.deepStrictEqual(countedAt(baseUrl, given), turns([signed, text], [text]))
    })
  }

  it("is sent to other hosts unchanged", () => {
    const messages = turns([unsigned, signed, text], [unsigned])
    for (const host of ["https://example.com", "https://notanthropic.com", "https://example.com/anthropic.com"]) {
      assert.strictEqual(sentTo(host, messages), messages)
      assert.deepStrictEqual(countedAt(host, messages), messages)
    }
    const plain = turns([signed, text])
    assert.strictEqual(sentTo(undefined, plain), plain)
  })
})

describe("Anthropic answers", () => {
  for (const { frames, name, summary } of streamedOf("anthropic")) {
    it(`are decoded when streamed: ${name}`, () => {
      assert.deepStrictEqual(summaryOf(decode(anthropic, frames.map(frameOf), generationOf(), target)), summary)
    })
  }

  for (const { name, summary, buffered } of bufferedOf("anthropic")) {
    it(`are decoded when buffered: ${name}`, () => {
      assert.deepStrictEqual(summaryOf(anthropic.generate.buffered(buffered, generationOf(), target)), summary)
    })
  }

  /** A block's start, its deltas, and its content. */
  const block = fc.oneof(
    fc.array(fc.string()).map((pieces) => ({
      start: { type: "text", text: "" },
      deltas: pieces.map((text) => ({ type: "text_delta", text })),
      thoughts: "",
      text: pieces.join(""),
      call: undefined
    })),
    fc.record({
      id: fc.uuid(),
      name: fc.string({ minLength: 1 }),
      input: fc.dictionary(fc.string(), fc.json()),
      at: fc.nat()
    }).map(
      ({ at, id, input, name }) => {
        const json = JSON.stringify(input)
        const middle = at % json.length
        return {
          start: { type: "tool_use", id, name, input: {} },
          deltas: [json.slice(0, middle), json.slice(middle)].map((partial_json) => ({
            type: "input_json_delta",
            partial_json
          })),
          thoughts: "",
          text: "",
          call: { id, name, arguments: json }
        }
      }
    ),
    fc.string().map((thinking) => ({
      start: { type: "thinking", thinking: "" },
      deltas: [{ type: "thinking_delta", thinking }],
      thoughts: thinking,
      text: "",
      call: undefined
    })),
    fc.constant({
      start: { type: "server_tool_use", id: "s", name: "web_search" },
      deltas: [{ type: "input_json_delta", partial_json: "{}" }],
      thoughts: "",
      text: "",
      call: undefined
    })
  )

  const noise = fc.constantFrom<object>(
    { type: "ping" },
    { type: "constructor" },
    { type: "later_event", message: { usage: { output_tokens: 99 } } },
    { type: "content_block_delta", index: 0, delta: { type: "citations_delta", citation: {} } }
  )

  interface Streamed {
    readonly frames: ReadonlyArray<object>
    readonly summary: Summary
  }

  const streams = fc.tuple(fc.array(block), fc.array(fc.tuple(fc.nat(), noise))).map(([blocks, noises]): Streamed => {
    const frames: Array<object> = [
      { type: "message_start", later: 1, message: { usage: { input_tokens: 5, output_tokens: 1 } } },
      ...blocks.flatMap(({ deltas, start }, index) => [
        { type: "content_block_start", index, content_block: start, later: true },
        ...deltas.map((delta) => ({ type: "content_block_delta", index, delta: { ...delta, later: 1 } })),
        { type: "content_block_stop", index }
      ]),
      { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 9 } }
    ]
    for (const [at, frame] of noises) frames.splice(at % (frames.length + 1), 0, frame)
    const thoughts = blocks.map((block) => block.thoughts).join("")
    const text = blocks.map((block) => block.text).join("")
    const calls = blocks.flatMap(({ call }) => call === undefined ? [] : [call])
    return {
      frames,
      summary: {
        ...(thoughts === "" ? {} : { thoughts }),
        ...(text === "" ? {} : { text }),
        ...(calls.length === 0 ? {} : { calls })
      }
    }
  })

  it("are assembled from any blocks, with other events between them", () => {
    fc.assert(fc.property(streams, ({ frames, summary }) => {
      const decoded = decode(anthropic, [...frames, { type: "message_stop" }].map(frameOf), generationOf(), target)
      const finish = {
        reason: summary.calls === undefined ? "stop" : "tool_calls",
        usage: { promptTokens: 5, completionTokens: 9, cachedTokens: 0 }
      }
      assert.deepStrictEqual(summaryOf(decoded), { ...summary, finish } as Summary)
    }))
  })

  it("are cut if they end before their stop reason, and complete if they end after it", () => {
    fc.assert(fc.property(streams, fc.nat(), ({ frames }, length) => {
      const begun = frames.slice(0, length % (frames.length + 1))
      const decoded = summaryOf(decode(anthropic, begun.map(frameOf), generationOf(), target))
      if (begun.some((frame) => (frame as { type: string }).type === "message_delta")) assert.exists(decoded.finish)
      else assert.strictEqual((decoded.reason as { kind: string }).kind, "cut")
    }))
  })

  it("are malformed if a frame is not an event", () => {
    const garbage = fc.oneof(fc.string(), fc.json()).filter((data) => {
      try {
        return typeof JSON.parse(data)?.type !== "string"
      } catch {
        return true
      }
    })
    fc.assert(fc.property(garbage, (data) => {
      const { reason } = summaryOf(decode(anthropic, [{ event: "message", data }], generationOf(), target))
      assert.strictEqual((reason as { kind: string }).kind, "malformed")
    }))
  })

  it("never throw, whatever an event or a body contains", () => {
    const type = fc.constantFrom(
      "message_start",
      "content_block_start",
      "content_block_delta",
      "message_delta",
      "error"
    )
    const field = fc.constantFrom("index", "delta", "content_block", "usage", "error", "message", "content", "type")
    const value = fc.oneof(fc.jsonValue(), fc.dictionary(field, fc.oneof(fc.jsonValue(), type)))
    fc.assert(fc.property(fc.dictionary(field, value), type, (fields, type) => {
      assert.isDefined(decode(anthropic, [frameOf({ ...fields, type })], generationOf(), target))
      assert.isDefined(anthropic.generate.buffered(fields, generationOf(), target))
    }))
  })
})

describe("Anthropic refusals", () => {
  for (const { body, headers = {}, name, reason, status } of refusalsOf("anthropic")) {
    it(`are decoded: ${name}`, () => {
      assert.deepStrictEqual(plain(anthropic.failure({ status, headers, body, now: 1000 }, target)), reason)
    })
  }
})
