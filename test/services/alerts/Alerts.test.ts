import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Metric, Stream, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import type { Model } from "../../../src/domain/Deployment.ts"
import type { AlertNotice } from "../../../src/services/alerts/AlertNotice.ts"
import * as Alerts from "../../../src/services/alerts/Alerts.ts"
import * as BudgetLevels from "../../../src/services/alerts/BudgetLevels.ts"
import { none, ResponseCache } from "../../../src/services/cache/ResponseCache.ts"
import { Breaker } from "../../../src/services/health/Breaker.ts"
import type { State as Circuit } from "../../../src/services/health/Circuit.ts"
import { HealthDetails } from "../../../src/services/health/HealthDetails.ts"
import type { Status } from "../../../src/services/health/Readiness.ts"
import { Readiness } from "../../../src/services/health/Readiness.ts"
import type { StoreState } from "../../../src/services/health/StoreHealth.ts"
import { Memory } from "../../../src/services/models/Memory.ts"
import { GarbageCollector, Pressure } from "../../../src/services/models/MemoryPressure.ts"
import type { Level } from "../../../src/services/models/MemoryPressure.ts"
import { Models } from "../../../src/services/models/Models.ts"
import { Registry } from "../../../src/services/models/Registry.ts"
import * as OperatorEvents from "../../../src/services/observability/OperatorEvents.ts"
import type { Member, ToProcess, ToSupervisor } from "../../../src/services/processes/ProcessGroup.ts"
import { ProcessGroup } from "../../../src/services/processes/ProcessGroup.ts"
import { admissionOf } from "../../../src/services/settings/AdmissionSettings.ts"
import { modelWith } from "../../../src/services/settings/Resolution.ts"
import type { Resolved } from "../../../src/services/settings/Settings.ts"
import { Settings } from "../../../src/services/settings/Settings.ts"
import { Participants, SettingsChanges } from "../../../src/services/settings/SettingsChanges.ts"
import { withJumps } from "../../support/JumpingClock.ts"
import { resolved } from "../settings/support.ts"

const settingsOf = (alerts: object = {}): Resolved =>
  resolved({ alerts, models: { "fake/chat": { deployments: [{ engine: "fake" }] } } })

const requests = (model: string, success: boolean, count: number) =>
  Metric.update(
    Metric.withAttributes(Metric.counter("llm_requests_total", { incremental: true }), {
      model,
      success: `${success}`
    }),
    count
  )

