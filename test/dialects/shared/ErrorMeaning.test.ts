/** Errors of providers about prompts that are too long, refused content and exhausted quotas. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as fc from "fast-check"
import { anthropic } from "../../../src/dialects/anthropic/Provider.ts"
import { gemini } from "../../../src/dialects/gemini/Provider.ts"
import { ollama } from "../../../src/dialects/ollama/Provider.ts"
import { azureOpenAi, openAi } from "../../../src/dialects/openai/Provider.ts"
import { meaningOf } from "../../../src/dialects/shared/ErrorMeaning.ts"
import type { Dialect } from "../../../src/dialects/shared/ProviderDialect.ts"
import { troupe } from "../../../src/dialects/troupe/Provider.ts"
import type { RemoteDeployment } from "../../../src/domain/Deployment.ts"
import { retryAfterOf } from "../../../src/domain/RetryAfter.ts"
import { engineAt, json, outcome, served, textOf } from "../../layers/providers/support.ts"
import { frameOf, generationOf, plain, targetOf } from "../../support/Dialects.ts"

/** What is known of the figure of the prompt. */
type Exactness = { readonly withAnswer: true } | { readonly atLeast: true }
type Figures = readonly [prompt: number, window: number, exactness?: Exactness]

/** Messages, and the token counts that they contain. */
const tooLong: Readonly<Record<string, readonly [message: string, figures?: Figures]>> = {
  "OpenAI, messages": [
    "This model's maximum context length is 1000 tokens. However, your messages resulted in 2000 tokens.",
    [2000, 1000]
  ],
  "OpenAI, configured": [
    "Input tokens exceed the configured limit of 1000 tokens. Your messages resulted in 2000 tokens.",
    [2000, 1000]
  ],
  "OpenAI, responses": ["Your input exceeds the context window of this model. Please adjust your input and try again."],
  OpenRouter: [
    "This endpoint's maximum context length is 1000 tokens. However, you requested about 2000 tokens (1900 of text input, 100 in the output).",
    [1900, 1000]
  ],
  DeepSeek: [
    "This model's maximum context length is 65536 tokens. However, you requested 70000 tokens (69000 in the messages, 1000 in the completion).",
    [69000, 65536]
  ],
  Groq: ["Please reduce the length of the messages or completion."],
  Cerebras: ["Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192", [
    9000,
    8192,
    { withAnswer: true }
  ]],
  Mistral: ["Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length", [
    40000,
    32768
  ]],
  xAI: ["This model's maximum prompt length is 131072 but the request contains 140000 tokens.", [140000, 131072]],
  Moonshot: ["Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)", [9000, 8192, {
    withAnswer: true
  }]],
  Fireworks: ["The prompt is too long: 150000, model maximum context length: 131071", [150000, 131071]],
  DashScope: ["<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]"],
  MiniMax: ["invalid params, context window exceeds limit (2013)"],
  watsonx: ["the number of input tokens 4100 cannot exceed the total tokens limit 4096 for this model", [4100, 4096]],
  Copilot: ["prompt token count of 130000 exceeds the limit of 128000", [130000, 128000]],
  Anthropic: ["prompt is too long: 210000 tokens > 200000 maximum", [210000, 200000]],
  "Anthropic, with max_tokens": [
    "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length",
    [188240, 200000]
  ],
  Bedrock: ["Input is too long for requested model."],
  Gemini: ["The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).", [
    1196265,
    1048575
  ]],
  Vertex: ["Unable to submit request because the input token count is 33000 but model only supports up to 32768.", [
    33000,
    32768
  ]],
  Ollama: ["prompt too long; exceeded max context length by 4 tokens"],
  "Ollama, embed": ["the input length exceeds the context length"],
  vLLM: [
    "This model's maximum context length is 51200 tokens. However, you requested 12054 output tokens and your prompt contains at least 40000 input tokens, for a total of at least 52054 tokens.",
    [40000, 51200, { atLeast: true }]
  ],
  "vLLM, older": ["The decoder prompt (length 5000) is longer than the maximum model length of 4096.", [5000, 4096]],
  SGLang: ["The input (5000 tokens) is longer than the model's context length (4096 tokens).", [5000, 4096]],
  "SGLang, with max_tokens": [
    "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 5000 tokens",
    [5000, 4096, { withAnswer: true }]
  ],
  "llama.cpp": ["request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it", [
    5000,
    4096
  ]],
  "LM Studio": [
    "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough.",
    [5000, 4096]
  ],
  TGI: [
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 4000 `inputs` tokens and 512 `max_new_tokens`",
    [4000, 4097]
  ]
}

