/** The adaptive limit of a deployment in use: what it holds back, and what its attempts show it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import * as App from "../../../src/App.ts"
import type { MaxConcurrent } from "../../../src/domain/AdaptiveConcurrency.ts"
import type { Deployment } from "../../../src/domain/Deployment.ts"
import type { Reason } from "../../../src/domain/InferenceError.ts"
import { RateLimited, UpstreamFailed, UpstreamTimeout } from "../../../src/domain/InferenceError.ts"
import * as Time from "../../../src/domain/Time.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import type { AttemptEnd } from "../../../src/services/models/ConcurrencyLimiter.ts"
import { ConcurrencyLimiter, ObservedAttempt } from "../../../src/services/models/ConcurrencyLimiter.ts"
import { Models } from "../../../src/services/models/Models.ts"
import { deployment } from "../../support/Deployments.ts"
import { hold, scriptedEngines, settle, statusOf, workFor } from "../../support/ScriptedEngines.ts"

const remote = (maxConcurrent: MaxConcurrent, model = "m") =>
  deployment("a", { options: { engine: "remote", provider: "openai", model, maxConcurrent } })

const bounds = { min: 1, max: 64, initial: 4 }

const adaptive = remote({ adaptive: true, ...bounds })

const engines = () =>
  scriptedEngines({ wrap: (engine) => ({ ...engine, describe: { ...engine.describe, slots: bounds.max } }) })

const rejection = new RateLimited({ deployment: "a" })

const ended = (reason?: Reason): AttemptEnd => ({
  verdict: reason === undefined ? "success" : "left",
  reason,
  tokens: 0
})

/** The limit after one attempt that ended so. */
const limitAfter = (end: AttemptEnd) => {
  const limiter = new ConcurrencyLimiter({ ...bounds, initial: 40 }, () => {})
  new ObservedAttempt(limiter, { startedAt: 0, inFlight: 40 }).end(end, 1)
  return limiter.limit
}

describe("a deployment with an adaptive limit", () => {
  it.effect("runs as many requests as the limit, and others when it is raised or one ends", () =>
    Effect.gen(function*() {
      const models = yield* Models
      const callers = yield* Effect.forEach(Array.from({ length: 6 }), () => workFor(adaptive, "10 seconds"))
      yield* settle
      assert.deepInclude(yield* statusOf(adaptive), { running: 4, queued: 2, limit: 4 })
      assert.deepStrictEqual(models.snapshot("a"), { state: "ready", queued: 2, limit: 4 })
      // Short answers with every slot in use.
      for (let count = 0; count < 40; count++) {
        const attempt = models.observe!("a")!
        yield* TestClock.adjust(1)
        attempt.content(yield* Time.now)
      }
      yield* settle
      assert.isAtLeast((yield* statusOf(adaptive)).limit!, 5)
      assert.isAtLeast((yield* statusOf(adaptive)).running, 5)
      yield* TestClock.adjust("20 seconds")
      yield* Fiber.joinAll(callers)
    }).pipe(Effect.provide(engines().layer)))

  it.effect("always runs one request", () =>
    Effect.gen(function*() {
      const models = yield* Models
      yield* workFor(adaptive, "1 second")
      yield* TestClock.adjust("1 second")
      for (let count = 0; count < 50; count++) {
        const attempt = models.observe!("a")!
        yield* TestClock.adjust(1)
        attempt.end(ended(rejection), yield* Time.now)
      }
      assert.strictEqual((yield* statusOf(adaptive)).limit, 1)
      yield* hold(adaptive)
      yield* settle
      assert.deepInclude(yield* statusOf(adaptive), { running: 1, queued: 0 })
    }).pipe(Effect.provide(engines().layer)))

  it.effect("has no limit of its own where the limit is a number", () =>
    Effect.gen(function*() {
      const models = yield* Models
      const plain = remote(8)
      yield* hold(plain)
      yield* settle
      assert.isUndefined(models.observe!("a"))
      assert.notProperty(yield* statusOf(plain), "limit")
    }).pipe(Effect.provide(engines().layer)))

  it.effect("keeps its limit when it is unchanged or has other bounds, and begins anew for another model", () =>
    Effect.gen(function*() {
      const models = yield* Models
      yield* workFor(adaptive, "1 second")
      yield* TestClock.adjust("1 second")
      models.observe!("a")!.end(ended(rejection), yield* Time.now)
      const limit = () => models.snapshot("a").limit
      assert.strictEqual(limit(), 3)
      models.renew(remote({ adaptive: true, ...bounds, max: 32 }))
      assert.strictEqual(limit(), 3)
      models.renew(remote({ adaptive: true, min: 8, max: 32 }))
      assert.strictEqual(limit(), 8)
      models.renew(remote({ adaptive: true, ...bounds }, "other"))
      assert.strictEqual(limit(), 4)
      models.renew(remote(7))
      assert.isUndefined(limit())
    }).pipe(Effect.provide(engines().layer)))
})