/** A service with one model, whose facts the test sets. */
const stage = (settings = settingsOf(), place?: Pick<Member, "index" | "isBeside">) => {
  const { models: [model] } = settings
  const state = {
    models: [model!] as ReadonlyArray<Model>,
    circuits: [] as ReadonlyArray<Circuit>,
    stores: [] as ReadonlyArray<StoreState>,
    used: 0.1,
    failsToRead: false,
    status: "ready" as Status
  }
  const readiness: Readiness["Service"] = {
    get status() {
      return state.status
    }
  }
  const freed = { unloads: 0, cleared: 0, collected: 0 }
  const notices: Array<AlertNotice> = []
  const logs: Array<string> = []
  const sent: Array<ToSupervisor> = []
  const listeners: Array<(message: ToProcess) => void> = []
  const changes = new Participants()
  const member = place && {
    generation: 1,
    count: 2,
    port: 0,
    configuration: undefined,
    numbering: [],
    ...place,
    send: (message: ToSupervisor) => void sent.push(message),
    listen: (receive: (message: ToProcess) => void) => void listeners.push(receive)
  }
  const layer = Alerts.layer.pipe(
    Layer.provideMerge(BudgetLevels.layer),
    Layer.provideMerge(OperatorEvents.layer),
    Layer.provideMerge(Layer.mergeAll(
      Layer.succeed(Settings, settings),
      Layer.succeed(SettingsChanges, changes),
      Layer.succeed(ProcessGroup, member),
      Layer.succeed(Readiness, readiness),
      Layer.succeed(Alerts.AlertWebhook, { send: (notice) => void notices.push(notice), status: () => undefined }),
      Layer.mock(Registry)({
        models: () => state.models,
        find: () => assert.fail("no model is looked up"),
        wildcardOf: (name) => state.models.find((one) => one.name === "w/*" && /^w\/[^*]/.test(name))
      }),
      Layer.mock(Breaker)({
        enterClosed: () => undefined,
        closedFor: () => 0,
        failures: () => undefined,
        openings: () => 0,
        states: Effect.sync(() => state.circuits),
        transitions: Stream.empty
      }),
      Layer.mock(Models)({
        drained: new Map(),
        tryLease: () => undefined,
        renew: () => {},
        snapshot: () => ({ queued: 0, state: "ready" }),
        unloadIdle: () => Effect.sync(() => ++freed.unloads)
      }),
      Layer.mock(HealthDetails)({ stores: () => state.stores }),
      Layer.succeed(ResponseCache, {
        ...none,
        turnMemoryOff: (isOff: boolean) => {
          if (isOff) freed.cleared++
        }
      }),
      Layer.effect(Pressure, SubscriptionRef.make<Level>("normal")),
      Layer.succeed(GarbageCollector, () => void freed.collected++),
      Layer.succeed(Memory, {
        read: Effect.suspend(() =>
          state.failsToRead
            ? Effect.die(new Error("cannot be read"))
            : Effect.succeed({ totalBytes: 100, availableBytes: 100 - 100 * state.used })
        )
      }),
      Layer.succeed(Metric.MetricRegistry, new Map()),
      Logger.layer([Logger.make(({ message }) => void logs.push(String(message)))])
    ))
  )
  const reload = (next: Resolved) => Effect.map(changes.prepare(next, settings), ({ commit }) => commit())
  return {
    changes,
    freed,
    layer,
    logs,
    notices,
    receive: (message: ToProcess) => listeners.forEach((listen) => listen(message)),
    reload,
    sent,
    state,
    told: () => notices.map(({ alert, status }) => `${alert} ${status}`)
  }
}

const open: Circuit = { deployment: "fake/chat#0", phase: "open", retryAfterMs: 1, successes: 0 }

const pass = (duration: "1 minute" | "15 seconds" | "5 minutes" | "30 seconds") => TestClock.adjust(duration)

