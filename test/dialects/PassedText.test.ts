import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as AnthropicRequest from "../../src/dialects/anthropic/DecodeRequest.ts"
import * as AnthropicAnswer from "../../src/dialects/anthropic/EncodeAnswer.ts"
import { anthropic } from "../../src/dialects/anthropic/Provider.ts"
import * as OllamaRequest from "../../src/dialects/ollama/DecodeRequest.ts"
import * as OllamaAnswer from "../../src/dialects/ollama/EncodeAnswer.ts"
import { ollama } from "../../src/dialects/ollama/Provider.ts"
import * as OpenAiRequest from "../../src/dialects/openai/DecodeRequest.ts"
import * as OpenAiAnswer from "../../src/dialects/openai/EncodeAnswer.ts"
import { openAi } from "../../src/dialects/openai/Provider.ts"
import { troupe } from "../../src/dialects/troupe/Provider.ts"
import * as ExactNumber from "../../src/domain/ExactNumber.ts"
import type { Answer, Event, Request } from "../../src/domain/Inference.ts"
import { AnswerBuilder } from "../../src/services/inference/DirectAnswer.ts"
import { generationOf, ollamaEnvelope, targetOf } from "../support/Dialects.ts"
import * as JsonTexts from "../support/JsonTexts.ts"

type Fields = Readonly<Record<string, unknown>>

const parse = (text: string) => ExactNumber.parse(text) as Fields

/** The JSON that is sent for a value. */
const sent = (value: unknown): unknown => parse(typeof value === "string" ? value : JSON.stringify(value))

const field = (name: string, value: fc.Arbitrary<string>) => value.map((text) => [JSON.stringify(name), text] as const)

/** Fields in any order, of which some may be missing, and others among them. */
const objectOf = (
  required: ReadonlyArray<fc.Arbitrary<readonly [string, string]>>,
  optional: ReadonlyArray<fc.Arbitrary<readonly [string, string]>>,
  more = 2
) =>
  JsonTexts.object(
    fc.tuple(
      fc.tuple(...required),
      fc.tuple(...optional.map((one) => fc.option(one, { nil: undefined }))),
      fc.array(fc.tuple(fc.constantFrom("\"x\"", "\"y\"", "\"__proto__\"", "\"toString\""), JsonTexts.value), {
        maxLength: more
      })
    ).chain(([all, some, others]) => {
      const fields = [...all, ...some.filter((one) => one !== undefined), ...others]
      return fc.shuffledSubarray(fields, { minLength: fields.length })
    })
  )

const list = (one: fc.Arbitrary<string>) =>
  fc.array(one, { minLength: 1, maxLength: 2 }).map((all) => `[${all.join(",")}]`)

const count = fc.constantFrom("0", "7", "7.0", "null")

const answerOf = (events: ReadonlyArray<Event>): Answer => {
  const builder = new AnswerBuilder()
  for (const event of events) builder.add(event)
  return { ...builder.end(), deployment: "x#0", attempts: 1, decision: "d" }
}

const envelope = {
  id: "req_\"1",
  created: 1,
  model: "our \"model\"",
  includeUsage: false,
  parallelToolCalls: true,
  parallelToolUse: true,
  thinking: true
}

