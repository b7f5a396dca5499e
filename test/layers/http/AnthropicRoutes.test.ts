/** The handlers of the Anthropic dialect over a fake `Inference`. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import type { ErrorBody, Message } from "../../../src/dialects/anthropic/Schema.ts"
import type { Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import { ending, failing, withHandler } from "../../support/Handlers.ts"

const body = { model: "m", max_tokens: 5, messages: [{ role: "user", content: "Hello" }] }
const errorOf = async (response: Response) => (await response.json() as ErrorBody).error

const deployment = "m#0"
const by = { deployment, attempts: 1, decision: "d" }
const upstream = { deployment, kind: "status" as const, detail: "No." }

describe("reasons", () => {
  it.each<[reason: InferenceError.Reason, status: number, type: string, retryAfter?: string]>([
    [new InferenceError.InvalidRequest({ detail: "Wrong", path: "maxTokens" }), 400, "invalid_request_error"],
    [new InferenceError.ModelNotFound({ model: "m", available: [] }), 404, "not_found_error"],
    [new InferenceError.NotSupported({ deployment, path: "topK", detail: "No." }), 400, "invalid_request_error"],
    [new InferenceError.QueueFull({ deployment, limit: 8, retryAfterMs: 2500 }), 429, "rate_limit_error", "3"],
    [new InferenceError.RateLimited({ deployment }), 429, "rate_limit_error", "1"],
    [new InferenceError.Overloaded({ retryAfterMs: 10 }), 529, "overloaded_error", "1"],
    [new InferenceError.DeploymentDown({ deployment, detail: "", retryAfterMs: 9 }), 529, "overloaded_error", "1"],
    [new InferenceError.CircuitOpen({ deployment, retryAfterMs: 1001 }), 529, "overloaded_error", "2"],
    [new InferenceError.NoDeployment({ model: "m", excluded: [] }), 529, "overloaded_error"],
    [new InferenceError.EngineFailed({ deployment, detail: "Broken." }), 500, "api_error"],
    [new InferenceError.EngineCrashed({ deployment, detail: "Broken." }), 500, "api_error", "1"],
    [new InferenceError.UpstreamFailed(upstream), 500, "api_error"],
    [new InferenceError.UpstreamFailed({ ...upstream, status: 529 }), 529, "overloaded_error"],
    [new InferenceError.Unauthenticated({ problem: "expired" }), 401, "authentication_error"],
    [new InferenceError.Forbidden({ model: "m", detail: "Its models: a." }), 403, "permission_error"],
    [new InferenceError.AuthenticationFailed({ deployment }), 500, "api_error"],
    [new InferenceError.AuthenticationFailed({ deployment, quota: true }), 402, "billing_error"],
    [new InferenceError.UpstreamTimeout({ deployment, phase: "total", afterMs: 5 }), 504, "timeout_error"]
  ])("%j is %d %s", (reason, status, type, retryAfter) =>
    withHandler({ inference: failing(reason) }, async (post) => {
      for (const [path, more] of [["messages", {}], ["messages", { stream: true }]] as const) {
        const response = await post(path, { ...body, ...more })
        assert.strictEqual(response.status, status)
        assert.strictEqual(response.headers.get("retry-after"), retryAfter ?? null)
        const sent = await response.json() as ErrorBody
        assert.strictEqual(sent.type, "error")
        assert.strictEqual(sent.error.type, type)
        assert.match(sent.request_id!, /^req_\w{22}$/)
        assert.strictEqual(response.headers.get("request-id"), sent.request_id)
        assert.strictEqual(response.headers.get("x-request-id"), sent.request_id)
      }
    }))

  it("use the body's field names, and for a too long prompt the message that clients recognize", async () => {
    const messageOf = (reason: InferenceError.Reason) =>
      withHandler({ inference: failing(reason) }, async (post) => (await errorOf(await post("messages", body))).message)
    assert.strictEqual(
      await messageOf(new InferenceError.InvalidRequest({ path: "maxTokens", detail: "Wrong" })),
      "max_tokens: Wrong"
    )
    assert.strictEqual(
      await messageOf(new InferenceError.ContextLengthExceeded({ model: "m", promptTokens: 9, contextWindow: 8 })),
      "prompt is too long: 9 tokens > 8 maximum"
    )
  })
})

describe("a refusal", () => {
  const refusing = failing(new InferenceError.ContentRefused({ deployment, detail: "Not this." }))

  it("is an answer with the stop reason `refusal`, buffered and streamed", () =>
    withHandler({ inference: refusing }, async (post) => {
      const buffered = await post("messages", body)
      assert.strictEqual(buffered.status, 200)
      const { content, stop_details, stop_reason } = await buffered.json() as Message
      assert.deepStrictEqual([content, stop_reason, stop_details?.explanation], [[], "refusal", "Not this."])
      const streamed = await (await post("messages", { ...body, stream: true })).text()
      assert.include(streamed, "\"stop_reason\":\"refusal\"")
      assert.match(streamed, /event: message_stop\ndata: .*\n\n$/)
    }))
})

describe("a failure outside of inference", () => {
  it.each(["messages", "messages/count_tokens"])("POST /v1/%s has the dialect's error format", async (path) => {
    const outcomeOf = async (stand: Parameters<typeof withHandler>[0], sent: unknown) =>
      withHandler(stand, async (post) => {
        const response = await post(path, sent)
        const { message, type } = await errorOf(response)
        assert.notInclude(message, "secret words")
        assert.match(response.headers.get("request-id")!, /^req_/)
        return [response.status, type]
      })
    const { max_tokens: _, ...prompt } = body
    const sent = path === "messages" ? body : prompt
    assert.deepStrictEqual(await outcomeOf({ inference: {} }, "{"), [400, "invalid_request_error"])
    assert.deepStrictEqual(await outcomeOf({ inference: {}, status: "stopping" }, sent), [529, "overloaded_error"])
    const broken = ending(Effect.die(new Error("secret words")))
    assert.deepStrictEqual(await outcomeOf({ inference: broken }, sent), [500, "api_error"])
  })

  it("ends a stream with an error; a defect's message is not shown", async () => {
    const event = { type: "text" as const, text: "I", tokens: 1 }
    const failures = [
      Effect.fail(InferenceError.make(new InferenceError.EngineFailed({ deployment, detail: "Broken." }))),
      Effect.die(new Error("secret words"))
    ]
    for (const failure of failures) {
      const inference = {
        open: () => Effect.succeed({ ...by, events: Stream.concat(Stream.succeed(event), Stream.fromEffect(failure)) })
      }
      await withHandler({ inference }, async (post) => {
        const response = await post("messages", { ...body, stream: true })
        assert.strictEqual(response.status, 200)
        assert.strictEqual(response.headers.get("x-troupe-deployment"), deployment)
        const text = await response.text()
        assert.match(text, /event: error\ndata: \{"type":"error",.*"api_error".*\n\n$/)
        assert.include(text, response.headers.get("request-id")!)
        assert.notInclude(text, "message_stop")
        assert.notInclude(text, "secret words")
      })
    }
  })
})

describe("the caller", () => {
  it("is identified by x-api-key or a bearer token, and the key is not passed on", async () => {
    const asked: Array<Request> = []
    const inference = {
      generate: (request: Request) => {
        asked.push(request)
        return Effect.succeed({
          text: "Hi",
          toolCalls: [],
          finishReason: "stop" as const,
          usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 },
          ...by
        })
      }
    }
    await withHandler({ inference }, async (post) => {
      for (
        const headers of [{}, { "x-api-key": "one" }, { authorization: "Bearer one" }, { "x-api-key": "two" }] as const
      ) {
        assert.strictEqual((await post("messages", body, headers)).status, 200)
      }
      // In the other dialect, it is the same caller.
      await post("chat/completions", { model: "m", messages: body.messages }, { authorization: "Bearer one" })
    })
    const [anonymous, one, same, two, chat] = asked.map(({ tenant }) => tenant)
    assert.isUndefined(anonymous)
    assert.strictEqual(one, same)
    assert.strictEqual(one, chat)
    assert.notStrictEqual(one, two)
    assert.notInclude(JSON.stringify(asked), "one")
  })
})
