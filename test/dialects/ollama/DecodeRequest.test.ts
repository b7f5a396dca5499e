/** Bodies of `/api/chat` and `/api/generate`, and the requests that they become. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Result } from "effect"
import type { AnyCall, Arrived, GenerationCall } from "../../../src/dialects/ollama/DecodeRequest.ts"
import * as DecodeRequest from "../../../src/dialects/ollama/DecodeRequest.ts"
import * as EncodeError from "../../../src/dialects/ollama/EncodeError.ts"
import * as ExactNumber from "../../../src/domain/ExactNumber.ts"
import { requiredPaths } from "../../../src/domain/Source.ts"

const arrived = (body: object, more: Partial<Arrived> = {}): Arrived => {
  const json = { model: "m", ...body }
  return { json, exact: json, caller: {}, nameOf: (model) => model, ...more }
}

const generated = (call: AnyCall): GenerationCall => {
  if (call.type !== "generation") throw new Error(`A call of type ${call.type}`)
  return call
}

const chat = (body: object, more?: Partial<Arrived>) =>
  generated(Result.getOrThrow(DecodeRequest.decodeChat(arrived(body, more))))

const generate = (body: object) => generated(Result.getOrThrow(DecodeRequest.decodeGenerate(arrived(body))))

const user = { role: "user", content: "Hi" }
const messages = [user]
const png = "iVBORw0KGgo="

describe("a chat", () => {
  it("is streamed unless it says otherwise", () => {
    assert.deepStrictEqual(
      [undefined, true, false].map((stream) => chat({ messages, ...(stream === undefined ? {} : { stream }) }).stream),
      [true, true, false]
    )
  })

  it("has the core's names of options, without those that stand for no limit", () => {
    const { request } = chat({
      messages,
      options: {
        temperature: 0.5,
        top_p: 0.9,
        min_p: 0.1,
        top_k: 40,
        seed: 7,
        num_predict: 9,
        stop: "x",
        repeat_penalty: 1.1,
        presence_penalty: 0.2,
        frequency_penalty: 0.3
      }
    })
    assert.deepInclude(request, {
      temperature: 0.5,
      topP: 0.9,
      minP: 0.1,
      topK: 40,
      seed: 7,
      maxTokens: 9,
      stop: ["x"],
      repeatPenalty: 1.1,
      presencePenalty: 0.2,
      frequencyPenalty: 0.3
    })
    const unlimited = chat({ messages, options: { top_k: 0, seed: -1, num_predict: -1, stop: null } }).request
    assert.doesNotHaveAnyKeys(unlimited, ["topK", "seed", "maxTokens", "stop"])
  })

  it.each<[format: unknown, expected: unknown]>([
    ["json", { type: "json_object" }],
    [{ type: "object" }, { type: "json_schema", schema: { type: "object" } }],
    ["", undefined],
    [null, undefined]
  ])("has the format %j", (format, expected) => {
    assert.deepStrictEqual(chat({ messages, format }).request.format, expected as never)
  })

  it("may have reasoning unless `think` is false", () => {
    assert.deepStrictEqual(
      [true, false, "low", null].map((think) => chat({ messages, think }).thinking),
      [true, false, true, true]
    )
  })

  it("links the results of tools to their calls: by id, by name, then in order", () => {
    const call = (name: string, id?: string) => ({
      ...(id === undefined ? {} : { id }),
      function: { name, arguments: {} }
    })
    const { request } = chat({
      messages: [
        user,
        { role: "assistant", content: "", tool_calls: [call("a"), call("b"), call("b", "own"), call("c")] },
        { role: "tool", content: "third", tool_call_id: "own" },
        { role: "tool", content: "second", tool_name: "b" },
        { role: "tool", content: "first" },
        { role: "tool", content: "last" }
      ]
    })
    assert.deepStrictEqual(request.messages[1]!.toolCalls?.map(({ id }) => id), [
      "call_1_0",
      "call_1_1",
      "own",
      "call_1_3"
    ])
    assert.deepStrictEqual(request.messages.slice(2).map(({ toolCallId }) => toolCallId), [
      "own",
      "call_1_1",
      "call_1_0",
      "call_1_3"
    ])
  })

  it("keeps the digits of arguments", () => {
    const text = JSON.stringify({
      model: "m",
      messages: [user, { role: "assistant", tool_calls: [{ function: { name: "f", arguments: { n: 0 } } }] }]
    }).replace("{\"n\":0}", "{\"n\":9007199254740993}")
    const json = JSON.parse(text) as object
    const { request } = chat(json, { exact: ExactNumber.parse(text) })
    assert.strictEqual(request.messages[1]!.toolCalls![0]!.arguments, "{\"n\":9007199254740993}")
    assert.isTrue(request.source?.hasExactNumbers)
  })

  it("has images of a format after the text, and their paths in errors", () => {
    const { request } = chat({ messages: [{ role: "user", content: "What?", images: [png] }] })
    assert.deepStrictEqual(request.messages[0]!.content, [
      { type: "text", text: "What?" },
      { type: "image", source: { type: "base64", mediaType: "image/png", data: png } }
    ])
    assert.strictEqual(EncodeError.chatErrors.rename("messages[0].content[1].source.data"), "messages[0].images[0]")
    assert.strictEqual(EncodeError.generateErrors.rename("messages[1].content[2]"), "images[1]")
    assert.strictEqual(EncodeError.generateErrors.rename("messages[1].content"), "prompt")
    assert.strictEqual(EncodeError.chatErrors.rename("maxTokens"), "options.num_predict")
  })

  it("continues an assistant's text at the end, and no calls", () => {
    const { request } = chat({ messages: [user, { role: "assistant", content: "Hel" }] })
    assert.deepStrictEqual([request.messages.length, request.assistantPrefix], [1, "Hel"])
    const calls = [{ function: { name: "f", arguments: {} } }]
    const called = chat({ messages: [user, { role: "assistant", content: "Hel", tool_calls: calls }] })
    assert.deepStrictEqual([called.request.messages.length, called.request.assistantPrefix], [2, undefined])
  })

  it.each<[name: string, body: object]>([
    ["options that place and compute the model", {
      options: { num_ctx: 8192, num_gpu: 1, use_mmap: true, num_thread: 4 }
    }],
    ["defaults of samplers", { options: { mirostat: 0, typical_p: 1, tfs_z: 1, repeat_last_n: 64 } }],
    ["reasoning", { think: "high" }],
    ["fields about prompts that do not fit", { truncate: true, shift: true }]
  ])("excludes no deployment with %s", (_, body) => {
    assert.deepStrictEqual(requiredPaths(chat({ messages, ...body }).request.source), [])
  })

  it("needs a deployment of the dialect for other options and fields", () => {
    const body = { messages, options: { mirostat: 2, typical_p: 0.5 }, x_mine: 1 }
    assert.deepStrictEqual(requiredPaths(chat(body).request.source), [
      "options.mirostat",
      "options.typical_p",
      "x_mine"
    ])
  })

  it("names the model as the registry does, and keeps the caller's name for the answer", () => {
    const { model, request } = chat({ messages, model: "a:latest" }, { nameOf: (name) => name.replace(":latest", "") })
    assert.deepStrictEqual([model, request.model], ["a:latest", "a"])
  })
})

describe("a prompt", () => {
  it("is a message of the user after the system prompt", () => {
    const { request } = generate({ prompt: "Hi", system: "Be brief.", images: [png] })
    assert.deepStrictEqual(request.messages.map(({ role }) => role), ["system", "user"])
    assert.strictEqual(request.messages[1]!.content.length, 2)
    assert.strictEqual(request.source?.body["prompt"], "Hi")
  })

  it("needs a deployment of the dialect with a suffix, a template, earlier tokens or without a template", () => {
    const needed = (body: object) => requiredPaths(generate({ prompt: "Hi", ...body }).request.source)
    assert.deepStrictEqual(needed({ suffix: "x", template: "y", context: [1], raw: true }), [
      "suffix",
      "template",
      "context",
      "raw"
    ])
    assert.deepStrictEqual(needed({ suffix: "", template: "", context: [], raw: false }), [])
  })

  it("is a text completion without a template, or with a suffix", () => {
    const completed = (body: object) => {
      const { request } = generate({ prompt: "Hi", ...body })
      return [request.completion, request.messages.map(({ content }) => content), requiredPaths(request.source)]
    }
    assert.deepStrictEqual(completed({ raw: true, system: "x" }), [{}, ["Hi"], []])
    assert.deepStrictEqual(completed({ suffix: "x" }), [{}, ["Hi", "x"], []])
    assert.deepStrictEqual(completed({ suffix: "x", raw: true }), [{}, ["Hi", "x"], []])
    assert.deepStrictEqual(completed({ raw: true, format: "json" }), [undefined, ["Hi"], ["raw"]])
    assert.deepStrictEqual(completed({ suffix: "x", system: "y" }), [undefined, ["y", "Hi"], ["suffix"]])
  })
})

describe("a request without messages or a prompt", () => {
  const typesOf = (body: object) =>
    [DecodeRequest.decodeChat, DecodeRequest.decodeGenerate].map((decode) =>
      Result.getOrThrow(decode(arrived(body))).type
    )

  it("loads the model, and unloads it if it is not to be kept", () => {
    for (const body of [{}, { keep_alive: "5m" }, { keep_alive: -1 }]) {
      assert.deepStrictEqual(typesOf(body), ["load", "load"])
    }
    for (const keep_alive of [0, "0", "0s"]) assert.deepStrictEqual(typesOf({ keep_alive }), ["unload", "unload"])
    assert.deepStrictEqual(typesOf({ keep_alive: "0m30s" }), ["load", "load"])
  })

  it("does not load the model where the prompt is probably misspelt", () => {
    const generate = DecodeRequest.decodeGenerate(arrived({ promt: "Hi" }))
    const chat = DecodeRequest.decodeChat(arrived({ mesages: [] }))
    for (const [decoded, path, meant] of [[generate, "promt", "prompt"], [chat, "mesages", "messages"]] as const) {
      assert.deepInclude(Result.isFailure(decoded) && decoded.failure, {
        path,
        detail: `Unknown field. Did you mean ${meant}?`
      })
    }
  })

  it("says how long the model stays loaded", () => {
    const call = Result.getOrThrow(DecodeRequest.decodeChat(arrived({ messages: [], keep_alive: 60 })))
    assert.isTrue(call.type === "load" && Duration.toMillis(call.caller.keepAlive!) === 60_000)
  })
})
