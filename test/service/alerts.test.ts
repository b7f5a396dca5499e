/** A service with a model and an alert about memory: the model is unloaded, and the webhook and administration say so. */
import { assert } from "@effect/vitest"
import { Effect, Layer, Logger, Metric } from "effect"
import { HttpServer } from "effect/http"
import { createHmac } from "node:crypto"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, it } from "vitest"
import * as App from "../../src/App.ts"
import * as SettingsFile from "../../src/layers/settings/SettingsFile.ts"
import type { AlertNotice, AlertReport } from "../../src/services/alerts/AlertNotice.ts"
import type { OperatorEvent } from "../../src/services/observability/OperatorEvents.ts"
import * as Reload from "../../src/services/settings/Reload.ts"
import { until } from "../support/Service.ts"
import type { WebhookReceiver } from "../support/WebhookReceiver.ts"
import { pathSecret, startReceiver } from "../support/WebhookReceiver.ts"

const secret = "a secret of the webhook"

interface Deployments {
  readonly deployments: ReadonlyArray<{ readonly state: string; readonly memoryBytes: number }>
}

let receiver: WebhookReceiver
/** The deployment in the middle of an answer, and after it. */
const seen: Array<Deployments["deployments"][number]> = []
let status = 0
let report: AlertReport
let events: ReadonlyArray<OperatorEvent>
let wrongQuery: readonly [status: number, text: string]
let metrics = ""
const logs: Array<Readonly<Record<string, unknown>>> = []
const logger = Logger.map(Logger.formatStructured, ({ annotations, level, message }) => {
  logs.push({ level, message, ...annotations })
})

/** @param threshold share of the memory in use */
const configOf = (threshold: number): SettingsFile.Config => ({
  server: { port: 0, admin: { socket: false } },
  storage: { type: "memory" },
  engines: { host: "process" },
  alerts: {
    every: "200 ms",
    webhook: { url: receiver.url, secret },
    rules: { emergency_memory: { threshold } }
  },
  models: {
    chat: {
      deployments: [{
        engine: "llama",
        file: fileURLToPath(new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url))
      }]
    }
  }
})

/** @param lower lowers the threshold below what is in use */
const use = async (url: string, lower: () => Promise<unknown>) => {
  const get = async <A>(path: string) => await (await fetch(`${url}${path}`)).json() as A
  const deployment = async () => (await get<Deployments>("/admin/deployments")).deployments[0]!
  const ask = () =>
    fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model: "chat", messages: [{ role: "user", content: "What is the capital of Japan?" }] })
    })
  const answer = await ask()
  await answer.text()
  ;({ status } = answer)
  seen.push(await deployment())
  await lower()
  seen.push(
    await until(async () => {
      const one = await deployment()
      return one.state === "cold" ? one : undefined
    })
  )
  report = await get("/admin/alerts")
  events = await until(async () => {
    const { events } = await get<{ readonly events: ReadonlyArray<OperatorEvent> }>("/admin/events?limit=1000")
    return events.some(({ kind }) => kind === "memory") ? events : undefined
  })
  const wrong = await fetch(`${url}/admin/events?kind=alerts`)
  wrongQuery = [wrong.status, await wrong.text()]
  metrics = await (await fetch(`${url}/metrics`)).text()
  await until(() => receiver.calls.length > 0 ? true : undefined)
}

beforeAll(async () => {
  receiver = await startReceiver()
  await Effect.gen(function*() {
    const { address } = yield* HttpServer.HttpServer
    const { run } = yield* Reload.Reload
    const url = `http://127.0.0.1:${"port" in address ? address.port : 0}`
    const settings = SettingsFile.load({ config: configOf(0.001) })
    yield* Effect.promise(() => use(url, () => Effect.runPromise(run({ trigger: "program", settings }))))
  }).pipe(
    Effect.provide(
      App.service.pipe(
        Layer.provide(SettingsFile.layer({ config: configOf(1) })),
        Layer.provide(Logger.layer([logger]))
      )
    ),
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Effect.scoped,
    Effect.runPromise
  )
}, 120_000)

afterAll(() => receiver.close())

describe("an emergency of memory", () => {
  it("unloads the model and gives its memory back", () => {
    assert.strictEqual(status, 200)
    assert.deepInclude(seen[0], { state: "ready" })
    assert.isAbove(seen[0]!.memoryBytes, 10 * 2 ** 20)
    assert.deepInclude(seen[1], { state: "cold", memoryBytes: 0 })
  })

  it("is told to the webhook once, signed", () => {
    const [call, ...others] = receiver.calls
    assert.deepStrictEqual(others, [])
    const notice = JSON.parse(call!.body) as AlertNotice
    assert.deepInclude(notice, { status: "firing", alert: "emergency_memory", severity: "critical", threshold: 0.001 })
    assert.strictEqual(call!.headers["x-troupe-delivery"], notice.id)
    const [, seconds, signature] = /^t=(\d+),v1=(\w+)$/.exec(String(call!.headers["x-troupe-signature"]))!
    assert.strictEqual(createHmac("sha256", secret).update(`${seconds}.${call!.body}`).digest("hex"), signature)
    assert.deepInclude(report.alerts[0], { alert: "emergency_memory", state: "firing", episode: notice.episode })
  })

  it("is among the events, with what was loaded and unloaded", () => {
    const messages = events.map(({ message }) => message)
    assert.include(messages, "Loaded \"chat#0\".")
    assert.include(messages, "Unloaded \"chat#0\".")
    assert.isTrue(messages.some((text) => text.startsWith("Emergency: unloaded 1 model")), messages.join())
    assert.deepInclude(events.find(({ kind }) => kind === "alert"), { severity: "critical" })
    assert.deepStrictEqual(wrongQuery[0], 400)
    assert.match(wrongQuery[1], /kind.+Expected one of alert, circuit/)
  })

  it("counts in the metrics, and is logged without the URL and the secret", () => {
    assert.match(metrics, /^troupe_alerts_firing\{.*alert="emergency_memory".*\} 1$/m)
    const names = logs.map(({ event }) => event)
    for (const name of ["model_loaded", "model_unloaded", "alert_firing", "emergency_memory"]) {
      assert.include(names, name)
    }
    const text = JSON.stringify([logs, report, events])
    for (const word of [secret, pathSecret]) assert.notInclude(text, word)
  })
})
