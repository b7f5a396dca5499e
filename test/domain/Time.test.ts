/** Intervals do not depend on the system's date, which administrators and NTP change. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber, Redacted, Stream } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import { globSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { RateLimited } from "../../src/domain/InferenceError.ts"
import * as Time from "../../src/domain/Time.ts"
import * as ResponseCacheLayer from "../../src/layers/cache/ResponseCache.ts"
import * as HangDetector from "../../src/layers/engines/HangDetector.ts"
import * as Connection from "../../src/layers/providers/Connection.ts"
import * as DeploymentKeys from "../../src/layers/providers/DeploymentKeys.ts"
import { ResponseCache } from "../../src/services/cache/ResponseCache.ts"
import * as Breaker from "../../src/services/health/Breaker.ts"
import { Inference } from "../../src/services/inference/Inference.ts"
import { Models } from "../../src/services/models/Models.ts"
import { DecisionLog } from "../../src/services/routing/DecisionLog.ts"
import { withJumps } from "../support/JumpingClock.ts"
import { world } from "../support/Routing.ts"
import { large, scriptedEngines, settle, using } from "../support/ScriptedEngines.ts"

const hour = 3_600_000

type Jump = () => void

/** Something with an interval, during which the date changes once. */
type Case = (jump: Jump) => Effect.Effect<void, unknown, Scope.Scope>

const openCircuit: Case = (jump) =>
  Effect.gen(function*() {
    const { closedFor, enter, states } = yield* Breaker.Breaker
    for (let call = 0; call < 5; call++) yield* Effect.scoped(enter("a", () => ({ verdict: "failure" })))
    jump()
    assert.strictEqual(closedFor("a", yield* Time.now), 60_000)
    yield* TestClock.adjust("59 seconds")
    assert.isTrue((yield* Effect.exit(Effect.scoped(enter("a", () => ({ verdict: "success" })))))._tag === "Failure")
    yield* TestClock.adjust("1 second")
    assert.strictEqual((yield* states)[0]!.phase, "half-open")
    yield* Effect.scoped(enter("a", () => ({ verdict: "success" })))
  }).pipe(Effect.provide(Breaker.layer))

const limitedKey: Case = (jump) =>
  Effect.gen(function*() {
    const ring = DeploymentKeys.make(
      { engine: "remote", provider: "openai", model: "m", key: Redacted.make("secret") },
      yield* DeploymentKeys.sources
    )
    const take = Effect.suspend(() => Effect.fromResult(ring.take("a", new Set())))
    const held = yield* take
    ring.note(held, new RateLimited({ deployment: "a", retryAfterMs: 30_000 }))
    jump()
    const { reason } = yield* Effect.flip(take)
    assert.deepStrictEqual(reason, new RateLimited({ deployment: "a", cached: true, retryAfterMs: 30_000 }))
    yield* TestClock.adjust("30 seconds")
    yield* take
  })

const limits: Connection.Limits = {
  connect: 1_000,
  first_byte: 3_000,
  first_token: 5_000,
  stall: 2_000,
  total: 20_000
}

const exchange: Case = (jump) =>
  Effect.gen(function*() {
    const watcher = yield* Connection.makeTimeouts("a", limits)
    const watch = watcher.add(true, () => {})
    jump()
    yield* TestClock.adjust(2_999)
    assert.isUndefined(watch.reason())
    yield* TestClock.adjust(2)
    assert.strictEqual(watch.reason()?._tag, "UpstreamTimeout")
  })

const engineJob: Case = (jump) =>
  Effect.gen(function*() {
    let hung = 0
    const host = {
      ready: new Promise<never>(() => {}),
      exited: new Promise<never>(() => {}),
      isOver: () => false,
      memoryBytes: () => 0,
      abandon: () => void hung++,
      close: () => Promise.resolve(),
      start: () => () => {}
    }
    const watched = yield* HangDetector.watch(host, Duration.seconds(10))
    watched.start({ kind: "tokenize", input: "Hello" }, () => {})
    jump()
    yield* TestClock.adjust("9 seconds")
    assert.strictEqual(hung, 0)
    yield* TestClock.adjust("4 seconds")
    assert.isAbove(hung, 0)
  })

const earlierAnswer: Case = (jump) =>
  Effect.gen(function*() {
    const { keep, recall } = yield* ResponseCache
    const usage = { promptTokens: 1, completionTokens: 1, cachedTokens: 0 }
    const at = yield* Clock.currentTimeMillis
    const events = [{ type: "finish", reason: "stop", usage }] as const
    keep("key", { model: "a", tenant: "", deployment: "a#0", at, ttlMs: 3_600_000, events })
    jump()
    yield* TestClock.adjust("59 minutes")
    assert.isDefined(recall("key"))
    yield* TestClock.adjust("2 hours")
    assert.isUndefined(recall("key"))
  }).pipe(Effect.provide(ResponseCacheLayer.layer))

