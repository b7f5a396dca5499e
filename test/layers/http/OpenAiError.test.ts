import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as OpenAiError from "../../../src/layers/http/OpenAiError.ts"
import * as InferenceError from "../../../src/services/InferenceError.ts"
import { ErrorBody } from "../../../src/services/OpenAi.ts"

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

describe("OpenAiError", () => {
  it("there is a case here for every reason", () => {
    assert.strictEqual(new Set(cases.map(({ reason }) => reason._tag)).size, InferenceError.Reason.members.length)
  })

  it.each(cases.map((one) => [`${one.reason._tag}, ${one.reason.message}`, one] as const))(
    "%s",
    (_, { code, headers, param, reason, status, type }) => {
      assert.deepStrictEqual(OpenAiError.fromReason(reason), {
        status,
        headers,
        body: { error: { message: reason.message, type, param, code } }
      })
    }
  )

  it("every body is of the described shape", () => {
    for (const { reason } of cases) {
      const { body } = OpenAiError.fromReason(reason)
      const received: unknown = JSON.parse(JSON.stringify(body))
      assert.deepStrictEqual(Schema.decodeUnknownSync(ErrorBody, { onExcessProperty: "error" })(received), body)
    }
  })

  it("an error of the service's own has no parameter and no headers unless they are given", () => {
    assert.deepStrictEqual(
      OpenAiError.make("Too large.", { status: 413, type: "invalid_request_error", code: "request_too_large" }),
      {
        status: 413,
        headers: {},
        body: {
          error: { message: "Too large.", type: "invalid_request_error", param: null, code: "request_too_large" }
        }
      }
    )
    const given = OpenAiError.make("Stopping.", {
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