const refused: Readonly<Record<string, string>> = {
  Azure: "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
  OpenAI: "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
  DeepSeek: "Content Exists Risk",
  Moonshot: "The request was rejected because it was considered high risk",
  DashScope: "<400> InternalError.Algo.DataInspectionFailed: Input text data may contain inappropriate content.",
  Anthropic: "Output blocked by content filtering policy",
  xAI: "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
  OpenRouter: "openai/x requires moderation on OpenAI. Your input was flagged for \"violence\"."
}

const unpaid: ReadonlyArray<readonly [status: number, message: string, code?: string]> = [
  [429, "You exceeded your current quota, please check your plan and billing details.", "insufficient_quota"],
  [429, "Your account is suspended, please check your plan and billing details", "exceeded_current_quota_error"],
  [400, "Your credit balance is too low to access the Anthropic API."],
  [402, "Insufficient Balance"],
  [402, "x"],
  [403, "Your team has either used all available credits or reached its monthly spending limit."],
  [400, "Access denied, please make sure your account is in good standing.", "Arrearage"]
]

/** The error body of each dialect. */
const hosts: ReadonlyArray<
  readonly [name: string, Dialect, body: (message: string, code?: string) => object]
> = [
  [
    "openai",
    openAi,
    (message, code = "") => ({ error: { message, type: "invalid_request_error", param: null, code } })
  ],
  ["openai, fields only", openAi, (message, type = "x") => ({ object: "error", message, type, code: 400 })],
  ["openai, text", openAi, (error, code) => code === undefined ? { error } : { error: { message: error, type: code } }],
  ["openai, detail", openAi, (detail, code) => ({ detail, error: code === undefined ? null : { code } })],
  ["azure-openai", azureOpenAi, (message, code) => ({ error: { message, innererror: { code } } })],
  ["troupe", troupe, (message, code) => ({ error: { message, code } })],
  ["anthropic", anthropic, (message, type = "invalid_request_error") => ({ type: "error", error: { type, message } })],
  ["gemini", gemini, (message, status = "INVALID_ARGUMENT") => ({ error: { message, status } })],
  ["ollama", ollama, (error, code) => ({ error: code === "" || code === undefined ? error : { message: error } })]
]

const failed = (dialect: Dialect, status: number, body: unknown, headers = {}) =>
  plain(dialect.failure({ status, headers, body, now: 0 }, targetOf("openai"))) as Readonly<Record<string, unknown>>

