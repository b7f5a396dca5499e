/** The handlers of Ollama's API over a fake `Inference`. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import type { Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import { sourceOf } from "../../../src/layers/http/OllamaStore.ts"
import { ending, failing, withHandler } from "../../support/Handlers.ts"

const messages = [{ role: "user", content: "Hello" }]
const deployment = "m#0"
const by = { deployment, attempts: 1, decision: "d" }
const upstream = { deployment, kind: "status" as const, detail: "No." }

const errorOf = async (response: Response) => {
  const body = await response.json() as { readonly error: string }
  assert.hasAllKeys(body, ["error", "doc_url"])
  return body.error
}

describe("reasons", () => {
  it.each<[reason: InferenceError.Reason, status: number, retryAfter?: string]>([
    [new InferenceError.InvalidRequest({ detail: "Wrong", path: "maxTokens" }), 400],
    [new InferenceError.ModelNotFound({ model: "m", available: [] }), 404],
    [new InferenceError.NotSupported({ deployment, path: "topK", detail: "No." }), 400],
    [new InferenceError.ContextLengthExceeded({ model: "m", promptTokens: 9, contextWindow: 8 }), 400],
    [new InferenceError.ContentRefused({ deployment, detail: "Not this." }), 400],
    [new InferenceError.QueueFull({ deployment, limit: 8, retryAfterMs: 2500 }), 429, "3"],
    [new InferenceError.RateLimited({ deployment }), 429, "1"],
    [new InferenceError.DeploymentDown({ deployment, detail: "", retryAfterMs: 9 }), 503, "1"],
    [new InferenceError.NoDeployment({ model: "m", excluded: [] }), 503],
    [new InferenceError.EngineFailed({ deployment, detail: "Broken." }), 500],
    [new InferenceError.UpstreamFailed(upstream), 502],
    [new InferenceError.Unauthenticated({ problem: "expired" }), 401],
    [new InferenceError.Forbidden({ model: "m", detail: "Its models: a." }), 403],
    [new InferenceError.UpstreamTimeout({ deployment, phase: "total", afterMs: 5 }), 504]
  ])("%j is %d", (reason, status, retryAfter) =>
    withHandler({ inference: failing(reason) }, async (post) => {
      const calls = [
        ["/api/chat", { messages }],
        ["/api/chat", { messages, stream: false }],
        ["/api/generate", { prompt: "Hello" }],
        ["/api/embed", { input: "Hello" }],
        ["/api/embeddings", { prompt: "Hello" }]
      ] as const
      for (const [path, body] of calls) {
        const response = await post(path, { model: "m", ...body })
        assert.strictEqual(response.status, status)
        assert.strictEqual(response.headers.get("retry-after"), retryAfter ?? null)
        assert.match(response.headers.get("x-request-id")!, /^ollama-\w{22}$/)
        assert.isNotEmpty(await errorOf(response))
      }
    }))

  it("use the body's field names", () =>
    withHandler(
      { inference: failing(new InferenceError.InvalidRequest({ path: "maxTokens", detail: "Wrong" })) },
      async (post) => {
        assert.strictEqual(
          await errorOf(await post("/api/chat", { model: "m", messages })),
          "options.num_predict: Wrong"
        )
      }
    ))
})

describe("a failure outside of inference", () => {
  it("has the dialect's error format", async () => {
    const outcomeOf = async (stand: Parameters<typeof withHandler>[0], sent: unknown) =>
      withHandler(stand, async (post) => {
        const response = await post("/api/chat", sent)
        assert.notInclude(await errorOf(response), "secret words")
        return response.status
      })
    const sent = { model: "m", messages }
    assert.strictEqual(await outcomeOf({ inference: {} }, "{"), 400)
    assert.strictEqual(await outcomeOf({ inference: {}, status: "stopping" }, sent), 503)
    assert.strictEqual(await outcomeOf({ inference: ending(Effect.die(new Error("secret words"))) }, sent), 500)
    assert.strictEqual(await outcomeOf({ inference: {} }, { model: "none" }), 404)
  })

  it("ends a stream with a line of the error; a defect's message is not shown", async () => {
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
        const response = await post("/api/chat", { model: "m", messages })
        assert.strictEqual(response.status, 200)
        assert.strictEqual(response.headers.get("content-type"), "application/x-ndjson")
        assert.strictEqual(response.headers.get("x-troupe-deployment"), deployment)
        const text = await response.text()
        const lines = text.split("\n").slice(0, -1).map((line) => JSON.parse(line) as Record<string, unknown>)
        assert.hasAllKeys(lines.at(-1), ["error", "doc_url"])
        assert.isFalse(lines.some(({ done }) => done === true))
        assert.notInclude(text, "secret words")
      })
    }
  })
})

describe("the caller", () => {
  it("is identified by a bearer token, as in the other dialects", async () => {
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
      const body = { model: "m", messages, stream: false }
      for (const headers of [{}, { authorization: "Bearer one" }] as const) {
        assert.strictEqual((await post("/api/chat", body, headers)).status, 200)
      }
      await post("chat/completions", { model: "m", messages }, { authorization: "Bearer one" })
    })
    const [anonymous, one, chat] = asked.map(({ tenant }) => tenant)
    assert.isUndefined(anonymous)
    assert.isDefined(one)
    assert.strictEqual(one, chat)
  })
})

describe("a source to pull", () => {
  it.each([
    ["hf.co/org/repo:Q4_K_M", "hf:org/repo:Q4_K_M"],
    ["https://huggingface.co/org/repo", "hf:org/repo"],
    ["hf:org/repo/model.gguf", "hf:org/repo/model.gguf"],
    ["https://example.com/model.gguf", "https://example.com/model.gguf"],
    [
      "https://huggingface.co/org/repo/resolve/main/model.gguf",
      "https://huggingface.co/org/repo/resolve/main/model.gguf"
    ]
  ])("%s is %s", (model, source) => {
    assert.deepInclude(sourceOf(model), { success: source })
  })
})
