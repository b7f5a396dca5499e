/** `troupe serve`: the service, until a signal stops it. */
import { Console, Duration, Effect, Layer, Option, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { HttpServer } from "effect/http"
import * as NetAddress from "effect/net/NetAddress"
import { flushCompileCache } from "node:module"
import * as App from "../App.ts"
import { durationText } from "../domain/Fields.ts"
import type { InferenceError } from "../domain/InferenceError.ts"
import { formatPath } from "../domain/Problem.ts"
import * as Binding from "../layers/http/Binding.ts"
import * as SettingsFile from "../layers/settings/SettingsFile.ts"
import { VirtualKeys } from "../services/keys/VirtualKeys.ts"
import { Models } from "../services/models/Models.ts"
import type { Resolved } from "../services/settings/Settings.ts"
import { AdminAddress, Settings, SettingsError } from "../services/settings/Settings.ts"
import { addressOf, CommandFailed, config, urlOf } from "./Flags.ts"
import * as Logging from "./Logging.ts"
import { modelTable } from "./Output.ts"
import { temporaryFiles } from "./Signals.ts"

const host = Flag.String("host").pipe(
  Flag.withSchema(Schema.NonEmptyString),
  Flag.withDescription("Address to listen on (default: HOST, the configuration, 127.0.0.1)"),
  Flag.optional
)

const port = Flag.Int("port").pipe(
  Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65535 }))),
  Flag.withDescription("Port to listen on, 0 for any free port (default: PORT, the configuration, 3000)"),
  Flag.optional
)

const adminPort = Flag.Int("admin-port").pipe(
  Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65535 }))),
  Flag.withDescription("Port on 127.0.0.1 for administration, 0 for any free port (default: the configuration)"),
  Flag.optional
)

/** The defaults of a service. */
const service = { engineHost: "process", defaultStorage: "sqlite" } as const

const adminText = ({ socket, url }: AdminAddress["Service"]): string =>
  [url, socket].filter((address) => address !== undefined).join(" and ") || "the same port, with the token"

/** Where the service listens and who may call it. */
interface Listening {
  readonly settings: Resolved
  /** The URL of the address that was bound. */
  readonly bound: string
  readonly port: number
  readonly admin: AdminAddress["Service"]
  /** Whether requests need a key. */
  readonly hasKeys: boolean
}

const listening = ({ admin, bound, hasKeys, port, settings }: Listening): string => {
  const model = settings.models[0]?.name ?? "tiny-chat"
  const body = JSON.stringify({
    model,
    messages: [{ role: "user", content: "What is the capital of Japan?" }],
    temperature: 0
  })
  const key = hasKeys ? " -H 'authorization: Bearer KEY'" : ""
  const url = urlOf(settings.server.host, port)
  return [
    `Troupe listens on ${bound} (${settings.environment})`,
    `${Binding.callersText(settings.server, hasKeys)}.`,
    `Administration at ${adminText(admin)}`,
    "",
    modelTable(settings.models),
    "",
    "Try it:",
    `  curl -s ${url}/v1/chat/completions -H 'content-type: application/json'${key} -d '${body}'`,
    "",
    "Press Ctrl-C to stop after running requests have finished; twice to stop immediately."
  ].join("\n")
}

/** Logs the requests that a shutdown waits for, and the time limit. */
const logShutdown = ({ server }: Resolved) =>
  Effect.gen(function*() {
    const models = yield* Models
    const requests = (yield* models.statuses).reduce((sum, { queued, running }) => sum + running + queued, 0)
    yield* Effect.logInfo(
      requests === 0
        ? "Stopping; no requests are running."
        : `Stopping after ${requests === 1 ? "1 request has" : `${requests} requests have`} finished, in at most ` +
          `${durationText(Duration.toMillis(server.shutdownGrace))}. Press Ctrl-C again to stop immediately.`
    )
  })