for (const [host, dialect, bodyOf] of hosts) {
  describe(`an error of ${host}`, () => {
    for (const [name, [message, figures]] of Object.entries(tooLong)) {
      it(`is a prompt that is too long: ${name}`, () => {
        const expected = {
          _tag: "ContextLengthExceeded",
          model: "x",
          ...(figures === undefined ? {} : { promptTokens: figures[0], contextWindow: figures[1], ...figures[2] })
        }
        for (const status of [400, 413, 422]) assert.deepStrictEqual(failed(dialect, status, bodyOf(message)), expected)
        assert.strictEqual(failed(dialect, 429, bodyOf(message))["_tag"], "RateLimited")
        const decoded = dialect.generate.buffered(bodyOf(message), generationOf(), targetOf("openai"))
        if (host !== "openai, detail") assert.strictEqual(Result.getOrThrow(Result.flip(decoded))._tag, expected._tag)
      })
    }

    for (const [name, message] of Object.entries(refused)) {
      it(`is refused content: ${name}`, () => {
        for (const status of [400, 403]) {
          assert.strictEqual(failed(dialect, status, bodyOf(message))["_tag"], "ContentRefused")
        }
      })
    }

    it("is an exhausted quota, not a rate limit or an invalid request", () => {
      for (const [status, message, code] of unpaid.filter(([, , code]) => code === undefined || host !== "ollama")) {
        assert.deepInclude(failed(dialect, status, bodyOf(message, code)), {
          _tag: "AuthenticationFailed",
          status,
          quota: true
        })
      }
    })

    it("is classified by its status if its message is unknown", () => {
      const words = [
        "max_tokens is too large: 5000",
        "Invalid 'messages[0].name': string too long",
        "Unknown parameter: 'context'"
      ]
      for (const message of words) assert.strictEqual(failed(dialect, 400, bodyOf(message))["_tag"], "InvalidRequest")
      assert.deepInclude(failed(dialect, 403, bodyOf("No access")), { _tag: "AuthenticationFailed", status: 403 })
      assert.isUndefined(failed(dialect, 403, bodyOf("No access"))["quota"])
      for (const status of [500, 502, 503, 520, 522, 524, 529]) {
        assert.deepInclude(failed(dialect, status, bodyOf("Overloaded")), {
          _tag: "UpstreamFailed",
          kind: "status",
          status
        })
      }
    })
  })
}

it("A code takes precedence over the message, in upper or lower case", () => {
  const message = "This model's maximum context length is 10 tokens."
  assert.strictEqual(meaningOf({ status: 400, codes: ["Content_Filter"], message }), "content")
  assert.strictEqual(meaningOf({ status: 413, codes: [undefined, "CONTEXT_LENGTH_EXCEEDED"], message: "" }), "context")
})

it("A long message is classified by its start", () => {
  const words = [...Object.values(tooLong).map(([message]) => message), ...Object.values(refused)].flatMap((text) =>
    text.split(" ")
  )
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...words), { maxLength: 30 }), (chosen) => {
      const meaningAfter = (times: number) =>
        meaningOf({ status: 400, codes: [], message: `${chosen.join(" ")} `.repeat(times) })
      assert.strictEqual(meaningAfter(20_000), meaningAfter(10_000))
    }),
    { numRuns: 50 }
  )
})

describe("the time to wait before a retry", () => {
  const now = 1_700_000_000_000
  const retryInfo = { error: { details: [{ "@type": "x" }, { retryDelay: "34.5s" }] } }
  const cases: ReadonlyArray<
    readonly [name: string, headers: Record<string, string>, body: unknown, ms: number | undefined]
  > = [
    ["nothing", {}, {}, undefined],
    ["seconds", { "retry-after": "7" }, {}, 7000],
    ["seconds with a fraction", { "retry-after": "0.5" }, {}, 500],
    ["a date", { "retry-after": "Tue, 14 Nov 2023 22:13:30 GMT" }, {}, 10_000],
    ["a date that has passed", { "retry-after": "Tue, 14 Nov 2023 22:13:00 GMT" }, {}, 0],
    ["milliseconds before seconds", { "retry-after-ms": "250", "retry-after": "7" }, {}, 250],
    ["Google's RetryInfo", {}, retryInfo, 34_500],
    ["Google's RetryInfo in a list", {}, [retryInfo], 34_500],
    ["a header before RetryInfo", { "retry-after": "7" }, retryInfo, 7000],
    [
      "OpenAI's limits",
      {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0.5s",
        "x-ratelimit-remaining-tokens": "5",
        "x-ratelimit-reset-tokens": "1h"
      },
      {},
      60_500
    ],
    [
      "Anthropic's limits",
      {
        "anthropic-ratelimit-tokens-remaining": "0",
        "anthropic-ratelimit-tokens-reset": "2023-11-14T22:13:25Z"
      },
      {},
      5000
    ],
    ["OpenRouter's time in ms", { "x-ratelimit-remaining": "0", "x-ratelimit-reset": `${now + 3000}` }, {}, 3000],
    ["a time in seconds", { "x-ratelimit-remaining": "0", "x-ratelimit-reset": `${now / 1000 + 3}` }, {}, 3000],
    ["the IETF's seconds", { "ratelimit-remaining": "0", "ratelimit-reset": "9" }, {}, 9000]
  ]
  for (const [name, headers, body, ms] of cases) {
    it(`is read from ${name}`, () => assert.strictEqual(retryAfterOf({ headers, body, now }), ms))
  }

  it("is also read from errors within a stream", () => {
    const decoder = openAi.generate.events(generationOf(), targetOf("openai"))
    const decoded = decoder.push(frameOf({ error: { code: 429, ...retryInfo.error } }))
    assert.deepInclude(plain(Result.getOrThrow(Result.flip(decoded))), { _tag: "RateLimited", retryAfterMs: 34_500 })
  })
})

