/**
 * What is sent to providers follows their published schemas, restated in `fixtures/providerRequests.json`: random requests of
 * callers of each dialect, encoded for the providers of the others.
 */
import { Ajv2020 } from "ajv/dist/2020.js"
import { Result } from "effect"
import * as fc from "fast-check"
import { assert, describe, it } from "vitest"
import * as AnthropicRequest from "../../src/dialects/anthropic/DecodeRequest.ts"
import { anthropic } from "../../src/dialects/anthropic/Provider.ts"
import { gemini } from "../../src/dialects/gemini/Provider.ts"
import { ollama } from "../../src/dialects/ollama/Provider.ts"
import * as OpenAiRequest from "../../src/dialects/openai/DecodeRequest.ts"
import { azureOpenAi, openAi } from "../../src/dialects/openai/Provider.ts"
import * as ResponsesRequest from "../../src/dialects/responses/DecodeRequest.ts"
import * as Items from "../../src/dialects/responses/Items.ts"
import type { Dialect, Target } from "../../src/dialects/shared/ProviderDialect.ts"
import type { Provider } from "../../src/domain/Deployment.ts"
import type { Generation } from "../../src/domain/Generation.ts"
import type { Message, Request } from "../../src/domain/Inference.ts"
import { bodyWith, dialectOf } from "../../src/domain/Source.ts"
import { dialects } from "../../src/layers/providers/Providers.ts"
import document from "../fixtures/providerRequests.json" with { type: "json" }
import * as Bodies from "../support/Bodies.ts"
import { generationOf, targetOf } from "../support/Dialects.ts"

type Fields = Readonly<Record<string, unknown>>

const ajv = new Ajv2020({ allowUnionTypes: true, strict: false })
ajv.addSchema({ $id: "providers", $defs: document.$defs })

const providers: ReadonlyArray<readonly [Provider, Dialect, schema: string, models: ReadonlyArray<string>]> = [
  ["openai", openAi, "openai", ["gpt-5"]],
  ["azure-openai", azureOpenAi, "openai", ["gpt-5"]],
  ["anthropic", anthropic, "anthropic", ["claude-sonnet-4-5", "claude-opus-4-7", "claude-3-5-haiku-latest"]],
  ["gemini", gemini, "gemini", ["gemini-2.5-flash", "gemini-3-pro-preview", "gemini-2.0-flash"]],
  ["ollama", ollama, "ollama", ["qwen3", "gpt-oss", "llama3.2"]]
]

/** The fields of a generation. */
const generationFor = (request: Omit<Request, "messages">, messages: ReadonlyArray<Message>): Generation => {
  const { assistantPrefix, format, logprobs, maxTokens, parallelToolCalls, reasoning, source, stop = [], tools } =
    request
  const { frequencyPenalty, logitBias, minP, presencePenalty, repeatPenalty, seed, temperature, topK, topP } = request
  const sampling = { frequencyPenalty, logitBias, minP, presencePenalty, repeatPenalty, seed, temperature, topK, topP }
  return generationOf({
    messages,
    maxTokens,
    stop,
    sampling: Object.fromEntries(Object.entries(sampling).filter(([, value]) => value !== undefined)),
    assistantPrefix,
    format,
    logprobs,
    parallelToolCalls,
    reasoning,
    source,
    tools,
    toolChoice: request.toolChoice
  })
}

/** The generation of a body; undefined if it is refused, or has fields that exclude providers of other dialects. */
type Caller = (body: Fields) => Generation | undefined

