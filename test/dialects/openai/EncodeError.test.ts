import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as EncodeError from "../../../src/dialects/openai/EncodeError.ts"
import * as FieldNames from "../../../src/dialects/openai/FieldNames.ts"
import { ErrorBody } from "../../../src/dialects/openai/Schema.ts"
import type { ErrorNames } from "../../../src/dialects/shared/FieldNames.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import { budgetExceeded, limitExceeded } from "../../support/Refusals.ts"

interface Case {
  readonly reason: InferenceError.Reason
  readonly status: number
  readonly type: string
  readonly code: string | null
  readonly param: string | null
  readonly headers: Readonly<Record<string, string>>
}

const deployment = "tiny-chat#0"

const cases: ReadonlyArray<Case> = [
  {
    reason: new InferenceError.InvalidRequest({ detail: "Expected an integer", path: "messages[0].content" }),
    status: 400,
    type: "invalid_request_error",
    code: null,
    param: "messages[0].content",
    headers: {}
  },
  {
    reason: new InferenceError.InvalidRequest({ detail: "The body is not JSON" }),
    status: 400,
    type: "invalid_request_error",
    code: null,
    param: null,
    headers: {}
  },
  {
    reason: new InferenceError.ModelNotFound({ model: "gpt-x", available: ["tiny-chat"] }),
    status: 404,
    type: "invalid_request_error",
    code: "model_not_found",
    param: "model",
    headers: {}
  },
  {
    reason: new InferenceError.ContextLengthExceeded({ model: "tiny-chat", promptTokens: 5000, contextWindow: 4096 }),
    status: 400,
    type: "invalid_request_error",
    code: "context_length_exceeded",
    param: "messages",
    headers: {}
  },
  {
    reason: new InferenceError.QueueFull({ deployment, limit: 64, retryAfterMs: 1500 }),
    status: 429,
    type: "rate_limit_error",
    code: "queue_full",
    param: null,
    headers: { "retry-after": "2" }
  },
  {
    reason: new InferenceError.QueueFull({ deployment, limit: 64, retryAfterMs: 0 }),
    status: 429,
    type: "rate_limit_error",
    code: "queue_full",
    param: null,
    headers: { "retry-after": "1" }
  },
  {
    reason: new InferenceError.Overloaded({ retryAfterMs: 30_000 }),
    status: 429,
    type: "rate_limit_error",
    code: "overloaded",
    param: null,
    headers: { "retry-after": "30" }
  },
  {
    reason: new InferenceError.DeploymentDown({ deployment, detail: "Exit code 134.", retryAfterMs: 29_500 }),
    status: 503,
    type: "server_error",
    code: "deployment_down",
    param: null,
    headers: { "retry-after": "30" }
  },
  {
    reason: new InferenceError.InsufficientMemory({ deployment, neededBytes: 2 ** 30, availableBytes: 2 ** 29 }),
    status: 503,
    type: "server_error",
    code: "insufficient_memory",
    param: null,
    headers: {}
  },
  {
    reason: new InferenceError.EngineHung({ deployment, afterMs: 30_000 }),
    status: 503,
    type: "server_error",
    code: "engine_hung",
    param: null,
    headers: { "retry-after": "1" }
  },
  {
    reason: new InferenceError.UpstreamFailed({ deployment, kind: "cut", detail: "It broke off." }),
    status: 502,
    type: "server_error",
    code: "upstream_failed",
    param: null,
    headers: {}
  },
  {
    reason: new InferenceError.UpstreamFailed({
      deployment,
      kind: "status",
      status: 503,
      retryAfterMs: 4000,
      detail: "HTTP status 503."
    }),
    status: 502,
    type: "server_error",
    code: "upstream_failed",
    param: null,
    headers: { "retry-after": "4" }
  },
  {
    reason: new InferenceError.UpstreamTimeout({ deployment, phase: "stall", afterMs: 5000 }),
    status: 504,
    type: "server_error",
    code: "upstream_timeout",
    param: null,
    headers: {}
  },
  {
    reason: new InferenceError.RateLimited({ deployment, retryAfterMs: 1500 }),
    status: 429,
    type: "rate_limit_error",
    code: "rate_limit_exceeded",
    param: null,
    headers: { "retry-after": "2" }
  },
  {
    reason: new InferenceError.AuthenticationFailed({ deployment, status: 401 }),
    status: 502,
    type: "server_error",
    code: "upstream_authentication_failed",
    param: null,
    headers: {}
  },
  {
    reason: new InferenceError.AuthenticationFailed({ deployment, status: 429, quota: true }),
    status: 429,
    type: "insufficient_quota",
    code: "insufficient_quota",
    param: null,
    headers: { "x-should-retry": "false" }
  },
  {
    reason: new InferenceError.UpstreamFailed({ deployment, kind: "status", status: 529, detail: "Overloaded." }),
    status: 503,
    type: "server_error",
    code: "upstream_overloaded",
    param: null,
    headers: {}
  },
  {
    reason: new InferenceError.Unauthenticated({ problem: "unknown" }),
    status: 401,
    type: "invalid_request_error",
    code: "invalid_api_key",
    param: null,
    headers: { "www-authenticate": "Bearer" }
  },
  {
    reason: new InferenceError.Forbidden({ model: "chat", detail: "Its models: a." }),
    status: 403,
    type: "invalid_request_error",
    code: "model_not_found",
    param: "model",
    headers: {}
  },
  {
    reason: new InferenceError.Forbidden({ detail: "No." }),
    status: 403,
    type: "invalid_request_error",
    code: "forbidden",
    param: null,
    headers: {}
  },
  {
    reason: new InferenceError.LimitExceeded({ ...limitExceeded, retryAfterMs: 1500 }),
    status: 429,
    type: "rate_limit_error",
    code: "rate_limit_exceeded",
    param: null,
    headers: { "retry-after": "2" }
  },
  {
    reason: new InferenceError.LimitExceeded({ ...limitExceeded, needed: 101 }),
    status: 429,
    type: "rate_limit_error",
    code: "rate_limit_exceeded",
    param: null,
    headers: { "x-should-retry": "false" }
  },
  {
    reason: new InferenceError.BudgetExceeded(budgetExceeded),
    status: 429,
    type: "insufficient_quota",
    code: "insufficient_quota",
    param: null,
    headers: { "x-should-retry": "false" }
  },
  {
    reason: new InferenceError.ContentRefused({ deployment, detail: "Not this." }),
    status: 400,
    type: "invalid_request_error",
    code: "content_policy_violation",
    param: null,
    headers: {}
  },
  {
    reason: new InferenceError.NotSupported({ deployment, path: "topP", detail: "It has none." }),
    status: 400,
    type: "invalid_request_error",
    code: "not_supported",
    param: "top_p",
    headers: {}
  },
  {
    reason: new InferenceError.CircuitOpen({ deployment, retryAfterMs: 60_000 }),
    status: 503,
    type: "server_error",
    code: "circuit_open",
    param: null,
    headers: { "retry-after": "60" }
  },
  {
    reason: new InferenceError.NoDeployment({ model: "chat", excluded: [], retryAfterMs: 1000 }),
    status: 503,
    type: "server_error",
    code: "no_deployment",
    param: null,
    headers: { "retry-after": "1" }
  },
  {
    reason: new InferenceError.ModelLoadFailed({ deployment, detail: "The file ends too early." }),
    status: 503,
    type: "server_error",
    code: "model_load_failed",
    param: null,
    headers: {}
  },
  {
    reason: new InferenceError.EngineMissing({ deployment, packageName: "node-llama-cpp" }),
    status: 503,
    type: "server_error",
    code: "engine_missing",
    param: null,
    headers: {}
  },
  {
    reason: new InferenceError.EngineCrashed({ deployment, detail: "Exit code 134." }),
    status: 503,
    type: "server_error",
    code: "engine_crashed",
    param: null,
    headers: { "retry-after": "1" }
  },
  {
    reason: new InferenceError.HookFailed({ subject: "request" }),
    status: 503,
    type: "server_error",
    code: "input_policy_failed",
    param: null,
    headers: { "retry-after": "1" }
  },
  {
    reason: new InferenceError.EngineStopped({ deployment }),
    status: 503,
    type: "server_error",
    code: "engine_stopped",
    param: null,
    headers: { "retry-after": "1" }
  },
  {
    reason: new InferenceError.EngineFailed({ deployment, detail: "Out of memory." }),
    status: 500,
    type: "server_error",
    code: "engine_failed",
    param: null,
    headers: {}
  }
]

