import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as CustomTools from "../../../src/dialects/responses/CustomTools.ts"
import * as DecodeRequest from "../../../src/dialects/responses/DecodeRequest.ts"
import * as EncodeAnswer from "../../../src/dialects/responses/EncodeAnswer.ts"
import { ResponseFrames } from "../../../src/dialects/responses/EncodeStream.ts"
import type { Event } from "../../../src/domain/Inference.ts"

const custom = { type: "custom", name: "run", description: "Runs code" }

const decode = (fields: object) => DecodeRequest.decode({ model: "m", input: "Hi", ...fields })
const decoded = (fields: object) => Result.getOrThrow(decode(fields))

const messageOf = (fields: object): string => {
  const decoded = decode(fields)
  if (Result.isFailure(decoded)) return EncodeAnswer.encodeError(decoded.failure).body.error.message
  // What a deployment without the Responses API cannot take.
  const [need] = decoded.success.request.source?.responses?.needs ?? []
  return need === undefined ? "accepted" : `${need.path}: ${need.expected}`
}

/** A text in pieces. */
const cut = (text: string, sizes: ReadonlyArray<number>): ReadonlyArray<string> => {
  const pieces: Array<string> = []
  let at = 0
  for (let index = 0; at < text.length; index++) {
    const size = sizes[index % sizes.length]!
    pieces.push(text.slice(at, at + size))
    at += size
  }
  return pieces
}

const sizes = fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 5 })

describe("a custom tool", () => {
  it("is a function with one text, which a regular expression restricts", () => {
    const parametersOf = (tool: object) => decoded({ tools: [{ ...custom, ...tool }] }).request.tools![0]!.parameters
    assert.deepInclude(parametersOf({}), { required: ["input"], additionalProperties: false })
    const regex = { type: "grammar", syntax: "regex", definition: "a|b" }
    assert.deepInclude(parametersOf({ format: regex }), {
      properties: { input: { type: "string", pattern: "^(?:a|b)$" } }
    })
    const lark = { type: "grammar", syntax: "lark", definition: "start: WORD" }
    assert.include(JSON.stringify(parametersOf({ format: lark })), "start: WORD")
  })

  it("is echoed, and can be chosen by its type and name", () => {
    const { request, settings } = decoded({ tools: [custom], tool_choice: { type: "custom", name: "run" } })
    assert.deepStrictEqual(settings.tools, [{ ...custom, format: { type: "text" } }])
    assert.deepStrictEqual(request.toolChoice, { name: "run" })
    const format = { type: "grammar", syntax: "regex", definition: "(" }
    assert.include(messageOf({ tools: [{ ...custom, format }] }), "tools[0].format")
    assert.include(
      messageOf({ tools: [custom], tool_choice: { type: "function", name: "run" } }),
      "No tool in tools has this name"
    )
  })

  it("has calls and results in a conversation", () => {
    const call = { type: "custom_tool_call", call_id: "c", name: "run", input: "a \"b\"" }
    const output = { type: "custom_tool_call_output", call_id: "c", output: "done" }
    assert.isTrue(Result.isSuccess(decode({ input: [call, output] })))
    assert.include(messageOf({ input: [{ ...call, input: 5 }] }), "input[0].input")
  })
})

describe("the input of a call", () => {
  it("is read from arguments that arrive in any pieces", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), fc.boolean(), sizes, (text, isEscaped, sizes) => {
      const input = text.toWellFormed()
      const json = CustomTools.argumentsOf(input)
      const written = isEscaped
        ? json.replace(/[^ -~]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`)
        : json
      const reader = new CustomTools.InputReader()
      const pieces = cut(written, sizes).map((piece) => reader.push(piece))
      assert.strictEqual(pieces.join(""), input)
      assert.strictEqual(reader.restOf(input), "")
      assert.strictEqual(CustomTools.inputIn(written), input)
    }))
  })

  it("is what there is of cut arguments, and other arguments as they are", () => {
    assert.strictEqual(CustomTools.inputIn("{\"input\": \"a\\nb\\"), "a\nb")
    assert.strictEqual(CustomTools.inputIn("{\"other\": 1}"), "{\"other\": 1}")
    assert.strictEqual(CustomTools.inputIn("print(1)"), "print(1)")
  })

  it("is the same in the events of a stream as in the item of a buffered answer", () => {
    const anyArguments = fc.oneof(fc.string().map(CustomTools.argumentsOf), fc.string(), fc.json())
    fc.assert(fc.property(anyArguments, sizes, (text, sizes) => {
      const { settings } = decoded({ tools: [custom] })
      const envelope = { id: `resp_${"r".repeat(22)}`, created: 1, settings }
      const usage = { promptTokens: 1, completionTokens: 1, cachedTokens: 0 }
      const pieces: ReadonlyArray<Event> = cut(text, sizes).map((piece, index) => ({
        type: "tool_call",
        index: 0,
        ...(index === 0 ? { id: "c", name: "run" } : {}),
        arguments: piece,
        tokens: 1
      }))
      if (pieces.length === 0) return
      const frames = new ResponseFrames(envelope, () => 2)
      const all = pieces.map((piece) => frames.events([piece])).join("") +
        frames.events([{ type: "finish", reason: "tool_calls", usage }]) + frames.end()
      const events = all.split("\n\n").slice(0, -1).map((frame) =>
        JSON.parse(frame.slice(frame.indexOf("data: ") + 6)) as Readonly<Record<string, unknown>>
      )
      const deltas = events.filter(({ type }) => type === "response.custom_tool_call_input.delta")
      const done = events.find(({ type }) => type === "response.custom_tool_call_input.done")!
      assert.strictEqual(deltas.map(({ delta }) => delta).join(""), done["input"])
      const answer = {
        deployment: "m#0",
        attempts: 1,
        decision: "d",
        text: "",
        toolCalls: [{ id: "c", name: "run", arguments: text }],
        finishReason: "tool_calls" as const,
        usage,
        logprobs: []
      }
      const [item] = EncodeAnswer.outputOf(envelope, answer)
      assert.strictEqual(item!["input"], done["input"])
      assert.deepStrictEqual(events.at(-1)!["response"], { ...frames.response, output: [item] })
    }))
  })
})

describe("a file in the input", () => {
  const file = (fields: object) => ({
    input: [{ role: "user", content: [{ type: "input_file", ...fields }, { type: "input_text", text: "What is it?" }] }]
  })
  const base64 = (text: string) => Buffer.from(text).toString("base64")

  it("is accepted as a text, and refused as anything else", () => {
    const data = `data:text/plain;base64,${base64("Hällo")}`
    assert.isTrue(Result.isSuccess(decode(file({ filename: "a.txt", file_data: data }))))
    assert.isTrue(Result.isSuccess(decode(file({ file_data: base64("{}") }))))
    const pdf = `data:application/pdf;base64,${base64("%PDF-1.7 text")}`
    assert.include(
      messageOf(file({ filename: "a.pdf", file_data: pdf })),
      "input[0].content[0].file_data: \"a.pdf\" (application/pdf) is no text in UTF-8"
    )
    assert.include(messageOf(file({ file_id: "file-1" })), "Troupe stores no files")
    assert.include(messageOf(file({ file_url: "https://example.com/a" })), "does not open URLs of files")
    assert.include(messageOf(file({})), "file_data")
  })
})
