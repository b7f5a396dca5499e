import { assert, describe, it } from "@effect/vitest"
import { classify } from "../../src/domain/FailureClass.ts"
import * as InferenceError from "../../src/domain/InferenceError.ts"

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

/** again, next, and then `counts` where it counts against the circuit, `once` where once for all calls in flight. */
const short = (reason: InferenceError.Reason): string => {
  const { again, counts, next, shared } = classify(reason)
  return [again, next, ...(counts ? ["counts"] : []), ...(shared ? ["once"] : [])].join(" ")
}

describe("Retry", () => {
  it("tries again what passes by itself, and never what will not", () => {
    const verdicts = [400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 520, 522, 524, 529, 501]
      .map((code) => `${code}: ${short(status(code))}`)
    assert.deepStrictEqual(verdicts, [
      "400: never nobody",
      "401: never ordinary counts",
      "402: never ordinary",
      "403: never ordinary counts",
      "404: never ordinary counts",
      "408: soon ordinary counts",
      "413: never nobody",
      "422: never nobody",
      "429: last ordinary",
      "500: soon ordinary counts",
      "502: soon ordinary counts",
      "503: soon ordinary counts",
      "504: soon ordinary counts",
      "520: soon ordinary counts",
      "522: soon ordinary counts",
      "524: soon ordinary counts",
      "529: soon ordinary counts",
      "501: never ordinary counts"
    ])
  })

  it("knows what to do about every reason", () => {
    const reasons: ReadonlyArray<readonly [InferenceError.Reason, string]> = [
      [new InferenceError.InvalidRequest({ detail }), "never nobody"],
      [new InferenceError.ModelNotFound({ model: "m", available: [] }), "never nobody"],
      [tooLong(100), "never context"],
      [new InferenceError.QueueFull({ deployment, limit: 1, retryAfterMs: 1 }), "never ordinary"],
      [new InferenceError.Overloaded({ retryAfterMs: 1 }), "never nobody"],
      [new InferenceError.DeploymentDown({ deployment, detail, retryAfterMs: 1 }), "never ordinary"],
      [new InferenceError.InsufficientMemory({ deployment, neededBytes: 2, availableBytes: 1 }), "never ordinary"],
      [new InferenceError.EngineHung({ deployment, afterMs: 1 }), "last ordinary counts once"],
      [new InferenceError.ModelLoadFailed({ deployment, detail }), "never ordinary counts once"],
      [new InferenceError.EngineMissing({ deployment, packageName: "p" }), "never ordinary counts"],
      [new InferenceError.EngineCrashed({ deployment, detail }), "soon ordinary counts once"],
      [new InferenceError.EngineStopped({ deployment }), "never nobody"],
      [new InferenceError.EngineFailed({ deployment, detail }), "never ordinary counts"],
      [kind("network"), "soon ordinary counts once"],
      [kind("cut"), "last ordinary counts once"],
      [kind("empty"), "last ordinary counts"],
      [kind("malformed"), "never ordinary counts"],
      [kind("too_large"), "never ordinary counts"],
      [kind("redirect"), "never ordinary counts"],
      [new InferenceError.UpstreamTimeout({ deployment, phase: "stall", afterMs: 1 }), "last ordinary counts"],
      [
        new InferenceError.UpstreamTimeout({ deployment, phase: "total", afterMs: 1, byCaller: true }),
        "last ordinary"
      ],
      [new InferenceError.RateLimited({ deployment }), "last ordinary"],
      [new InferenceError.AuthenticationFailed({ deployment }), "never ordinary counts"],
      [new InferenceError.AuthenticationFailed({ deployment, retryAfterMs: 1 }), "never ordinary"],
      [new InferenceError.ContentRefused({ deployment, detail }), "never content"],
      [new InferenceError.NotSupported({ deployment, path: "tools", detail }), "never ordinary"],
      [new InferenceError.CircuitOpen({ deployment, retryAfterMs: 1 }), "never ordinary"],
      [new InferenceError.NoDeployment({ model: "m", ruledOut: [] }), "never nobody"]
    ]
    for (const [reason, expected] of reasons) assert.strictEqual(short(reason), expected, reason._tag)
    const known = InferenceError.Reason.members.map((member) => member.fields._tag.schema.literal)
    assert.deepStrictEqual([...new Set(reasons.map(([reason]) => reason._tag))].toSorted(), known.toSorted())
  })

  it("asks for a shorter answer only where the prompt leaves room for one", () => {
    assert.strictEqual(classify(tooLong(99)).adjust, "shorter")
    assert.strictEqual(classify(tooLong(100)).adjust, undefined)
  })

  it("goes last among the waiting after a rate limit", () => {
    assert.strictEqual(classify(new InferenceError.RateLimited({ deployment })).adjust, "low-priority")
    assert.strictEqual(classify(status(429)).adjust, "low-priority")
  })

  it("passes on when to come back", () => {
    assert.strictEqual(classify(status(503, 7_000)).retryAfterMs, 7_000)
    assert.strictEqual(classify(new InferenceError.RateLimited({ deployment, retryAfterMs: 5 })).retryAfterMs, 5)
    assert.strictEqual(classify(status(503)).retryAfterMs, undefined)
  })
})
