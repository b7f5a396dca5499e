import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { classify } from "../../src/domain/FailureClass.ts"
import * as InferenceError from "../../src/domain/InferenceError.ts"
import { budgetExceeded, limitExceeded } from "../support/Refusals.ts"

const deployment = "d"
const detail = "It broke."

const status = (status: number, retryAfterMs?: number) =>
  new InferenceError.UpstreamFailed({
    deployment,
    kind: "status",
    status,
    detail,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs })
  })

const kind = (kind: InferenceError.UpstreamFailed["kind"]) =>
  new InferenceError.UpstreamFailed({ deployment, kind, detail })

const tooLong = (promptTokens: number) =>
  new InferenceError.ContextLengthExceeded({ model: "m", promptTokens, contextWindow: 100 })

/** `retry` and `next`, then `circuit` if it counts against the circuit, and `shared` if one event fails all calls in flight. */
const short = (reason: InferenceError.Reason): string => {
  const { countsAgainstCircuit, isShared, next, retry } = classify(reason)
  return [retry, next, ...(countsAgainstCircuit ? ["circuit"] : []), ...(isShared ? ["shared"] : [])].join(" ")
}

describe("classify", () => {
  it("retries transient failures only", () => {
    const classes = [400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 520, 522, 524, 529, 501]
      .map((code) => `${code}: ${short(status(code))}`)
    assert.deepStrictEqual(classes, [
      "400: no none",
      "401: no ordinary circuit",
      "402: no ordinary",
      "403: no ordinary circuit",
      "404: no ordinary circuit",
      "408: backoff ordinary circuit",
      "413: no none",
      "422: no none",
      "429: lastResort ordinary",
      "500: backoff ordinary circuit",
      "502: backoff ordinary circuit",
      "503: backoff ordinary circuit",
      "504: backoff ordinary circuit",
      "520: backoff ordinary circuit",
      "522: backoff ordinary circuit",
      "524: backoff ordinary circuit",
      "529: backoff ordinary circuit",
      "501: no ordinary circuit"
    ])
  })

  it("classifies every reason", () => {
    const reasons: ReadonlyArray<readonly [InferenceError.Reason, string]> = [
      [new InferenceError.InvalidRequest({ detail }), "no none"],
      [new InferenceError.ModelNotFound({ model: "m", available: [] }), "no none"],
      [tooLong(100), "no context"],
      [new InferenceError.QueueFull({ deployment, limit: 1, retryAfterMs: 1 }), "no ordinary"],
      [new InferenceError.Overloaded({ retryAfterMs: 1 }), "no none"],
      [new InferenceError.DeploymentDown({ deployment, detail, retryAfterMs: 1 }), "no ordinary"],
      [new InferenceError.InsufficientMemory({ deployment, neededBytes: 2, availableBytes: 1 }), "no ordinary"],
      [new InferenceError.EngineHung({ deployment, afterMs: 1 }), "lastResort ordinary circuit shared"],
      [new InferenceError.ModelLoadFailed({ deployment, detail }), "no ordinary circuit shared"],
      [new InferenceError.EngineMissing({ deployment, packageName: "p" }), "no ordinary circuit"],
      [new InferenceError.EngineCrashed({ deployment, detail }), "backoff ordinary circuit shared"],
      [new InferenceError.EngineStopped({ deployment }), "no none"],
      [new InferenceError.EngineFailed({ deployment, detail }), "no ordinary circuit"],
      [kind("network"), "backoff ordinary circuit shared"],
      [kind("cut"), "lastResort ordinary circuit shared"],
      [kind("empty"), "lastResort ordinary circuit"],
      [kind("malformed"), "no ordinary circuit"],
      [kind("too_large"), "no ordinary circuit"],
      [kind("redirect"), "no ordinary circuit"],
      [new InferenceError.UpstreamTimeout({ deployment, phase: "stall", afterMs: 1 }), "lastResort ordinary circuit"],
      [
        new InferenceError.UpstreamTimeout({ deployment, phase: "total", afterMs: 1, byCaller: true }),
        "lastResort ordinary"
      ],
      [new InferenceError.RateLimited({ deployment }), "lastResort ordinary"],
      [new InferenceError.Unauthenticated({ problem: "missing" }), "no none"],
      [new InferenceError.Forbidden({ detail }), "no none"],
      [new InferenceError.LimitExceeded(limitExceeded), "no none"],
      [new InferenceError.BudgetExceeded(budgetExceeded), "no none"],
      [new InferenceError.AuthenticationFailed({ deployment }), "no ordinary circuit"],
      [new InferenceError.AuthenticationFailed({ deployment, retryAfterMs: 1 }), "no ordinary"],
      [new InferenceError.ContentRefused({ deployment, detail }), "no content"],
      [new InferenceError.HookFailed({ subject: "request" }), "no none"],
      [new InferenceError.NotSupported({ deployment, path: "tools", detail }), "no ordinary"],
      [new InferenceError.CircuitOpen({ deployment, retryAfterMs: 1 }), "lastResort ordinary"],
      [new InferenceError.NoDeployment({ model: "m", excluded: [] }), "no none"]
    ]
    for (const [reason, expected] of reasons) assert.strictEqual(short(reason), expected, reason._tag)
    const known = InferenceError.Reason.members.map((member) => member.fields._tag.schema.literal)
    assert.deepStrictEqual([...new Set(reasons.map(([reason]) => reason._tag))].toSorted(), known.toSorted())
  })

  it("is documented: what is retried at once, and what only where no other deployment is free", () => {
    const rows = readFileSync("docs/routing.md", "utf8").split("\n").filter((line) => line.startsWith("| "))
    const failuresOf = (next: string) => rows.find((row) => row.split("|")[2]!.startsWith(next))?.split("|")[1] ?? ""
    const retried = failuresOf(" the same deployment after a backoff")
    const lastResort = failuresOf(
      " the next deployment at once; where none is free, the same deployment after a backoff"
    )
    for (const code of [408, 500, 502, 503, 504, 520, 524, 529]) {
      assert.strictEqual(classify(status(code)).retry, "backoff")
      assert.include(retried, String(code))
    }
    for (const failure of ["timeout", "breaks off", "empty", "hangs"]) {
      assert.notInclude(retried, failure)
      assert.include(lastResort, failure)
    }
  })

  it("shortens the answer only if the prompt is shorter than the window", () => {
    assert.strictEqual(classify(tooLong(99)).adjust, "shorter")
    assert.strictEqual(classify(tooLong(100)).adjust, undefined)
  })

  it("lowers the priority after a rate limit", () => {
    assert.strictEqual(classify(new InferenceError.RateLimited({ deployment })).adjust, "low-priority")
    assert.strictEqual(classify(status(429)).adjust, "low-priority")
  })

  it("keeps the wait that the provider requests", () => {
    assert.strictEqual(classify(status(503, 7_000)).retryAfterMs, 7_000)
    assert.strictEqual(classify(new InferenceError.RateLimited({ deployment, retryAfterMs: 5 })).retryAfterMs, 5)
    assert.strictEqual(classify(status(503)).retryAfterMs, undefined)
  })
})