describe("a replaced deployment", () => {
  const runningAfter = (before: Deployment, after: Deployment) =>
    Effect.gen(function*() {
      const models = yield* Models
      yield* Effect.forEach(Array.from({ length: 12 }), () => workFor(before, "10 seconds"))
      yield* settle
      yield* models.replace(after)
      yield* settle
      const { running } = yield* statusOf(after)
      yield* TestClock.adjust("60 seconds")
      assert.deepInclude(yield* statusOf(after), { running: 0, queued: 0 })
      return running
    })

  it.effect("has its limit together with its requests from before at the same provider, and all are answered", () =>
    Effect.gen(function*() {
      for (const limit of [adaptive, remote(4)]) {
        const layer = scriptedEngines({ wrap: (engine) => ({ ...engine, describe: { ...engine.describe, slots: 4 } }) })
          .layer
        const priced = { ...limit, weight: 2 }
        assert.strictEqual(yield* Effect.provide(runningAfter(limit, priced), layer), 4)
        const other = remote(4, "other")
        assert.isAbove(yield* Effect.provide(runningAfter(limit, other), layer), 4)
      }
    }))
})

describe("an attempt", () => {
  it("lowers the limit if the deployment has too many requests, and not by another failure", () => {
    const status = (status: number) => new UpstreamFailed({ deployment: "a", kind: "status", status, detail: "" })
    const timeout = (phase: UpstreamTimeout["phase"]) => new UpstreamTimeout({ deployment: "a", phase, afterMs: 1 })
    const lowering = [rejection, status(429), status(503), status(529), timeout("first_byte"), timeout("first_token")]
    assert.deepStrictEqual(lowering.map((reason) => limitAfter(ended(reason))), lowering.map(() => 36))
    const others = [
      new RateLimited({ deployment: "a", cached: true }),
      status(500),
      status(404),
      timeout("connect"),
      new UpstreamFailed({ deployment: "a", kind: "network", detail: "refused" }),
      new UpstreamTimeout({ deployment: "a", phase: "first_token", afterMs: 1, byCaller: true })
    ]
    assert.deepStrictEqual(others.map((reason) => limitAfter(ended(reason))), others.map(() => 40))
  })

  it("shows the time to its first token, else that of a token, else its own", () => {
    const seen: Array<unknown> = []
    const limiter = Object.assign(Object.create(ConcurrencyLimiter.prototype) as ConcurrencyLimiter, {
      observe: (sample: object) => void seen.push(sample)
    })
    const attempt = () => new ObservedAttempt(limiter, { startedAt: 100, inFlight: 2 })
    const streamed = attempt()
    streamed.content(130)
    streamed.content(140)
    streamed.end({ ...ended(), tokens: 50 }, 900)
    attempt().end({ ...ended(), tokens: 50 }, 900)
    attempt().end(ended(), 150)
    const shared = { startedAt: 100, inFlight: 2, type: "latency" }
    assert.deepStrictEqual(seen, [
      { ...shared, measure: "firstToken", ms: 30 },
      { ...shared, measure: "perToken", ms: 800, tokens: 50 },
      { ...shared, measure: "whole", ms: 50, tokens: 0 }
    ])
  })
})

describe("a service", () => {
  it.live("lowers the limit of a provider that rejects, streamed and buffered, and runs at most as many requests", () =>
    Effect.gen(function*() {
      let running = 0
      let most = 0
      const server = createServer((request, response) => {
        most = Math.max(most, ++running)
        response.on("close", () => running--)
        request.resume().on("end", () =>
          setTimeout(() => {
            response.writeHead(503, { "content-type": "application/json" }).end(
              "{\"error\":{\"message\":\"Overloaded\"}}"
            )
          }, 5))
      })
      yield* Effect.acquireRelease(
        Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
        () => Effect.sync(() => server.close())
      )
      const { port } = server.address() as AddressInfo
      const config: NonNullable<App.Options["config"]> = {
        policies: { default: { retries: 0, maxWait: false } },
        models: {
          m: {
            deployments: [{
              provider: "openai",
              model: "m",
              baseUrl: `http://127.0.0.1:${port}/v1`,
              maxConcurrent: { adaptive: true, initial: 10 }
            }]
          }
        }
      }
      yield* Effect.gen(function*() {
        const { generate, stream } = yield* Inference
        const models = yield* Models
        const request = { model: "m", messages: [{ role: "user", content: "Hello" }] } as const
        const ask = (index: number) =>
          Effect.exit(index % 2 === 0 ? generate(request) : Stream.runDrain(stream(request)))
        yield* Effect.forEach(Array.from({ length: 60 }, (_, index) => index), ask, { concurrency: 30 })
        assert.isBelow(models.snapshot("m#0").limit!, 10)
        assert.isAtMost(most, 10)
      }).pipe(Effect.provide(App.layer({ config })))
    }).pipe(Effect.scoped))
})
