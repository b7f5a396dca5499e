import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Layer, Logger, Redacted, Scope } from "effect"
import { TestClock } from "effect/testing"
import { createHmac } from "node:crypto"
import * as AlertWebhook from "../../../src/layers/alerts/AlertWebhook.ts"
import type { AlertNotice } from "../../../src/services/alerts/AlertNotice.ts"
import * as Alerts from "../../../src/services/alerts/Alerts.ts"
import type { AlertWebhookSettings } from "../../../src/services/settings/AlertSettings.ts"
import { alertsOf, webhookDefaults } from "../../../src/services/settings/AlertSettings.ts"
import { Settings } from "../../../src/services/settings/Settings.ts"
import { Participants, SettingsChanges } from "../../../src/services/settings/SettingsChanges.ts"
import { resolved } from "../../services/settings/support.ts"
import { until } from "../../support/Service.ts"
import type { Call } from "../../support/WebhookReceiver.ts"
import { pathSecret, startReceiver } from "../../support/WebhookReceiver.ts"

const secret = "a secret of the webhook"

const notice = (episode: string, status: AlertNotice["status"] = "firing"): AlertNotice => ({
  id: `${episode}.${status}`,
  episode,
  status,
  message: "Alert memory fires: 96 %, threshold 95 %.",
  alert: "memory",
  rule: "memory",
  metric: "memory_used",
  severity: "critical",
  value: 0.96,
  threshold: 0.95,
  clear: 0.92,
  startedAt: 1,
  at: 2
})

/** A receiver that answers with these statuses, then with 204; `undefined`: never. */
const receiver = (...statuses: ReadonlyArray<number | undefined>) =>
  Effect.acquireRelease(
    Effect.promise(() => startReceiver(...statuses)),
    ({ close }) => Effect.promise(close)
  )

/** Begins to send to this URL; attempts are repeated after 1 ms. */
const start = Effect.fnUntraced(function*(url: string | undefined, over: Partial<AlertWebhookSettings> = {}) {
  const logs: Array<string> = []
  const changes = new Participants()
  const settings = (url: string | undefined) => ({
    ...resolved({}),
    alerts: url === undefined
      ? alertsOf()
      : {
        ...alertsOf(),
        webhook: { ...webhookDefaults, secret: Redacted.make(secret), ...over, url: Redacted.make(url) }
      }
  })
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const layer = AlertWebhook.layerWith(Duration.millis(1)).pipe(Layer.provide(Layer.mergeAll(
    Layer.succeed(Settings, settings(url)),
    Layer.succeed(SettingsChanges, changes),
    Logger.layer([Logger.make(({ message }) => void logs.push(String(message)))])
  )))
  const services = yield* Layer.buildWithScope(layer, scope)
  const webhook = yield* Effect.provideContext(Alerts.AlertWebhook, services)
  return {
    ...webhook,
    logs,
    end: Scope.close(scope, Exit.void),
    reload: (next: string | undefined) =>
      Effect.map(changes.prepare(settings(next), settings(url)), ({ commit }) => commit())
  }
})

const wait = <A>(check: () => A | undefined) => Effect.promise(() => until(check))

const idsOf = (calls: ReadonlyArray<Call>) => calls.map(({ headers }) => headers["x-troupe-delivery"])

