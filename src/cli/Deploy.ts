/** `troupe deploy`: replaces the processes of a running service, without a refused connection and without a cut answer. */
import { Console, Duration, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { request } from "node:http"
import { tmpdir } from "node:os"
import { createInterface } from "node:readline"
import { Span } from "../domain/Fields.ts"
import { deploySocketOf } from "../services/processes/ProcessGroup.ts"
import { defaultSocket } from "../services/settings/Resolution.ts"
import type { Line, State } from "./DeployServer.ts"
import { addressOf, CommandFailed, config, json, loadWithoutSecrets } from "./Flags.ts"
import { asInvoked, printJson } from "./Output.ts"

const step = Flag.String("step").pipe(
  Flag.withSchema(Span),
  Flag.withDescription(
    "How long each step lasts, such as '2 minutes' (default: deploy.every in the configuration, 5 minutes)"
  ),
  Flag.optional
)

const noSupervisor = (port: number): CommandFailed =>
  new CommandFailed({
    message:
      `No service that can be replaced runs on port ${port}. Start it with server.supervised: true or with several ` +
      "processes, as the same user; if it listens on another port, set PORT."
  })

/** The socket file of the supervisor of the service with this configuration. */
const socketOf = Effect.fnUntraced(function*(file: Option.Option<string>) {
  const { server } = yield* loadWithoutSecrets(file)
  const { port } = yield* addressOf(server)
  return { port, socketPath: deploySocketOf(defaultSocket(port, tmpdir(), process)) }
})

/** Calls the supervisor; the status, after each line of the answer has been read. */
const call = (
  { port, socketPath }: { readonly port: number; readonly socketPath: string },
  method: "DELETE" | "GET" | "POST",
  body: object | undefined,
  onLine: (line: string) => void
): Effect.Effect<number, CommandFailed> =>
  Effect.callback((resume) => {
    const asked = request({ socketPath, method, path: "/", headers: { host: "localhost" }, agent: false })
    asked.on("error", () => resume(Effect.fail(noSupervisor(port))))
    asked.on("response", (response) => {
      const lines = createInterface({ input: response })
      lines.on("line", onLine).on("close", () => resume(Effect.succeed(response.statusCode!)))
    })
    asked.end(body === undefined ? undefined : JSON.stringify(body))
    return Effect.sync(() => void asked.destroy())
  })

const start = Effect.fnUntraced(function*(step: Option.Option<Duration.Duration>, file: Option.Option<string>) {
  const services = yield* Effect.context()
  const print = Effect.runSyncWith(services)
  let last: Line | undefined
  yield* call(
    yield* socketOf(file),
    "POST",
    Option.isSome(step) ? { stepMs: Duration.toMillis(step.value) } : {},
    (text) => {
      last = JSON.parse(text) as Line
      if (last.phase !== "failed") print(Console.log(last.message))
    }
  )
  if (last?.phase === "finished") return
  return yield* new CommandFailed({ message: last?.message ?? "The supervisor ended." })
})

const stateText = ({ generation, isRunning, progress }: State): string => {
  const current = `Generation ${generation} has the port.`
  if (progress === undefined) return `${current} Nothing was deployed since the start.`
  const at = new Date(progress.at).toISOString()
  return `${current} ${isRunning ? "A deploy is running" : "The last deploy has ended"}: ${progress.message} (${at}).`
}

const status = Command.make("status", { config, json }, ({ config, json }) =>
  Effect.gen(function*() {
    let answer = ""
    yield* call(yield* socketOf(config), "GET", undefined, (line) => {
      answer += line
    })
    const state = JSON.parse(answer) as State
    yield* json ? printJson(state) : Console.log(stateText(state))
  })).pipe(Command.withDescription("Show the generation that has the port, and the last deploy"))

const rollback = Command.make("rollback", { config }, ({ config }) =>
  Effect.gen(function*() {
    const code = yield* call(yield* socketOf(config), "DELETE", undefined, () => {})
    if (code === 200) return yield* Console.log("The old generation gets all new connections again.")
    return yield* new CommandFailed({
      message: asInvoked(
        "No deploy can be rolled back: none is running, or the old generation ends. See `troupe deploy status`."
      )
    })
  })).pipe(Command.withDescription("Return to the old generation while a deploy is running"))

export const deploy = Command.make(
  "deploy",
  { config, step },
  ({ config, step }) => start(step, config)
).pipe(
  Command.withDescription(
    "Replace the processes of the running service by new ones, with the program and the configuration of now"
  ),
  Command.withSubcommands([status, rollback]),
  Command.withExamples([
    {
      command: "troupe deploy",
      description: "Move 10, 30, 70 and 100 % of new connections, 5 minutes each, or as configured"
    },
    { command: "troupe deploy --step '5 minutes'", description: "Take 20 minutes for it" }
  ])
)