describe("EncodeError", () => {
  it("has a case here for every reason", () => {
    assert.strictEqual(new Set(cases.map(({ reason }) => reason._tag)).size, InferenceError.Reason.members.length)
  })

  it.each(cases.map((one) => [`${one.reason._tag}, ${one.reason.message}`, one] as const))(
    "%s",
    (_, { code, headers, param, reason, status, type }) => {
      assert.deepStrictEqual(EncodeError.fromReason(reason, FieldNames.chatErrors), {
        status,
        headers,
        // The message has the dialect's name for the field.
        body: {
          error: {
            message: reason.message.replace(/^topP(?=: )/, "top_p"),
            type,
            param,
            code,
            doc_url: `/errors/${code ?? "invalid_request"}`
          }
        }
      })
    }
  )

  it.each<[fields: ErrorNames, path: string, param: string]>([
    [FieldNames.chatErrors, "format.schema.properties.topP", "response_format.json_schema.schema.properties.topP"],
    [FieldNames.chatErrors, "format.schema", "response_format.json_schema.schema"],
    [FieldNames.chatErrors, "format.type", "response_format.type"],
    [FieldNames.chatErrors, "tools[0].parameters", "tools[0].function.parameters"],
    [FieldNames.chatErrors, "tools[12].parameters.properties.x", "tools[12].function.parameters.properties.x"],
    [FieldNames.chatErrors, "tools", "tools"],
    [FieldNames.chatErrors, "tools[2].parameters.type", "tools[2].function.parameters.type"],
    [FieldNames.chatErrors, "tools[2].function.name", "tools[2].function.name"],
    [FieldNames.chatErrors, "tools[2].type", "tools[2].type"],
    [FieldNames.chatErrors, "toolChoice.name", "tool_choice.function.name"],
    [FieldNames.chatErrors, "toolChoice", "tool_choice"],
    [FieldNames.chatErrors, "logitBias.5", "logit_bias.5"],
    [FieldNames.chatErrors, "logprobs", "logprobs"],
    [FieldNames.chatErrors, "messages[3].toolCallId", "messages[3].tool_call_id"],
    [FieldNames.chatErrors, "messages[1].toolCalls[0].arguments", "messages[1].tool_calls[0].function.arguments"],
    [FieldNames.chatErrors, "messages[1].toolCalls[0].id", "messages[1].tool_calls[0].id"],
    [FieldNames.chatErrors, "messages[1].content", "messages[1].content"],
    [FieldNames.chatErrors, "topP", "top_p"],
    [FieldNames.chatErrors, "topK", "top_k"],
    [FieldNames.chatErrors, "minP", "min_p"],
    [FieldNames.chatErrors, "repeatPenalty", "repeat_penalty"],
    [FieldNames.chatErrors, "frequencyPenalty", "frequency_penalty"],
    [FieldNames.chatErrors, "presencePenalty", "presence_penalty"],
    [FieldNames.chatErrors, "keepAlive", "keep_alive"],
    [FieldNames.chatErrors, "maxTokens", "max_completion_tokens"],
    [FieldNames.chatErrors, "stop[0]", "stop[0]"],
    [FieldNames.chatErrors, "model", "model"],
    [FieldNames.textErrors, "inputs[1]", "input[1]"],
    [FieldNames.textErrors, "model", "model"],
    [FieldNames.rerankErrors, "documents[0]", "documents[0]"],
    [FieldNames.tokenizeErrors, "input", "prompt"],
    [FieldNames.tokenizeErrors, "input.messages[0].toolCallId", "messages[0].tool_call_id"],
    [FieldNames.tokenizeErrors, "input.tools[0].parameters", "tools[0].function.parameters"],
    [FieldNames.tokenizeErrors, "model", "model"]
  ])("%j renames %s to %s", (fields, path, param) => {
    const { error } = EncodeError.fromReason(new InferenceError.InvalidRequest({ detail: "Wrong", path }), fields).body
    assert.deepInclude(error, { param, message: `${param}: Wrong` })
  })

  it("has the endpoint's name of every field with the problem", () => {
    const reason = new InferenceError.InvalidRequest({ detail: "Wrong", path: "tools", alsoAt: ["format", "logprobs"] })
    const { error } = EncodeError.fromReason(reason, FieldNames.chatErrors).body
    assert.deepInclude(error, { param: "tools", message: "tools, response_format, logprobs: Wrong" })
  })

  it("keeps paths of the caller's body", () => {
    const fields = ["topP", "format", "assistantPrefix", "route", "tools[0].name", "messages[0].content[0].source"]
    for (const path of fields) {
      const reason = new InferenceError.InvalidRequest({ detail: "Unknown field.", path, inBody: true })
      const { error } = EncodeError.fromReason(reason, FieldNames.chatErrors).body
      assert.deepInclude(error, { param: path, message: `${path}: Unknown field.` })
    }
  })

  it("has the endpoint's name of the field that exceeds the context window", () => {
    const reason = new InferenceError.ContextLengthExceeded({ model: "m", promptTokens: 9, contextWindow: 8 })
    const { chatErrors, rerankErrors, textErrors, tokenizeErrors } = FieldNames
    assert.deepStrictEqual(
      [chatErrors, textErrors, rerankErrors, tokenizeErrors].map((names) =>
        EncodeError.fromReason(reason, names).body.error.param
      ),
      ["messages", "input", "documents", "prompt"]
    )
  })

  it("encodes every body in the described shape", () => {
    for (const { reason } of cases) {
      const { body } = EncodeError.fromReason(reason, FieldNames.chatErrors)
      const received: unknown = JSON.parse(JSON.stringify(body))
      assert.deepStrictEqual(Schema.decodeUnknownSync(ErrorBody, { onExcessProperty: "error" })(received), body)
    }
  })

  it("has no parameter and no headers unless they are given", () => {
    assert.deepStrictEqual(
      EncodeError.make("Too large.", { status: 413, type: "invalid_request_error", code: "request_too_large" }),
      {
        status: 413,
        headers: {},
        body: {
          error: {
            message: "Too large.",
            type: "invalid_request_error",
            param: null,
            code: "request_too_large",
            doc_url: "/errors/request_too_large"
          }
        }
      }
    )
    const given = EncodeError.make("Stopping.", {
      status: 503,
      type: "server_error",
      code: null,
      param: "model",
      headers: { connection: "close" }
    })
    assert.deepStrictEqual(given.headers, { connection: "close" })
    assert.strictEqual(given.body.error.param, "model")
  })
})