describe("the webhook of alerts", () => {
  it.live("gets a notice as JSON, signed with its secret", () =>
    Effect.gen(function*() {
      const { calls, url } = yield* receiver()
      const { send, status } = yield* start(url)
      send(notice("one"))
      const [call] = yield* wait(() => status()?.delivered === 1 ? calls : undefined)
      assert.deepStrictEqual(JSON.parse(call!.body), notice("one"))
      assert.include(call!.headers["content-type"], "application/json")
      const [, seconds, signature] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(call!.headers["x-troupe-signature"]))!
      assert.strictEqual(createHmac("sha256", secret).update(`${seconds}.${call!.body}`).digest("hex"), signature)
      assert.isBelow(Math.abs(Number(seconds) - Date.now() / 1000), 60)
      assert.deepStrictEqual(status(), { waiting: 0, delivered: 1, lost: 0 })
    }))

  it.live("is not signed without a secret", () =>
    Effect.gen(function*() {
      const { calls, url } = yield* receiver()
      const { send } = yield* start(url, { secret: undefined })
      send(notice("one"))
      const [call] = yield* wait(() => calls.length === 1 ? calls : undefined)
      assert.notProperty(call!.headers, "x-troupe-signature")
    }))

  it.live("gets a notice again until it takes it, in order; the log says so once", () =>
    Effect.gen(function*() {
      const { calls, url } = yield* receiver(500, 302, 429)
      const { logs, send, status } = yield* start(url)
      send(notice("one"))
      send(notice("one", "resolved"))
      send(notice("one", "resolved"))
      yield* wait(() => status()?.delivered === 2 ? true : undefined)
      assert.deepStrictEqual(idsOf(calls), ["one.firing", "one.firing", "one.firing", "one.firing", "one.resolved"])
      const origin = new URL(url).origin
      assert.deepStrictEqual(logs, [
        `Notices of alerts cannot be sent to the webhook at ${origin}: it answered with status 500.`,
        `The webhook of alerts at ${origin} takes notices again.`
      ])
      assert.notInclude(logs.join(), pathSecret)
    }))

  it.live("does not get a notice again that it refuses", () =>
    Effect.gen(function*() {
      const { calls, url } = yield* receiver(400)
      const { send, status } = yield* start(url)
      send(notice("one"))
      send(notice("two"))
      yield* wait(() => status()?.delivered === 1 ? true : undefined)
      assert.deepStrictEqual(idsOf(calls), ["one.firing", "two.firing"])
      assert.deepInclude(status(), { lost: 1 })
    }))

  it.effect("does not hold back others when it does not answer", () =>
    Effect.gen(function*() {
      const { calls, url } = yield* receiver(undefined)
      const { logs, send, status } = yield* start(url, { timeout: Duration.seconds(5), attempts: 1 })
      send(notice("one"))
      send(notice("two"))
      yield* wait(() => calls.length === 1 ? true : undefined)
      yield* TestClock.adjust("5 seconds")
      yield* wait(() => status()?.delivered === 1 ? true : undefined)
      assert.deepInclude(status(), { delivered: 1, lost: 1 })
      assert.match(logs[0]!, /did not answer within 5s/)
    }))

  it.live("gets the latest notices of more than may wait", () =>
    Effect.gen(function*() {
      const { url } = yield* receiver(undefined)
      const { send, status } = yield* start(url, { queue: 3 })
      for (let index = 0; index < 10; index++) send(notice(`episode-${index}`))
      assert.deepInclude(status(), { waiting: 3, lost: 7 })
    }))

  it.live("that hangs does not hold up the end for longer than 3 s; one that answers gets what is left", () =>
    Effect.gen(function*() {
      const { calls, url } = yield* receiver(undefined)
      const { end, send } = yield* start(url)
      send(notice("one"))
      yield* wait(() => calls.length === 1 ? true : undefined)
      send(notice("two"))
      yield* end
      assert.deepStrictEqual(idsOf(calls), ["one.firing", "one.firing", "two.firing"])
    }))

  it.live("follows the configuration", () =>
    Effect.gen(function*() {
      const { calls, url } = yield* receiver()
      const { reload, send, status } = yield* start(undefined)
      send(notice("zero"))
      assert.isUndefined(status())
      yield* reload(url)
      send(notice("one"))
      yield* wait(() => calls.length === 1 ? true : undefined)
      yield* reload(undefined)
      send(notice("two"))
      assert.isUndefined(status())
      assert.deepStrictEqual(idsOf(calls), ["one.firing"])
    }))

  it.live("that cannot be reached is logged without its path", () =>
    Effect.gen(function*() {
      const { close, url } = yield* receiver()
      yield* Effect.promise(close)
      const { logs, send, status } = yield* start(url, { attempts: 2 })
      send(notice("one"))
      yield* wait(() => status()?.lost === 1 ? true : undefined)
      assert.deepInclude(status(), { problem: "it cannot be reached" })
      assert.strictEqual(logs.length, 1)
      assert.notInclude(logs.join(), pathSecret)
    }))
})
