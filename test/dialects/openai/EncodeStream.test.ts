import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Sse } from "effect/encoding"
import * as fc from "fast-check"
import type { Envelope } from "../../../src/dialects/openai/EncodeAnswer.ts"
import * as EncodeAnswer from "../../../src/dialects/openai/EncodeAnswer.ts"
import * as EncodeError from "../../../src/dialects/openai/EncodeError.ts"
import * as EncodeStream from "../../../src/dialects/openai/EncodeStream.ts"
import * as OpenAiSchema from "../../../src/dialects/openai/Schema.ts"
import type { Answer, Event } from "../../../src/domain/Inference.ts"
import type { ChosenLogprob } from "../../../src/domain/Job.ts"

const envelope: Envelope = {
  id: "chatcmpl-1",
  created: 1_700_000_000,
  model: "tiny-chat",
  includeUsage: false,
  parallelToolCalls: true
}

describe("EncodeStream", () => {
  describe("frames", () => {
    const Chunk = Schema.fromJsonString(OpenAiSchema.ChatChunk)
    type Chunk = typeof OpenAiSchema.ChatChunk.Type

    /** The data of every event, by an SSE parser that receives pieces of this length. */
    const parse = (text: string, pieceLength: number): ReadonlyArray<string> => {
      const data: Array<string> = []
      const parser = Sse.makeParser((event) => {
        if (event._tag === "Event") data.push(event.data)
      })
      for (let at = 0; at < text.length; at += pieceLength) parser.feed(text.slice(at, at + pieceLength))
      return data
    }

    const chunksOf = (data: ReadonlyArray<string>): ReadonlyArray<Chunk> =>
      data.slice(0, -1).map((text) => Schema.decodeSync(Chunk, { onExcessProperty: "error" })(text))

    const text = (text: string): Event => ({ type: "text", text, tokens: 1 })

    const finish = (reason: "stop" | "length", promptTokens = 3, completionTokens = 5): Event => ({
      type: "finish",
      reason,
      usage: { promptTokens, completionTokens, cachedTokens: 0 }
    })

    /** The frames of answers whose events are grouped, one group of each answer in turn. */
    const encode = (envelope: Envelope, answers: ReadonlyArray<ReadonlyArray<ReadonlyArray<Event>>>): string => {
      const encoder = EncodeStream.makeFrameEncoder(envelope)
      const turns = Math.max(...answers.map((groups) => groups.length))
      let out = ""
      for (let turn = 0; turn < turns; turn++) {
        answers.forEach((groups, choice) => {
          const group = groups[turn]
          if (group !== undefined) out += encoder.events(choice, group)
        })
      }
      return out + encoder.end()
    }

    it("have a separate chunk without content for a handoff", () => {
      for (const includeUsage of [false, true]) {
        const handoff: Event = { type: "handoff", deployment: "b#0" }
        const data = parse(
          encode({ ...envelope, includeUsage }, [[[text("a"), handoff, text("b")], [finish("stop")]]]),
          7
        )
        const chunks = chunksOf(data)
        assert.deepStrictEqual(
          chunks.slice(0, 4).map(({ choices: [choice], troupe }) => [choice!.delta, troupe]),
          [
            [{ role: "assistant", content: "" }, undefined],
            [{ content: "a" }, undefined],
            [{}, { handoff: { deployment: "b#0" } }],
            [{ content: "b" }, undefined]
          ]
        )
      }
    })

    const anyText = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.string({ unit: fc.nat({ max: 0xffff }).map((unit) => String.fromCharCode(unit)) }),
      fc.array(
        fc.constantFrom(
          "data: ",
          "\n",
          "\r",
          "\r\n",
          "\n\n",
          "\"",
          "\\",
          ":",
          "event: x",
          "[DONE]",
          "\u2028",
          "é",
          "😀"
        )
      )
        .map((parts) => parts.join("")),
      fc.constant("")
    )

    /** Texts and a finish, in groups of any lengths, empty ones among them. */
    const answer = fc.record({
      texts: fc.array(anyText, { maxLength: 8 }),
      reason: fc.constantFrom("stop" as const, "length" as const),
      completionTokens: fc.nat({ max: 1000 }),
      lengths: fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 5 })
    }).map(({ completionTokens, lengths, reason, texts }) => {
      const events = [...texts.map(text), finish(reason, 3, completionTokens)]
      const groups: Array<ReadonlyArray<Event>> = []
      for (let at = 0, index = 0; at < events.length; index++) {
        const length = lengths[index % lengths.length]! || (index % 2)
        groups.push(events.slice(at, at + length))
        at += length
      }
      return { groups, text: texts.join(""), reason, completionTokens }
    })

    const answers = fc.array(answer, { minLength: 1, maxLength: 3 })
    const pieceLength = fc.integer({ min: 1, max: 50 })

    it("contain the text of every answer, however its events are grouped and the frames are split", () => {
      fc.assert(fc.property(answers, pieceLength, (answers, pieceLength) => {
        const data = parse(encode(envelope, answers.map(({ groups }) => groups)), pieceLength)
        const received = answers.map(() => "")
        for (const { choices } of chunksOf(data)) {
          for (const { delta, index } of choices) received[index] += delta.content ?? ""
        }
        assert.deepStrictEqual(received, answers.map(({ text }) => text))
      }))
    })

    it("begin each choice with its role, end it with its reason, and end all with [DONE]", () => {
      fc.assert(fc.property(answers, fc.boolean(), (answers, includeUsage) => {
        const data = parse(encode({ ...envelope, includeUsage }, answers.map(({ groups }) => groups)), 1000)
        const choices = chunksOf(data).flatMap(({ choices }) => choices)
        answers.forEach(({ reason }, index) => {
          const own = choices.filter((choice) => choice.index === index)
          assert.deepStrictEqual(
            own.map(({ delta }) => delta.role),
            own.map((_, at) => at === 0 ? "assistant" : undefined)
          )
          assert.deepStrictEqual(
            own.map(({ finish_reason }) => finish_reason),
            own.map((_, at) => at === own.length - 1 ? reason : null)
          )
          assert.isAtLeast(own.length, 2)
        })
        assert.strictEqual(data.at(-1), "[DONE]")
        assert.strictEqual(data.filter((text) => text === "[DONE]").length, 1)
      }))
    })

    it("have usage in the last chunk if it was requested, and nowhere otherwise", () => {
      fc.assert(fc.property(answers, (answers) => {
        const groups = answers.map(({ groups }) => groups)
        const without = parse(encode(envelope, groups), 1000)
        assert.isTrue(without.every((text) => text === "[DONE]" || !("usage" in (JSON.parse(text) as object))))

        const chunks = chunksOf(parse(encode({ ...envelope, includeUsage: true }, groups), 1000))
        const completion_tokens = answers.reduce((sum, answer) => sum + answer.completionTokens, 0)
        assert.isTrue(chunks.slice(0, -1).every(({ usage }) => usage === null))
        assert.deepInclude(chunks.at(-1), {
          choices: [],
          usage: {
            prompt_tokens: 3,
            completion_tokens,
            total_tokens: 3 + completion_tokens,
            prompt_tokens_details: { cached_tokens: 0 }
          }
        })
      }))
    })

    it("have the envelope in every chunk, whatever its texts are", () => {
      const envelopes = fc.record({
        id: anyText,
        created: fc.nat(),
        model: anyText,
        includeUsage: fc.boolean(),
        parallelToolCalls: fc.boolean()
      })
      fc.assert(fc.property(envelopes, answer, (envelope, { groups }) => {
        const { created, id, model } = envelope
        for (const chunk of chunksOf(parse(encode(envelope, [groups]), 1000))) {
          assert.deepInclude(chunk, { id, object: "chat.completion.chunk", created, model })
        }
      }))
    })

    it("are one line of data each", () => {
      fc.assert(fc.property(answers, (answers) => {
        const frames = encode(envelope, answers.map(({ groups }) => groups)).split("\n\n")
        assert.strictEqual(frames.pop(), "")
        assert.isTrue(frames.every((frame) => /^data: [^\r\n]+$/.test(frame)))
      }))
    })

    it("join consecutive texts in one frame", () => {
      const data = parse(encode(envelope, [[[text("a"), text("b"), text("c")], [finish("stop")]]]), 1000)
      assert.deepStrictEqual(
        chunksOf(data).flatMap(({ choices }) => choices.map(({ delta, finish_reason }) => [delta, finish_reason])),
        [
          [{ role: "assistant", content: "" }, null],
          [{ content: "abc" }, null],
          [{}, "stop"]
        ]
      )
    })

    it("have one frame with the body of an error", () => {
      const { body } = EncodeError.make("It\n\"failed\".", { status: 500, type: "server_error", code: "engine_failed" })
      assert.deepStrictEqual(parse(EncodeStream.encodeError(body), 1).map((text) => JSON.parse(text) as unknown), [
        body
      ])
    })
  })

  describe("tool calls and log probabilities", () => {
    const chosen = (token: string): ChosenLogprob => ({
      token,
      bytes: [...Buffer.from(token)],
      logprob: -0.5,
      top: [{ token, bytes: [...Buffer.from(token)], logprob: -0.5 }, { token: "?", bytes: [63], logprob: -2 }]
    })
    const textEvent = (text: string, withLogprobs: boolean): Event => ({
      type: "text",
      text,
      tokens: 1,
      ...(withLogprobs ? { logprobs: [chosen(text)] } : {})
    })
    const someText = fc.string({ minLength: 1, maxLength: 5, unit: "grapheme" })
    const segment = fc.oneof(
      fc.record({ texts: fc.array(someText, { minLength: 1, maxLength: 3 }) }),
      fc.record({ name: someText, pieces: fc.array(fc.string(), { minLength: 1, maxLength: 4 }) })
    )
    /** An answer, as events and as a buffered answer. */
    const mixed = fc.record({ segments: fc.array(segment, { maxLength: 6 }), withLogprobs: fc.boolean() }).map(
      ({ segments, withLogprobs }) => {
        const events: Array<Event> = []
        const toolCalls: Array<Answer["toolCalls"][number]> = []
        for (const one of segments) {
          if ("texts" in one) {
            events.push(...one.texts.map((text) => textEvent(text, withLogprobs)))
            continue
          }
          const index = toolCalls.length
          const [first, ...others] = one.pieces
          const call = { id: `call_${index}`, name: one.name, arguments: one.pieces.join("") }
          events.push({ type: "tool_call", index, id: call.id, name: call.name, arguments: first!, tokens: 1 })
          events.push(...others.map((text): Event => ({ type: "tool_call", index, arguments: text, tokens: 1 })))
          toolCalls.push(call)
        }
        const texts = events.filter((event) => event.type === "text")
        const finishReason = toolCalls.length === 0 ? "stop" as const : "tool_calls" as const
        const usage = { promptTokens: 3, completionTokens: events.length, cachedTokens: 2 }
        events.push({ type: "finish", reason: finishReason, usage })
        const answer: Answer = {
          text: texts.map(({ text }) => text).join(""),
          toolCalls,
          finishReason,
          usage,
          deployment: "tiny-chat#0",
          attempts: 1,
          decision: "dec-1",
          ...(texts.some(({ logprobs }) => logprobs !== undefined)
            ? { logprobs: texts.flatMap(({ logprobs = [] }) => logprobs) }
            : {})
        }
        return { events, answer }
      }
    )

    const Chunk = Schema.decodeSync(Schema.fromJsonString(OpenAiSchema.ChatChunk), { onExcessProperty: "error" })
    type Choice = (typeof OpenAiSchema.ChatChunk.Type)["choices"][number]

    /** The message that a client assembles from the chunks, as the `openai` package does. */
    const accumulate = (choices: ReadonlyArray<Choice>) => {
      let content: string | null = null
      const logprobs: Array<OpenAiSchema.Logprobs["content"][number]> = []
      const calls: Array<{ id: string; type: "function"; function: { name: string; arguments: string } }> = []
      for (const { delta, logprobs: some } of choices) {
        if (typeof delta.content === "string") content = (content ?? "") + delta.content
        logprobs.push(...some?.content ?? [])
        for (const { function: piece, id, index, type } of delta.tool_calls ?? []) {
          if (id !== undefined) calls[index] = { id, type: type!, function: { name: piece.name!, arguments: "" } }
          calls[index]!.function.arguments += piece.arguments
        }
      }
      return { content, logprobs, calls, reason: choices.at(-1)?.finish_reason }
    }

    it("have the content of the buffered answer, however the events are grouped", () => {
      const lengths = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 5 })
      fc.assert(fc.property(mixed, lengths, fc.boolean(), ({ answer, events }, lengths, parallelToolCalls) => {
        const some = { ...envelope, parallelToolCalls }
        const encoder = EncodeStream.makeFrameEncoder(some)
        let out = ""
        for (let at = 0, turn = 0; at < events.length; turn++) {
          const length = lengths[turn % lengths.length]!
          out += encoder.events(0, events.slice(at, at + length))
          at += length
        }
        const frames = out.trimEnd().split("\n\n").map((frame) => Chunk(frame.replace(/^data: /, "")))
        const streamed = accumulate(frames.flatMap(({ choices }) => choices))
        const buffered = EncodeAnswer.encodeAnswers(some, [answer]).choices[0]!
        assert.deepStrictEqual(streamed.content, buffered.message.content)
        assert.deepStrictEqual(streamed.logprobs, buffered.logprobs?.content ?? [])
        assert.deepStrictEqual(streamed.calls, buffered.message.tool_calls ?? [])
        assert.strictEqual(streamed.reason, buffered.finish_reason)
        assert.isAtMost(streamed.calls.length, parallelToolCalls ? Number.POSITIVE_INFINITY : 1)
      }))
    })

    it("join consecutive pieces of one call in one frame", () => {
      const call = (arguments_: string, more = {}): Event => ({
        type: "tool_call",
        index: 0,
        arguments: arguments_,
        tokens: 1,
        ...more
      })
      const encoder = EncodeStream.makeFrameEncoder(envelope)
      const frames = encoder.events(0, [call("", { id: "a", name: "f" }), call("{"), call("}")]).trimEnd().split("\n\n")
      assert.deepStrictEqual(
        frames.map((frame) => Chunk(frame.replace(/^data: /, "")).choices[0]!.delta),
        [
          { role: "assistant", content: null },
          { tool_calls: [{ index: 0, id: "a", type: "function", function: { name: "f", arguments: "{}" } }] }
        ]
      )
    })

    it("encode an infinite log probability as a number", () => {
      const impossible: ChosenLogprob = { token: "x", bytes: [120], logprob: Number.NEGATIVE_INFINITY, top: [] }
      const event: Event = { type: "text", text: "x", tokens: 1, logprobs: [impossible] }
      const frames = EncodeStream.makeFrameEncoder(envelope).events(0, [event]).trimEnd().split("\n\n")
      const { logprobs } = Chunk(frames.at(-1)!.replace(/^data: /, "")).choices[0]!
      assert.deepStrictEqual(logprobs?.content, [{ token: "x", logprob: -9999, bytes: [120], top_logprobs: [] }])
    })
  })
})