/** Two pieces 100 ms apart, in the middle of which the date changes. */
const stream: Case = (jump) => {
  const { layer } = world({
    policy: { timeouts: { firstTokenMs: 500, stallMs: 500, totalMs: 1_000 } },
    models: { a: [{ firstMs: 100, gapMs: 100, pieces: ["x", "y"] }] }
  })
  return Effect.gen(function*() {
    const events = Inference.use((inference) =>
      Stream.runCollect(inference.stream({ model: "a", messages: [{ role: "user", content: "Hello" }] }))
    )
    const fiber = yield* Effect.forkChild(events)
    yield* TestClock.adjust(50)
    jump()
    yield* TestClock.adjust(100)
    jump()
    yield* TestClock.adjust(50)
    assert.lengthOf(yield* Fiber.join(fiber), 3)
    const [record] = yield* DecisionLog.use(({ latest }) => Effect.succeed(latest(1)))
    assert.strictEqual(record!.tookMs, 200)
    assert.deepInclude(record!.attempts[0], { startedMs: 0, firstTokenMs: 100, tookMs: 200 })
  }).pipe(Effect.provide(layer))
}

/** Idle models are unloaded after 10 minutes. */
const idleModel: Case = (jump) => {
  const { engines, layer } = scriptedEngines()
  return Effect.gen(function*() {
    const { events } = yield* Models
    const changes: Array<number> = []
    yield* Effect.forkChild(Stream.runForEach(events, ({ at }) => Effect.sync(() => changes.push(at))))
    yield* settle
    yield* using(large("a", 1), () => Effect.void)
    jump()
    yield* TestClock.adjust("9 minutes")
    assert.isTrue(engines[0]!.open)
    yield* TestClock.adjust("2 minutes")
    assert.isFalse(engines[0]!.open)
    // What is shown is the date.
    assert.isAbove(Math.abs(changes.at(-1)! - changes[0]!), hour / 2)
  }).pipe(Effect.provide(layer))
}

const cases: Readonly<Record<string, Case>> = {
  "a circuit stays open": openCircuit,
  "a limited key rests": limitedKey,
  "an exchange with a provider lasts": exchange,
  "an engine is silent": engineJob,
  "an earlier answer is kept": earlierAnswer,
  "an answer is streamed and measured": stream,
  "an idle model stays loaded": idleModel
}

describe("monotonic time", () => {
  for (const [name, run] of Object.entries(cases)) {
    for (const [way, ms] of [["forward", hour], ["back", -hour]] as const) {
      it.effect(`${name} for as long, when the date is set ${way} by an hour, before it and within it`, () =>
        withJumps((jump) => {
          // The date differs from the monotonic time from the beginning, as it does outside of tests.
          jump(ms)
          return run(() => jump(ms))
        }))
    }
  }

  it("is what intervals are measured by: only these files read the date, to show or compare it with another", () => {
    const root = fileURLToPath(new URL("../../src/", import.meta.url))
    const dates = /currentTimeMillis|currentTimeNanos|Date\.now|DateTime\.now/
    const readers = globSync("**/*.ts", { cwd: root })
      .filter((file) => dates.test(readFileSync(root + file, "utf8").replaceAll(/\/\*\*[^]*?\*\//g, "")))
    assert.deepStrictEqual(readers.toSorted(), [
      "cli/Keys.ts",
      "cli/Launch.ts",
      "cli/Logging.ts",
      "cli/Logs.ts",
      "domain/Time.ts",
      "layers/alerts/AlertWebhook.ts",
      "layers/cache/ResponseCache.ts",
      "layers/http/AdminKeys.ts",
      "layers/http/AdminOverview.ts",
      "layers/http/AdminRollouts.ts",
      "layers/http/AdminUsage.ts",
      "layers/http/Authentication.ts",
      "layers/http/Endpoint.ts",
      "layers/http/OllamaModels.ts",
      "layers/http/OllamaRoutes.ts",
      "layers/http/ResponsesAnswer.ts",
      "layers/http/ResponsesBackground.ts",
      "layers/http/ServiceRoutes.ts",
      "layers/processes/Deploy.ts",
      "layers/processes/Supervisor.ts",
      "layers/providers/KeyAttempts.ts",
      "layers/store/Http.ts",
      "layers/store/Lock.ts",
      "layers/store/StoreContext.ts",
      "services/admission/Accounts.ts",
      "services/admission/RedisCounters.ts",
      "services/admission/SqlCounters.ts",
      "services/alerts/Alerts.ts",
      "services/guard/SecurityEvents.ts",
      "services/health/Breaker.ts",
      "services/health/HealthDetails.ts",
      "services/inference/CachedChat.ts",
      "services/inference/RefusedRequest.ts",
      "services/inference/RequestTelemetry.ts",
      "services/inference/ShadowCopies.ts",
      "services/inference/SqlMakers.ts",
      "services/keys/VirtualKeys.ts",
      "services/models/Models.ts",
      "services/observability/OperatorEvents.ts",
      "services/observability/RequestTrace.ts",
      "services/persistence/Migrations.ts",
      "services/responses/BackgroundResponses.ts",
      "services/responses/Dialogues.ts",
      "services/responses/Responses.ts",
      "services/responses/Retention.ts",
      "services/rollout/Experiments.ts",
      "services/rollout/RolloutRuns.ts",
      "services/rollout/RolloutViews.ts",
      "services/scaling/Autoscaler.ts",
      "ui/format.ts",
      "ui/live.ts",
      "workers/model/PrefixFolder.ts"
    ])
  })
})
