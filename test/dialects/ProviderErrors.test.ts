/** Errors as providers send them: the reason, and what callers of two dialects get. */
import { assert, describe, it } from "@effect/vitest"
import * as AnthropicError from "../../src/dialects/anthropic/EncodeError.ts"
import { anthropic } from "../../src/dialects/anthropic/Provider.ts"
import { gemini } from "../../src/dialects/gemini/Provider.ts"
import { ollama } from "../../src/dialects/ollama/Provider.ts"
import * as OpenAiError from "../../src/dialects/openai/EncodeError.ts"
import * as FieldNames from "../../src/dialects/openai/FieldNames.ts"
import { azureOpenAi, openAi } from "../../src/dialects/openai/Provider.ts"
import type { Provider } from "../../src/domain/Deployment.ts"
import errors from "../fixtures/providers/errors.json" with { type: "json" }
import { plain, targetOf } from "../support/Dialects.ts"

const dialects = { openai: openAi, "azure-openai": azureOpenAi, anthropic, gemini, ollama }

describe("an error of a provider", () => {
  for (const { body, name, provider, reason: expected, status, ...callers } of errors) {
    it(`has its reason, and its code reaches the caller: ${name}`, () => {
      const dialect = dialects[provider as keyof typeof dialects]
      const refusal = { status, headers: {}, body, now: 0 }
      const reason = dialect.failure(refusal, targetOf(provider as Provider))
      assert.deepInclude(plain(reason), expected)
      const ofOpenAi = OpenAiError.fromReason(reason, FieldNames.chatErrors)
      assert.deepStrictEqual([ofOpenAi.status, ofOpenAi.body.error.code], callers.openai)
      const ofAnthropic = AnthropicError.fromReason(reason, "req_1")
      assert.deepStrictEqual([ofAnthropic.status, ofAnthropic.body.error.type], callers.anthropic)
    })
  }

  it("is recognized by code, type and status of every kind", () => {
    const tags = new Set(errors.map(({ reason }) => reason._tag))
    assert.sameMembers([...tags], [
      "AuthenticationFailed",
      "ContentRefused",
      "ContextLengthExceeded",
      "InvalidRequest",
      "RateLimited",
      "UpstreamFailed"
    ])
  })
})
