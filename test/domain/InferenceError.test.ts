import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as InferenceError from "../../src/domain/InferenceError.ts"
import { budgetExceeded, limitExceeded } from "../support/Refusals.ts"

const cases: ReadonlyArray<readonly [reason: InferenceError.Reason, figures: ReadonlyArray<string>]> = [
  [new InferenceError.InvalidRequest({ detail: "Expected an integer", path: "messages[0].content" }), [
    "messages[0].content",
    "Expected an integer"
  ]],
  [new InferenceError.InvalidRequest({ detail: "The body is not JSON" }), ["The body is not JSON"]],
  [new InferenceError.ModelNotFound({ model: "gpt-x", available: ["tiny-chat", "fake/a"] }), [
    "\"gpt-x\"",
    "tiny-chat, fake/a"
  ]],
  [new InferenceError.ModelNotFound({ model: "gpt-x", available: [] }), ["\"gpt-x\"", "No model is configured"]],
  [new InferenceError.ContextLengthExceeded({ model: "tiny-chat", promptTokens: 5000, contextWindow: 4096 }), [
    "\"tiny-chat\"",
    "5000",
    "4096",
    "Shorten the prompt"
  ]],
  [new InferenceError.QueueFull({ deployment: "tiny-chat#0", limit: 512, retryAfterMs: 2500 }), [
    "\"tiny-chat#0\"",
    "512",
    "Retry in 3 s"
  ]],
  [new InferenceError.Overloaded({ retryAfterMs: 30_000 }), ["30 s", "low priority"]],
  [new InferenceError.DeploymentDown({ deployment: "tiny-chat#0", detail: "Exit code 134.", retryAfterMs: 30_000 }), [
    "\"tiny-chat#0\"",
    "Exit code 134.",
    "30 s"
  ]],
  [
    new InferenceError.InsufficientMemory({
      deployment: "tiny-chat#0",
      neededBytes: 3 * 2 ** 30,
      availableBytes: 2 ** 30
    }),
    ["\"tiny-chat#0\"", "3072 MiB", "1024 MiB", "smaller variant"]
  ],
  [new InferenceError.EngineHung({ deployment: "tiny-chat#0", afterMs: 120_000 }), ["\"tiny-chat#0\"", "120 s"]],
  [
    new InferenceError.UpstreamFailed({ deployment: "far#0", kind: "status", status: 502, detail: "HTTP status 502." }),
    ["\"far#0\"", "HTTP status 502."]
  ],
  [new InferenceError.UpstreamTimeout({ deployment: "far#0", phase: "first_token", afterMs: 5000 }), [
    "\"far#0\" took longer",
    "5000 ms",
    "first token"
  ]],
  [new InferenceError.RateLimited({ deployment: "far#0", retryAfterMs: 2500 }), ["\"far#0\"", "Retry in 3 s"]],
  [new InferenceError.Unauthenticated({ problem: "missing" }), ["`Authorization: Bearer KEY`", "`x-api-key: KEY`"]],
  [new InferenceError.Unauthenticated({ problem: "unknown" }), ["not a key of this service", "Check the key."]],
  [new InferenceError.Unauthenticated({ problem: "expired" }), ["has expired"]],
  [new InferenceError.Unauthenticated({ problem: "revoked" }), ["has been revoked"]],
  [new InferenceError.LimitExceeded({ ...limitExceeded, retryAfterMs: 1500 }), [
    "limit of 100 requests per hour",
    "user ada",
    "0 left",
    "Retry in 2 s"
  ]],
  [new InferenceError.LimitExceeded({ ...limitExceeded, limit: "parallel", most: 1 }), ["1 request at the same time"]],
  [new InferenceError.BudgetExceeded({ ...budgetExceeded, retryAfterMs: 5_400_000 }), [
    "budget of this month (user ada)",
    "9.5 USD of 10 USD spent",
    "0.25 USD reserved",
    "up to 1 USD",
    "Shorten the prompt, or raise the budget",
    "The next month begins in 2 h."
  ]],
  [new InferenceError.BudgetExceeded({ ...budgetExceeded, period: "total", measure: "tokens", reserved: 0 }), [
    "The budget (user ada)",
    "9.5 tokens of 10 tokens"
  ]],
  [new InferenceError.BudgetExceeded({ ...budgetExceeded, unpriced: "far#0" }), ["\"far#0\"", "Set the price"]],
  [new InferenceError.Forbidden({ model: "far", detail: "Its models: near*." }), ["\"far\"", "Its models: near*."]],
  [new InferenceError.AuthenticationFailed({ deployment: "far#0", status: 401 }), [
    "\"far#0\"",
    "(401)",
    "Check the key"
  ]],
  [new InferenceError.AuthenticationFailed({ deployment: "far#0", status: 429, quota: true }), [
    "The provider's quota is used up",
    "Check the plan and billing."
  ]],
  [new InferenceError.ContextLengthExceeded({ model: "far" }), ["\"far\"", "Shorten the prompt."]],
  [new InferenceError.ContentRefused({ deployment: "far#0", detail: "Not this." }), ["\"far#0\"", "Not this."]],
  [new InferenceError.HookFailed({ subject: "answer" }), ["could not check the answer", "Try again"]],
  [new InferenceError.EngineCrashed({ deployment: "local", detail: "The process has ended.", isService: true }), [
    "The process has ended. Try again."
  ]],
  [new InferenceError.NotSupported({ deployment: "far#0", path: "logprobs", detail: "It reports none." }), [
    "\"far#0\"",
    "logprobs",
    "It reports none."
  ]],
  [new InferenceError.CircuitOpen({ deployment: "far#0", retryAfterMs: 60_000 }), ["\"far#0\"", "60 s"]],
  [new InferenceError.NoDeployment({ model: "chat", excluded: [{ deployment: "far#0", reason: "too small" }] }), [
    "\"chat\"",
    "far#0: too small"
  ]],
  [
    new InferenceError.NoDeployment({
      model: "chat",
      excluded: [{ deployment: "far#0", reason: "its circuit is open" }],
      retryAfterMs: 59_001
    }),
    ["far#0: its circuit is open. Retry in 60 s."]
  ],
  [new InferenceError.ModelLoadFailed({ deployment: "tiny-chat#0", detail: "The file ends too early." }), [
    "\"tiny-chat#0\"",
    "The file ends too early."
  ]],
  [new InferenceError.EngineMissing({ deployment: "tiny-chat#0", packageName: "node-llama-cpp" }), [
    "\"tiny-chat#0\"",
    "npm install node-llama-cpp"
  ]],
  [new InferenceError.EngineCrashed({ deployment: "tiny-chat#0", detail: "Exit code 134." }), [
    "\"tiny-chat#0\"",
    "Exit code 134.",
    "Try again"
  ]],
  [new InferenceError.EngineStopped({ deployment: "tiny-chat#0" }), ["\"tiny-chat#0\"", "stopped"]],
  [new InferenceError.EngineFailed({ deployment: "tiny-chat#0", detail: "Out of memory." }), [
    "\"tiny-chat#0\"",
    "Out of memory."
  ]]
]

