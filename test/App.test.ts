import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer } from "effect"
import { HttpServer } from "effect/http"
import * as App from "../src/App.ts"
import type { Deployment, Model } from "../src/services/Model.ts"
import type { Resolved } from "../src/services/Settings.ts"
import { Settings } from "../src/services/Settings.ts"

const deployment = (index: number): Deployment => ({
  id: `fake/a#${index}`,
  model: "fake/a",
  // The second one cannot be loaded, which no one asks for.
  options: index === 0 ? { engine: "fake" } : { engine: "fake", fault: { kind: "load" } },
  idleUnload: Duration.minutes(10),
  preload: true,
  pinned: false,
  queueLimit: 512,
  stallAfter: Duration.minutes(2)
})

const models: ReadonlyArray<Model> = [{ name: "fake/a", deployments: [deployment(0), deployment(1)] }]

const settings: Resolved = {
  environment: "test",
  server: { host: "127.0.0.1", port: 0, shutdownGrace: Duration.seconds(5), maxBodyBytes: 1000 },
  engineHost: "thread",
  logLevel: "Error",
  memory: { budgetBytes: undefined, hold: Duration.seconds(5) },
  store: { folder: "/store" },
  models
}

const service = () =>
  Effect.gen(function*() {
    const context = yield* Layer.build(Layer.fresh(Layer.provide(App.service, Layer.succeed(Settings, settings))))
    return yield* Effect.map(HttpServer.HttpServer, ({ address }) => "port" in address ? address.port : 0).pipe(
      Effect.provideContext(context)
    )
  })

const readiness = (port: number) =>
  Effect.promise(async () => {
    const response = await fetch(`http://127.0.0.1:${port}/health/ready`)
    return [response.status, (await response.json() as { status: string }).status]
  })

describe("App.service", () => {
  it.live("can run twice in one process, at once and one after another", () =>
    Effect.gen(function*() {
      const outer = yield* service()
      yield* Effect.scoped(Effect.gen(function*() {
        assert.deepStrictEqual(yield* readiness(yield* service()), [200, "ready"])
      }))
      assert.deepStrictEqual(yield* readiness(outer), [200, "ready"])
      assert.deepStrictEqual(yield* readiness(yield* service()), [200, "ready"])
    }).pipe(Effect.scoped))
})