const callers: Readonly<Record<string, readonly [fc.Arbitrary<Fields>, Caller]>> = {
  openai: [Bodies.openAiChat, (body) => {
    const decoded = OpenAiRequest.decode(body)
    if (Result.isFailure(decoded)) return undefined
    const [request] = decoded.success.requests
    return generationFor(request, request.messages)
  }],
  anthropic: [Bodies.anthropicMessages, (body) => {
    const decoded = AnthropicRequest.decode(body)
    if (Result.isFailure(decoded)) return undefined
    return generationFor(decoded.success.request, decoded.success.request.messages)
  }],
  responses: [Bodies.responses, (body) => {
    const decoded = ResponsesRequest.decode(body)
    if (Result.isFailure(decoded)) return undefined
    const { input, instructions, request } = decoded.success
    const messages = Items.messagesOf(input.map((item, index) => Items.stored(item, (prefix) => `${prefix}_${index}`)))
    return generationFor(
      request,
      instructions === undefined ? messages : [{ role: "system", content: instructions }, ...messages]
    )
  }]
}

/** Fields that an API does not have, for which most requests would be refused. */
const refused: { readonly [Name in Provider]?: ReadonlyArray<string> } = {
  anthropic: [
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "min_p",
    "repeat_penalty",
    "logprobs",
    "top_logprobs"
  ],
  gemini: ["logit_bias", "min_p", "repeat_penalty", "logprobs", "top_logprobs"]
}

const without = (body: Fields, names: ReadonlyArray<string>): Fields =>
  Object.fromEntries(Object.entries(body).filter(([name]) => !names.includes(name)))

/** The body as it is sent: with the fields of a body of the same dialect that is not whole. */
const sentBody = (dialect: Dialect, generation: Generation, target: Target, stream: boolean): Fields | undefined => {
  const call = dialect.generate.request(generation, target, stream)
  if (Result.isFailure(call)) return undefined
  const { source } = generation
  const body = call.success.body as Fields
  const whole = source !== undefined && dialectOf(target.options) === source.dialect ? bodyWith(source, body) : body
  return JSON.parse(JSON.stringify(whole)) as Fields
}

describe("a request of the Responses API", () => {
  it("is valid for a provider's own endpoint", () => {
    const validate = ajv.getSchema("providers#/$defs/responses")!
    const { respond } = dialects.openai
    let sent = 0
    fc.assert(
      fc.property(Bodies.responses, fc.boolean(), (body, stream) => {
        const decoded = ResponsesRequest.decode(body)
        if (Result.isFailure(decoded)) return
        const { input, request } = decoded.success
        const items = input.map((item, index) => Items.stored(item, (prefix) => `${prefix}_${index}`))
        const source = ResponsesRequest.withItems(request.source!, [], items)
        // What the API does not have is a chat.
        if (source.responses === undefined) return
        const generation = generationFor({ ...request, source }, Items.messagesOf(items))
        const call = Result.getOrThrow(
          respond!.whole!(generation, targetOf("openai", { model: "gpt-5" }), stream, undefined)
        )
        sent++
        const upstream = JSON.parse(JSON.stringify(call.body)) as Fields
        assert.isTrue(validate(upstream), `${ajv.errorsText(validate.errors)} in ${JSON.stringify(upstream)}`)
      }),
      { numRuns: 300 }
    )
    assert.isAbove(sent, 30, "Most bodies were chats.")
  })
})

describe("a request of a caller", () => {
  for (const [caller, [bodies, decode]] of Object.entries(callers)) {
    for (const [provider, dialect, schema, models] of providers) {
      // A provider of the caller's own dialect is sent the caller's text.
      if (caller !== "responses" && dialectOf(targetOf(provider).options) === caller) continue
      it(`of ${caller} is valid for ${provider}`, () => {
        const validate = ajv.getSchema(`providers#/$defs/${schema}`)!
        let sent = 0
        fc.assert(
          fc.property(bodies, fc.constantFrom(...models), fc.boolean(), (body, model, stream) => {
            const generation = decode(without(body, refused[provider] ?? []))
            const target = targetOf(provider, { model })
            const upstream = generation && sentBody(dialect, generation, target, stream)
            if (upstream === undefined) return
            sent++
            assert.isTrue(
              validate(upstream),
              `${ajv.errorsText(validate.errors)} in ${JSON.stringify(upstream)} of ${JSON.stringify(body)}`
            )
          }),
          { numRuns: 300 }
        )
        assert.isAbove(sent, 30, "Most bodies were refused.")
      })
    }
  }
})