describe("InferenceError", () => {
  it("has a case in this table for every reason", () => {
    const tested = new Set(cases.map(([reason]) => reason._tag))
    assert.strictEqual(tested.size, InferenceError.Reason.members.length)
  })

  for (const [reason, figures] of cases) {
    describe(`${reason._tag}, ${figures[0]}`, () => {
      it("has its figures in its message", () => {
        for (const figure of figures) assert.include(reason.message, figure)
      })

      it("has a message of one line without a stack", () => {
        assert.notMatch(reason.message, /[\r\n]/)
        assert.notMatch(reason.message, /\bat \S+:\d+|\.ts\b|undefined|\[object/)
      })

      it("the error has its reason's message", () => {
        assert.strictEqual(InferenceError.make(reason).message, reason.message)
      })

      it("is equal after a JSON round trip", () => {
        const error = InferenceError.make(reason)
        const Json = Schema.fromJsonString(InferenceError.InferenceError)
        const received = Schema.decodeSync(Json)(Schema.encodeSync(Json)(error))
        assert.instanceOf(received, InferenceError.InferenceError)
        assert.strictEqual(received.reason._tag, reason._tag)
        assert.strictEqual(received.message, error.message)
      })
    })
  }

  it.each([
    ["once if an exclusion has it", { reason: "circuit open; retry in 60 s", retryAfterMs: 59_001 }, ""],
    ["by the field, not by the text", { reason: "a text; retry in a way" }, ". Retry in 60 s."]
  ])("states the wait %s", (_, exclusion, wait) => {
    const reason = new InferenceError.NoDeployment({
      model: "chat",
      excluded: [{ deployment: "far#0", ...exclusion }],
      retryAfterMs: 59_001
    })
    assert.strictEqual(
      reason.message,
      `No deployment of "chat" can take this request. far#0: ${exclusion.reason}${wait}`
    )
  })

  it("has the detail alone for a request without a path", () => {
    assert.strictEqual(new InferenceError.InvalidRequest({ detail: "No body" }).message, "No body")
  })

  it.effect("can be caught by its reason", () =>
    Effect.gen(function*() {
      const error = InferenceError.make(
        new InferenceError.ContextLengthExceeded({ model: "tiny-chat", promptTokens: 9, contextWindow: 8 })
      )
      const excess = yield* Effect.fail(error).pipe(
        Effect.catchReason(
          "InferenceError",
          "ContextLengthExceeded",
          (reason) => Effect.succeed(reason.promptTokens! - reason.contextWindow!)
        )
      )
      assert.strictEqual(excess, 1)
    }))
})