describe("the alerts of a service", () => {
  it.effect("fire for a wildcard by the requests and circuits of all names that it serves", () => {
    const { layer, state, told } = stage()
    state.models = [modelWith("w/*", { engine: "remote", provider: "openai", model: "*" })]
    return Effect.gen(function*() {
      yield* pass("15 seconds")
      for (const name of ["w/a", "w/b"]) yield* requests(name, false, 10)
      state.circuits = [{ ...open, deployment: "w/a#0" }]
      yield* pass("30 seconds")
      yield* pass("1 minute")
      assert.deepStrictEqual(told(), ["error_rate/w/* firing", "circuit_open/w/*#0 firing"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("fire for the model whose requests fail, once, and are resolved", () => {
    const { layer, logs, notices, told } = stage()
    return Effect.gen(function*() {
      yield* pass("15 seconds")
      yield* requests("fake/chat", true, 15)
      yield* requests("fake/chat", false, 5)
      yield* pass("30 seconds")
      assert.deepStrictEqual(told(), [])
      yield* pass("1 minute")
      assert.deepStrictEqual(told(), ["error_rate/fake/chat firing"])
      const [fired] = notices
      assert.deepInclude(fired, {
        rule: "error_rate",
        metric: "error_rate",
        target: "fake/chat",
        severity: "critical",
        value: 0.25,
        threshold: 0.05,
        message: "Alert error_rate for fake/chat fires: 25 %, threshold 5 %."
      })
      yield* requests("fake/chat", true, 2000)
      yield* pass("15 seconds")
      assert.deepStrictEqual(told(), ["error_rate/fake/chat firing", "error_rate/fake/chat resolved"])
      assert.strictEqual(notices[1]!.episode, fired!.episode)
      assert.notStrictEqual(notices[1]!.id, fired!.id)
      assert.strictEqual(notices[1]!.reason, "recovered")
      yield* pass("5 minutes")
      assert.strictEqual(notices.length, 2)
      assert.deepStrictEqual(logs, notices.map(({ message }) => message))
      const events = (yield* OperatorEvents.OperatorEvents).latest({ kind: "alert" })
      assert.deepStrictEqual(events.map(({ message, severity }) => [severity, message]), [
        ["info", notices[1]!.message],
        ["critical", fired!.message]
      ])
    }).pipe(Effect.provide(layer))
  })

  it.effect("do not fire for fewer requests than the rule asks for", () => {
    const { layer, told } = stage()
    return Effect.gen(function*() {
      yield* pass("15 seconds")
      yield* requests("fake/chat", false, 19 + 100)
      const ofCallers = Metric.counter("troupe_caller_errors_total", { incremental: true })
      yield* Metric.update(Metric.withAttributes(ofCallers, { model: "fake/chat" }), 100)
      yield* pass("1 minute")
      yield* pass("1 minute")
      assert.deepStrictEqual(told(), [])
      yield* requests("fake/chat", false, 1)
      yield* pass("1 minute")
      yield* pass("15 seconds")
      assert.deepStrictEqual(told(), ["error_rate/fake/chat firing"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("report their rules, states and values, and count in the metrics", () => {
    const { layer, state } = stage()
    return Effect.gen(function*() {
      state.circuits = [open]
      yield* pass("15 seconds")
      const { report } = yield* Alerts.Alerts
      assert.deepInclude((yield* report).alerts[0], { alert: "circuit_open/fake/chat#0", state: "pending", value: 1 })
      yield* pass("1 minute")
      const { alerts, rules } = yield* report
      assert.deepInclude(alerts[0], {
        alert: "circuit_open/fake/chat#0",
        state: "firing",
        value: 1,
        severity: "warning"
      })
      assert.match(alerts[0]!.episode!, /^alert-/)
      assert.deepInclude(rules.find(({ rule }) => rule === "circuit_open"), { threshold: 1, clear: 1, forMs: 60_000 })
      const gauges = (yield* Metric.snapshot).filter(({ id }) => id === "troupe_alerts_firing")
      const valueOf = (alert: string) => gauges.find(({ attributes }) => attributes?.["alert"] === alert)?.state
      assert.deepStrictEqual(valueOf("circuit_open"), { value: 1 })
      assert.deepStrictEqual(valueOf("latency"), { value: 0 })
    }).pipe(Effect.provide(layer))
  })

  it.effect("of a budget fire until its period ends, with a notice of what is spent at each level", () => {
    const admission = (usd: number) => admissionOf({ budgets: { team: { period: "day", usd } } } as never)
    const settings = { ...settingsOf({ rules: { budget: { targets: ["team"] } } }), admission: admission(1) }
    const { layer, notices, reload, told } = stage(settings)
    const raise = (percent: number, endsAt: number) =>
      Effect.map(BudgetLevels.Levels, (levels) =>
        levels.raise({
          rule: "team",
          counter: "all requests",
          measure: "usd",
          most: 1e9,
          spent: percent * 1e7,
          endsAt,
          cause: { percent }
        }))
    const target = "budget/team: all requests"
    return Effect.gen(function*() {
      const endsAt = 30 * 60_000
      for (const percent of [50, 80, 100]) {
        yield* raise(percent, endsAt)
        yield* pass("5 minutes")
        yield* pass("5 minutes")
      }
      assert.deepStrictEqual(told(), [
        ...Array.from({ length: 3 }, () => `${target} firing`),
        `${target} resolved`
      ])
      const subject = "Alert budget for team: all requests"
      assert.deepStrictEqual(notices.map(({ message }) => message), [
        `${subject} fires: 0.5 of 1 USD, 50 %.`,
        `${subject} fires: 0.8 of 1 USD, 80 %.`,
        `${subject} fires: 1 of 1 USD, 100 %.`,
        `${subject} is resolved after 30m: its period has ended, or the budget has grown.`
      ])
      assert.strictEqual(new Set(notices.map(({ id }) => id)).size, 4)
      assert.strictEqual(new Set(notices.map(({ episode }) => episode)).size, 1)
      yield* raise(50, 2 * endsAt)
      yield* pass("15 seconds")
      yield* reload({ ...settings, admission: admission(2) })
      yield* pass("15 seconds")
      assert.deepStrictEqual(told().slice(4), [`${target} firing`, `${target} resolved`])
    }).pipe(Effect.provide(layer))
  })

  it.effect("fire for a store while it is lost, and say what this does to requests", () => {
    const { layer, notices, state, told } = stage()
    const problem = "Redis is lost: requests with a budget get 503."
    return Effect.gen(function*() {
      state.stores = [{ store: "redis", available: false, needed: false, problem }]
      yield* pass("30 seconds")
      state.stores = [{ store: "redis", available: true, needed: false }]
      yield* pass("15 seconds")
      assert.deepStrictEqual(told(), ["store_lost/redis firing", "store_lost/redis resolved"])
      assert.deepInclude(notices[0], {
        severity: "critical",
        message: `Alert store_lost for redis fires: ${problem}`
      })
    }).pipe(Effect.provide(layer))
  })

  it.effect("are resolved when a reload removes their deployment", () => {
    const { layer, notices, state, told } = stage()
    return Effect.gen(function*() {
      state.circuits = [open]
      yield* pass("5 minutes")
      state.models = []
      yield* pass("15 seconds")
      assert.deepStrictEqual(told(), ["circuit_open/fake/chat#0 firing", "circuit_open/fake/chat#0 resolved"])
      assert.strictEqual(notices[1]!.reason, "target_removed")
    }).pipe(Effect.provide(layer))
  })

  it.effect("follow a reload while they fire: the episode goes on under another threshold, and ends without its rule", () => {
    const { layer, notices, reload, state, told } = stage()
    return Effect.gen(function*() {
      state.used = 0.96
      yield* pass("15 seconds")
      yield* reload(settingsOf({ rules: { emergency_memory: { threshold: 0.99, clear: 0.5 } } }))
      yield* pass("1 minute")
      assert.deepStrictEqual(told(), ["emergency_memory firing"])
      yield* reload(settingsOf({ rules: { emergency_memory: false } }))
      yield* pass("15 seconds")
      assert.deepStrictEqual(told(), ["emergency_memory firing", "emergency_memory resolved"])
      assert.strictEqual(notices[1]!.reason, "rule_removed")
      const gauges = (yield* Metric.snapshot).filter(({ id }) => id === "troupe_alerts_firing")
      assert.notInclude(gauges.map(({ attributes }) => attributes?.["alert"]), "emergency_memory")
    }).pipe(Effect.provide(layer))
  })

  it.effect("about memory free it while they fire, in all processes", () => {
    const { freed, layer, logs, receive, sent, state } = stage(settingsOf(), { index: 1, isBeside: false })
    return Effect.gen(function*() {
      state.used = 0.94
      yield* pass("15 seconds")
      assert.deepStrictEqual(freed, { unloads: 0, cleared: 0, collected: 0 })
      state.used = 0.95
      yield* pass("15 seconds")
      assert.deepStrictEqual(freed, { unloads: 1, cleared: 1, collected: 1 })
      assert.deepInclude(sent, { type: "news", news: { type: "emergency" } })
      assert.isTrue(logs.some((line) => line.startsWith("Emergency: unloaded 1 model")))
      yield* pass("15 seconds")
      assert.strictEqual(freed.unloads, 2)
      state.used = 0.93
      yield* pass("1 minute")
      assert.strictEqual(freed.unloads, 2)
      receive({ type: "news", news: { type: "emergency" } })
      yield* pass("15 seconds")
      assert.strictEqual(freed.unloads, 3)
    }).pipe(Effect.provide(layer))
  })

  it.effect("are evaluated on after a failure, which is logged once", () => {
    const { layer, logs, state, told } = stage()
    return Effect.gen(function*() {
      state.failsToRead = true
      yield* pass("5 minutes")
      assert.strictEqual(logs.filter((line) => line.includes("could not be evaluated")).length, 1)
      state.failsToRead = false
      state.used = 1
      yield* pass("15 seconds")
      assert.deepStrictEqual(told(), ["emergency_memory firing"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("do not change once the service stops: a load that the stop ends is no incident", () => {
    const { layer, state, told } = stage()
    return Effect.gen(function*() {
      state.used = 1
      state.status = "stopping"
      yield* pass("1 minute")
      assert.deepStrictEqual(told(), [])
      state.status = "ready"
      yield* pass("15 seconds")
      assert.deepStrictEqual(told(), ["emergency_memory firing"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("hold by monotonic time, whatever the date does", () => {
    const { layer, notices, state, told } = stage()
    return withJumps((jump) =>
      Effect.gen(function*() {
        state.circuits = [open]
        yield* pass("30 seconds")
        jump(86_400_000)
        yield* pass("15 seconds")
        assert.deepStrictEqual(told(), [])
        jump(-2 * 86_400_000)
        yield* pass("30 seconds")
        assert.deepStrictEqual(told(), ["circuit_open/fake/chat#0 firing"])
        state.circuits = []
        yield* pass("15 seconds")
        assert.match(notices[1]!.message, /resolved after 30s/)
      }).pipe(Effect.provide(layer))
    )
  })
})

describe("the alerts of several processes", () => {
  const increases = (count: number): ToProcess => ({
    type: "news",
    news: { type: "increases", increases: [["requests fake/chat", [0, count]]] }
  })

  it.effect("are evaluated by the first one, with what the others have measured", () => {
    const { layer, receive, told } = stage(settingsOf(), { index: 1, isBeside: false })
    return Effect.gen(function*() {
      yield* pass("15 seconds")
      yield* requests("fake/chat", false, 10)
      receive(increases(10))
      yield* pass("5 minutes")
      assert.deepStrictEqual(told(), ["error_rate/fake/chat firing"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("are not evaluated by another one, which passes on by how much its counters have grown", () => {
    const { layer, sent, state, told } = stage(settingsOf(), { index: 2, isBeside: false })
    return Effect.gen(function*() {
      state.used = 1
      yield* pass("15 seconds")
      yield* requests("fake/chat", false, 10)
      yield* pass("1 minute")
      assert.deepStrictEqual(told(), [])
      assert.deepStrictEqual(sent, [{
        type: "news",
        news: { type: "increases", increases: [["requests fake/chat", [0, 10]]] }
      }])
    }).pipe(Effect.provide(layer))
  })

  it.effect("of a generation beside another are evaluated when it leads", () => {
    const { layer, receive, state, told } = stage(settingsOf(), { index: 1, isBeside: true })
    return Effect.gen(function*() {
      state.used = 1
      yield* pass("5 minutes")
      assert.deepStrictEqual(told(), [])
      receive({ type: "lead", isLeading: true })
      yield* pass("15 seconds")
      assert.deepStrictEqual(told(), ["emergency_memory firing"])
      receive({ type: "lead", isLeading: false })
      state.used = 0
      yield* pass("15 seconds")
      assert.deepStrictEqual(told(), ["emergency_memory firing"])
    }).pipe(Effect.provide(layer))
  })
})