describe("an answer for a caller of the same dialect", () => {
  const call = objectOf(
    [
      field("id", fc.constant("\"call\"")),
      field(
        "function",
        objectOf([field("name", fc.constant("\"f\"")), field("arguments", fc.constant("\"{}\""))], [], 1)
      )
    ],
    [field("type", fc.constant("\"function\"")), field("index", fc.constant("0"))],
    1
  )
  const message = objectOf(
    [field("role", fc.constant("\"assistant\"")), field("content", JsonTexts.string)],
    [field("refusal", fc.constant("null")), field("tool_calls", fc.oneof(list(call), fc.constant("[]")))]
  )
  const openAiText = objectOf(
    [
      field(
        "choices",
        list(objectOf(
          [
            field("message", message),
            field("finish_reason", fc.constantFrom("\"stop\"", "\"length\"", "\"end_turn\""))
          ],
          [field("index", fc.constantFrom("0", "1"))]
        ))
      )
    ],
    [
      field("id", JsonTexts.value),
      field("model", JsonTexts.value),
      field("created", fc.constantFrom("1.0", "null", "17")),
      field("object", fc.constantFrom("\"chat.completion\"", "null")),
      field(
        "usage",
        objectOf([], ["prompt_tokens", "completion_tokens", "total_tokens"].map((name) => field(name, count)))
      )
    ]
  )

  it("has the JSON of the decoded and encoded one: OpenAI", () => {
    const given = generationOf({ source: { dialect: "openai", body: { messages: [] } } })
    let passed = 0
    fc.assert(
      fc.property(openAiText, (text) => {
        const body = parse(text)
        const target = targetOf("openai")
        const decoded = openAi.generate.buffered(body, given, target, text)
        if (Result.isFailure(decoded)) return
        const without = answerOf(Result.getOrThrow(openAi.generate.buffered(body, given, target)))
        const answer = answerOf(decoded.success)
        assert.deepStrictEqual(
          sent(OpenAiAnswer.encodeText(envelope, [answer])),
          sent(OpenAiAnswer.encodeAnswers(envelope, [without]))
        )
        if (answer.native?.[0]?.text !== undefined) passed++
      }),
      { numRuns: 300 }
    )
    assert.isAbove(passed, 40)
  })

  const anthropicText = objectOf(
    [
      field("content", list(JsonTexts.string.map((text) => `{"type":"text", "text":${text}}`))),
      field("stop_reason", fc.constantFrom("\"end_turn\"", "\"max_tokens\""))
    ],
    [
      field("id", JsonTexts.value),
      field("model", JsonTexts.value),
      field("usage", objectOf([], [field("input_tokens", count), field("output_tokens", count)]))
    ]
  )

  it("has the JSON of the decoded and encoded one: Anthropic", () => {
    const given = generationOf({ source: { dialect: "anthropic", body: { messages: [] } } })
    fc.assert(
      fc.property(anthropicText, (text) => {
        const body = parse(text)
        const target = targetOf("anthropic")
        const decoded = anthropic.generate.buffered(body, given, target, text)
        if (Result.isFailure(decoded)) return
        const without = answerOf(Result.getOrThrow(anthropic.generate.buffered(body, given, target)))
        assert.deepStrictEqual(
          sent(Result.getOrThrow(AnthropicAnswer.encodeText(envelope, answerOf(decoded.success)))),
          sent(Result.getOrThrow(AnthropicAnswer.encodeAnswer(envelope, without)))
        )
      }),
      { numRuns: 200 }
    )
  })

  const ollamaText = objectOf(
    [
      field(
        "message",
        objectOf([field("role", fc.constant("\"assistant\"")), field("content", JsonTexts.string)], [], 1)
      ),
      field("done", fc.constant("true")),
      field("done_reason", fc.constantFrom("\"stop\"", "\"length\""))
    ],
    [
      field("model", JsonTexts.value),
      field("prompt_eval_count", count),
      field("eval_count", count)
    ]
  )

  it("has the JSON of the decoded and encoded one: Ollama", () => {
    const given = generationOf({ source: { dialect: "ollama", body: { messages: [] } } })
    const own = ollamaEnvelope({ model: "our \"model\"" })
    fc.assert(
      fc.property(ollamaText, (text) => {
        const body = parse(text)
        const target = targetOf("ollama")
        const decoded = ollama.generate.buffered(body, given, target, text)
        if (Result.isFailure(decoded)) return
        const without = answerOf(Result.getOrThrow(ollama.generate.buffered(body, given, target)))
        assert.deepStrictEqual(
          sent(Result.getOrThrow(OllamaAnswer.encodeText(own, answerOf(decoded.success)))),
          sent(Result.getOrThrow(OllamaAnswer.encodeAnswer(own, without)))
        )
      }),
      { numRuns: 200 }
    )
  })

  it("is passed on byte by byte, with the service's own id and model", () => {
    const head = `{"id": "up", "model" : "u-1","object":"chat.completion","created":1.0,"system_fingerprint":"f",`
    const rest = `"choices":[{"index":0,"message":{"role":"assistant","content":"\\u0048i","tool_calls":[{"id":"c",` +
      `"function":{"arguments":"{}","name":"f"},"type":"function"}]},"finish_reason":"tool_calls"}],` +
      `"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2.0}}`
    const given = generationOf({ source: { dialect: "openai", body: { messages: [] } } })
    const text = head + rest
    const events = Result.getOrThrow(openAi.generate.buffered(parse(text), given, targetOf("openai"), text))
    assert.strictEqual(
      OpenAiAnswer.encodeText({ ...envelope, id: "own", model: "m" }, [answerOf(events)]),
      head.replace(` "up"`, "\"own\"").replace(` "u-1"`, "\"m\"") + rest
    )
  })
})

