import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Logger, References } from "effect"
import { TestClock } from "effect/testing"
import * as Defaults from "../../../src/domain/Defaults.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import * as AttemptLog from "../../../src/services/observability/AttemptLog.ts"
import { world } from "../../support/Routing.ts"

const secret = "the prompt"
const failed = (status: number) =>
  new InferenceError.UpstreamFailed({ deployment: "a#0", kind: "status", status, detail: secret })

/** The log's lines, with their levels. */
const logged = () => {
  const lines: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    lines.push(`${logLevel} ${String(message)}`)
  })
  const layer = Layer.merge(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel, "Debug"))
  return { lines, layer }
}

const reasons: ReadonlyArray<readonly [string, InferenceError.Reason]> = [
  ["Warn An attempt at \"a#0\" failed (UpstreamFailed, HTTP status 503)", failed(503)],
  [
    "Warn An attempt at \"a#0\" failed (UpstreamFailed, network)",
    new InferenceError.UpstreamFailed({ deployment: "a#0", kind: "network", detail: secret })
  ],
  [
    "Warn An attempt at \"a#0\" failed (UpstreamTimeout, stall after 5 ms)",
    new InferenceError.UpstreamTimeout({ deployment: "a#0", phase: "stall", afterMs: 5 })
  ],
  [
    "Debug An attempt at \"a#0\" failed (UpstreamTimeout, total after 5 ms)",
    new InferenceError.UpstreamTimeout({ deployment: "a#0", phase: "total", afterMs: 5, byCaller: true })
  ],
  ["Warn An attempt at \"a#0\" failed (RateLimited)", new InferenceError.RateLimited({ deployment: "a#0" })],
  [
    "Warn An attempt at \"a#0\" failed (AuthenticationFailed, the provider rejected the API key with HTTP status 401: check the key)",
    new InferenceError.AuthenticationFailed({ deployment: "a#0", status: 401 })
  ],
  [
    "Warn An attempt at \"a#0\" failed (AuthenticationFailed, the provider's quota is used up: check the plan and billing)",
    new InferenceError.AuthenticationFailed({ deployment: "a#0", status: 402, quota: true })
  ],
  [
    "Debug An attempt at \"a#0\" failed (CircuitOpen)",
    new InferenceError.CircuitOpen({ deployment: "a#0", retryAfterMs: 1 })
  ],
  [
    "Debug An attempt at \"a#0\" failed (ContextLengthExceeded)",
    new InferenceError.ContextLengthExceeded({ model: "a" })
  ],
  [
    "Debug An attempt at \"a#0\" failed (ContentRefused)",
    new InferenceError.ContentRefused({ deployment: "a#0", detail: secret })
  ],
  ["Debug An attempt at \"a#0\" failed (InvalidRequest)", new InferenceError.InvalidRequest({ detail: secret })]
]

describe("AttemptLog", () => {
  it.effect.each(reasons)("logs without the provider's text: %s", ([line, reason]) => {
    const { layer, lines } = logged()
    return Effect.gen(function*() {
      yield* AttemptLog.make()({ deployment: "a#0", reason, decision: "dec-1", now: 0 })
      assert.deepStrictEqual(lines, [`${line}; see decision dec-1.`])
    }).pipe(Effect.provide(layer))
  })

  it.effect("logs one line for each deployment and kind in the interval, and how many it omitted", () => {
    const { layer, lines } = logged()
    const interval = Duration.toMillis(Defaults.attemptLogInterval)
    return Effect.gen(function*() {
      const log = AttemptLog.make()
      const at = (now: number, deployment = "a#0", reason: InferenceError.Reason = failed(500 + now % 5)) =>
        log({ deployment, reason, decision: "dec-1", now })
      for (let now = 0; now < interval; now += 100) yield* at(now)
      assert.lengthOf(lines, 1)
      yield* at(1, "a#1")
      yield* at(1, "a#0", new InferenceError.RateLimited({ deployment: "a#0" }))
      assert.lengthOf(lines, 3)
      yield* at(interval)
      assert.isTrue(lines[3]!.endsWith(`${interval / 100 - 1} before it were not logged.`), lines[3])
    }).pipe(Effect.provide(layer))
  })

  it.effect("logs an attempt that another deployment makes up for", () => {
    const { layer, lines } = logged()
    const models = { a: [{ fails: { reason: failed(501) } }, {}] }
    return Effect.gen(function*() {
      for (let call = 0; call < 9; call++) {
        const inference = yield* Inference
        yield* inference.generate({ model: "a", messages: [{ role: "user", content: secret }] })
      }
      yield* TestClock.adjust(1)
      assert.lengthOf(lines.filter((line) => line.startsWith("Warn An attempt at \"a#0\" failed")), 1)
      assert.notInclude(lines.join("\n"), secret)
    }).pipe(Effect.provide(Layer.provideMerge(world({ models }).layer, layer)))
  })
})