describe("an answer with status 200", () => {
  const limited = { error: { message: "Rate limit reached", type: "rate_limit_error", code: "rate_limit_exceeded" } }
  const long = tooLong["OpenAI, messages"]![0]
  const sse = (data: object, event?: string) => ({
    pieces: [`${event === undefined ? "" : `event: ${event}\n`}data: ${JSON.stringify(data)}\n\n`]
  })
  const one = (body: object, headers: Record<string, string> = json) => ({ headers, pieces: [JSON.stringify(body)] })
  const cases: ReadonlyArray<
    readonly [
      name: string,
      play: { pieces: ReadonlyArray<string>; headers?: Record<string, string> },
      expected: Readonly<Record<string, unknown>>,
      over?: Partial<RemoteDeployment>
    ]
  > = [
    ["a limit as JSON", one(limited), { _tag: "RateLimited" }],
    ["a limit as problem+json", one(limited, { "content-type": "application/problem+json; charset=utf-8" }), {
      _tag: "RateLimited"
    }],
    ["a prompt that is too long as JSON", one({ error: { message: long, code: 400 } }), {
      _tag: "ContextLengthExceeded"
    }],
    ["an event without `error`", sse({ object: "error", message: long, code: 400 }), { _tag: "ContextLengthExceeded" }],
    ["an event named error", sse({ message: "busy", status: 503 }, "error"), { _tag: "UpstreamFailed", status: 503 }],
    [
      "an error of a choice",
      sse({ choices: [{ index: 0, error: { code: 502, message: "Bad" }, finish_reason: "error" }] }),
      {
        _tag: "UpstreamFailed",
        status: 502
      }
    ],
    ["an error of Anthropic's", one({ type: "error", error: { type: "overloaded_error", message: "Overloaded" } }), {
      _tag: "UpstreamFailed",
      status: 529
    }, { provider: "anthropic" }],
    ["an error of Gemini's", one({ error: { status: "RESOURCE_EXHAUSTED", message: "x" } }), { _tag: "RateLimited" }, {
      provider: "gemini"
    }],
    ["an error of Ollama's", one({ error: "prompt too long; exceeded max context length by 4 tokens" }), {
      _tag: "ContextLengthExceeded"
    }, { provider: "ollama" }],
    ["an HTML page", { headers: { "content-type": "text/html" }, pieces: ["<html></html>"] }, {
      _tag: "UpstreamFailed",
      kind: "malformed"
    }]
  ]
  for (const [name, play, expected, over] of cases) {
    it.live(`is decoded in response to a request for a stream: ${name}`, () =>
      Effect.gen(function*() {
        const server = yield* served(() => play)
        const engine = yield* engineAt(server.url, { stream: true, ...over })
        assert.deepInclude(plain((yield* outcome(engine)).reason!), expected)
      }))
  }

  it.live("is decoded if it is buffered although a stream was requested", () =>
    Effect.gen(function*() {
      const server = yield* served(() => one({ choices: [{ message: { content: "Hello" }, finish_reason: "stop" }] }))
      const { events, reason } = yield* outcome(yield* engineAt(server.url, { stream: true }))
      assert.isUndefined(reason)
      assert.strictEqual(textOf(events), "Hello")
      assert.strictEqual(events.at(-1)?.type, "finish")
    }))
})