/** A terminal that closes sends SIGHUP, which would end the process and every stream. */
const ignoreHangUp = Effect.gen(function*() {
  const services = yield* Effect.context()
  const onHangUp = () => {
    Effect.runForkWith(services)(Effect.logInfo("Ignoring SIGHUP. Send SIGTERM to stop the service."))
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => process.on("SIGHUP", onHangUp)),
    () => Effect.sync(() => process.off("SIGHUP", onHangUp))
  )
})

const listenError = (settings: Resolved, error: { readonly cause?: unknown }): CommandFailed => {
  const cause = error.cause as NodeJS.ErrnoException | undefined
  const { host, port } = settings.server
  const message = cause?.code === "EADDRINUSE"
    ? `Port ${port} of ${host} is already in use. Choose another port with --port or PORT.`
    : cause?.code === "EACCES"
    ? `This user may not listen on port ${port} of ${host}. Choose another port with --port or PORT.`
    : `Cannot listen on ${host}, port ${port}: ${cause?.message ?? "unknown reason"}.`
  return new CommandFailed({ message })
}

/** A model that does not fit in memory is a problem of the file, if there is one: named by its place there. */
const withPlace = Effect.fnUntraced(function*(file: string | undefined, error: InferenceError) {
  const { reason } = error
  if (reason._tag !== "InsufficientMemory") return yield* error
  const { source, text } = yield* SettingsFile.inspect({ ...service, file })
  if (text === undefined) return yield* error
  const [, model, index] = /^(.*)#(\d+)$/s.exec(reason.deployment)!
  const path = formatPath(["models", model!, "deployments", Number(index)])
  return yield* new SettingsError({
    source,
    problems: SettingsFile.located(text, [{ path, expected: reason.message.replace(/\.$/, "") }])
  })
})

export const serve = Command.make(
  "serve",
  { adminPort, config, host, port },
  ({ adminPort, config, host, port }) =>
    Effect.gen(function*() {
      const loaded = yield* SettingsFile.load({ ...service, file: Option.getOrUndefined(config) })
      const settings: Resolved = {
        ...loaded,
        server: {
          ...loaded.server,
          ...(yield* addressOf(loaded.server, {
            host: Option.getOrUndefined(host),
            port: Option.getOrUndefined(port)
          })),
          admin: { ...loaded.server.admin, ...(Option.isSome(adminPort) ? { port: adminPort.value } : {}) }
        }
      }
      const banner = Layer.effectDiscard(Effect.gen(function*() {
        const { address } = yield* HttpServer.HttpServer
        // The layer that is built last is finalized first. Added before the banner: a signal may arrive right after it.
        const services = yield* Effect.context<Models>()
        yield* Effect.addFinalizer(() => Effect.provide(logShutdown(settings), services))
        const admin = yield* AdminAddress
        if (admin.socket !== undefined) temporaryFiles.add(admin.socket)
        const keys = yield* VirtualKeys
        const { host, port } = settings.server
        const place = "port" in address
          ? { bound: `http://${NetAddress.formatUrlHost(address.address)}:${address.port}`, port: address.port }
          : { bound: urlOf(host, port), port }
        yield* Console.log(listening({ ...place, settings, admin, hasKeys: keys.areRequired() }))
        // Node.js would write it at an orderly exit only.
        flushCompileCache()
      }))
      return yield* banner.pipe(
        Layer.provide(App.service),
        Layer.provide(Layer.effectDiscard(ignoreHangUp)),
        Layer.provide(Layer.merge(Layer.succeed(Settings, settings), Logging.layer(settings))),
        Layer.launch,
        Effect.catchTag("ServeError", (error) => Effect.fail(listenError(settings, error))),
        Effect.catchTag("InferenceError", (error) => withPlace(Option.getOrUndefined(config), error)),
        // An orderly shutdown is a success.
        Effect.onInterrupt(() =>
          Effect.sync(() => {
            process.exitCode = 0
          })
        )
      )
    })
).pipe(
  Command.withDescription("Start the HTTP service and load the first deployment of each model"),
  Command.withExamples([
    { command: "troupe serve", description: "Serve troupe.yaml, or the embedded model" },
    {
      command: "troupe serve --port 8080 --config ./troupe.yaml",
      description: "Use another port and configuration file"
    }
  ])
)
