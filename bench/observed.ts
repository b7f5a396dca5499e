/**
 * Process entry: the service as `troupe serve` runs it, with or without metrics of requests, which no setting turns off.
 *
 * `observed.ts serve ... --config <file>` reads the file and listens on a free port; `BENCH_METRICS=off` leaves the metrics out.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer } from "effect"
import { HttpServer } from "effect/http"
import * as App from "../src/App.ts"
import * as Logging from "../src/cli/Logging.ts"
import { Metrics } from "../src/services/observability/Metrics.ts"
import { Settings } from "../src/services/settings/Settings.ts"

const file = process.argv.at(-1)!

const noMetrics = Layer.succeed(Metrics, { begin: () => {}, end: () => {} })

const banner = Layer.effectDiscard(Effect.gen(function*() {
  const { address } = yield* HttpServer.HttpServer
  if ("port" in address) yield* Console.log(`http://127.0.0.1:${address.port}`)
}))

const program = Effect.gen(function*() {
  const settings = yield* App.loadSettings({ file, engineHost: "process" })
  const own = { ...settings, server: { ...settings.server, port: 0 } }
  const service = process.env["BENCH_METRICS"] === "off" ? App.serviceWith({ metrics: noMetrics }) : App.service
  return yield* banner.pipe(
    Layer.provide(service),
    Layer.provide(Layer.merge(Layer.succeed(Settings, own), Logging.layerChanging(own, { level: own.logLevel }))),
    Layer.launch
  )
})

NodeRuntime.runMain(program)