describe("a request for a provider of the same dialect", () => {
  const text = objectOf(
    [
      field("model", fc.constantFrom("\"m\"", "\"other\"")),
      field(
        "messages",
        list(objectOf(
          [field("role", fc.constant("\"user\"")), field("content", JsonTexts.string)],
          [field("name", JsonTexts.string)],
          1
        ))
      ),
      field("max_tokens", fc.constantFrom("5", "5.0"))
    ],
    [
      field("stream", fc.constantFrom("true", "false")),
      field("temperature", fc.constantFrom("0.50", "1", "1.0e0")),
      field("metadata", JsonTexts.value),
      field("priority", fc.constant("\"low\"")),
      field("seed", fc.constant("9007199254740993"))
    ]
  )

  const requestsOf = {
    openai: (...given: Parameters<typeof OpenAiRequest.decode>) =>
      Result.map(OpenAiRequest.decode(...given), ({ requests: [request] }) => request),
    anthropic: (...given: Parameters<typeof AnthropicRequest.decode>) =>
      Result.map(AnthropicRequest.decode(...given), ({ request }): Request => request),
    ollama: (...[json, caller = {}, exact, text]: Parameters<typeof AnthropicRequest.decode>) =>
      Result.map(
        OllamaRequest.decodeChat({ json, caller, exact: exact ?? json, text, nameOf: (model) => model }),
        (call): Request => (call as OllamaRequest.GenerationCall).request
      )
  }

  for (
    const [dialect, provider, kind] of [
      ["openai", openAi, "openai"],
      ["openai", troupe, "troupe"],
      ["anthropic", anthropic, "anthropic"],
      ["ollama", ollama, "ollama"]
    ] as const
  ) {
    it(`has the JSON of the decoded and encoded one: ${kind}`, () => {
      const target = targetOf(kind, kind === "openai" ? { baseUrl: "http://127.0.0.1", maxTokens: 9 } : {})
      let passed = 0
      fc.assert(
        fc.property(text, fc.boolean(), fc.constantFrom(5, 6, undefined), (body, stream, maxTokens) => {
          const json = JSON.parse(body) as unknown
          const decoded = requestsOf[dialect](json, {}, parse(body), body)
          if (Result.isFailure(decoded)) return
          const source = decoded.success.source!
          assert.isDefined(source.text)
          const { text: _, ...without } = source
          const generation = generationOf({ maxTokens, source })
          const callOf = (given: typeof source) =>
            Result.getOrThrow(provider.generate.passThrough!(generation, given, target, stream, undefined))
          const { body: found, ...call } = callOf(source)
          const { body: expected, ...other } = callOf(without)
          assert.deepStrictEqual(sent(found), sent(expected))
          assert.deepStrictEqual(call, other)
          if (typeof found === "string") passed++
        }),
        { numRuns: 200 }
      )
      // Another instance gets fields of its own in the body.
      if (kind === "troupe") assert.strictEqual(passed, 0)
      else assert.isAbove(passed, 3)
    })
  }
})
