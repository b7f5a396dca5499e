/** The commands of `troupe`. Handlers fail with an error whose message is one clear line; `main.ts` prints it. */
import { Console, Effect, Layer, Logger, Option, References, Schema, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { HttpServer } from "effect/http"
import { text as readAll } from "node:stream/consumers"
import * as App from "./App.ts"
import * as SettingsFile from "./layers/SettingsFile.ts"
import type { Request } from "./services/Inference.ts"
import { Inference, Request as RequestSchema } from "./services/Inference.ts"
import type { Deployment, Model } from "./services/Model.ts"
import * as Problems from "./services/Problem.ts"
import type { Resolved } from "./services/Settings.ts"
import { Settings } from "./services/Settings.ts"
import { fileJsonSchema } from "./services/SettingsSchema.ts"

/** What a command could not do, in words for whoever typed it. */
export class CommandFailed extends Schema.TaggedError<CommandFailed>()("CommandFailed", {
  message: Schema.String
}) {}

const config = Flag.String("config").pipe(
  Flag.withDescription("Configuration file; default troupe.yaml in this folder, or the embedded tiny-chat"),
  Flag.optional
)

const json = Flag.Boolean("json").pipe(Flag.withDescription("Print JSON, for programs"), Flag.withDefault(false))

/** Logs go to standard error: standard output is the command's own. */
const logging = (settings: Resolved) =>
  Layer.mergeAll(
    Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)]),
    Layer.succeed(References.MinimumLogLevel, settings.logLevel)
  )

const printJson = (value: unknown) => Console.log(JSON.stringify(value, null, 2))

/** Rows under headings, as wide as the widest cell. */
const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column]!)).join("  ").trimEnd()).join("\n")
}

const sourceOf = ({ options }: Deployment): string => options.engine === "llama" ? options.file : "no weights: a fake"

const modelRows = (models: ReadonlyArray<Model>): ReadonlyArray<ReadonlyArray<string>> => [
  ["MODEL", "ENGINE", "SOURCE"],
  ...models.flatMap(({ deployments, name }) =>
    deployments.map((deployment) => [name, deployment.options.engine, sourceOf(deployment)])
  )
]

const host = Flag.String("host").pipe(
  Flag.withDescription("Address to listen on; default HOST, then the configuration's, then 127.0.0.1"),
  Flag.optional
)

const port = Flag.Int("port").pipe(
  Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65535 }))),
  Flag.withDescription("Port to listen on, 0 for any free one; default PORT, then the configuration's, then 3000"),
  Flag.optional
)

const portFromEnvironment = Effect.suspend(() => {
  const text = process.env["PORT"]
  if (text === undefined || text === "") return Effect.undefined
  return /^\d{1,5}$/.test(text) && Number(text) <= 65535
    ? Effect.succeed(Number(text))
    : Effect.fail(new CommandFailed({ message: `PORT: Expected a number between 0 and 65535, not "${text}"` }))
})

const listening = (settings: Resolved, url: string): string => {
  const model = settings.models[0]?.name ?? "tiny-chat"
  const body = JSON.stringify({
    model,
    messages: [{ role: "user", content: "What is the capital of Japan?" }],
    temperature: 0
  })
  return [
    `Troupe listens on ${url} (${settings.environment})`,
    "",
    table(modelRows(settings.models)),
    "",
    "Ask:",
    `  curl -s ${url}/v1/chat/completions -H 'content-type: application/json' -d '${body}'`,
    "",
    "Ctrl-C stops it."
  ].join("\n")
}

/** The address as a client on this machine would dial it. */
const urlOf = (hostName: string, boundPort: number): string => {
  const dial = hostName === "0.0.0.0" || hostName === "::" ? "127.0.0.1" : hostName
  return `http://${dial.includes(":") ? `[${dial}]` : dial}:${boundPort}`
}

const explainServe = (settings: Resolved, error: { readonly cause?: unknown }): CommandFailed => {
  const cause = error.cause as NodeJS.ErrnoException | undefined
  const { host, port } = settings.server
  const message = cause?.code === "EADDRINUSE"
    ? `Port ${port} of ${host} is already in use. Choose another with --port or PORT.`
    : cause?.code === "EACCES"
    ? `Port ${port} of ${host} may not be used by this user. Choose another with --port or PORT.`
    : `Cannot listen on ${host}, port ${port}: ${cause?.message ?? "unknown reason"}.`
  return new CommandFailed({ message })
}

const serve = Command.make("serve", { config, host, port }, ({ config, host, port }) =>
  Effect.gen(function*() {
    const loaded = yield* SettingsFile.load({ file: Option.getOrUndefined(config), engineHost: "process" })
    const settings: Resolved = {
      ...loaded,
      server: {
        ...loaded.server,
        host: Option.getOrUndefined(host) ?? (process.env["HOST"] || loaded.server.host),
        port: Option.getOrUndefined(port) ?? (yield* portFromEnvironment) ?? loaded.server.port
      }
    }
    const banner = Layer.effectDiscard(Effect.gen(function*() {
      const { address } = yield* HttpServer.HttpServer
      const bound = "port" in address ? address.port : settings.server.port
      yield* Console.log(listening(settings, urlOf(settings.server.host, bound)))
    }))
    return yield* banner.pipe(
      Layer.provide(App.service),
      Layer.provide(Layer.merge(Layer.succeed(Settings, settings), logging(settings))),
      Layer.launch,
      Effect.catchTag("ServeError", (error) => Effect.fail(explainServe(settings, error))),
      // A service that is asked to stop and stops in order has done its work.
      Effect.onInterrupt(() =>
        Effect.sync(() => {
          process.exitCode = 0
        })
      )
    )
  })).pipe(
    Command.withDescription("Start the service: HTTP on one port, every configured model loaded"),
    Command.withExamples([
      { command: "troupe serve", description: "Serve troupe.yaml, or the embedded model" },
      { command: "troupe serve --port 8080 --config ./troupe.yaml", description: "Another port and file" }
    ])
  )

/** 128 and SIGPIPE: what shells expect of a program whose reader has gone. */
const brokenPipe = 141

/** Waits until the text is taken; ends the command quietly when whoever reads our output has gone. */
const writeOut = (text: string) =>
  Effect.callback<void>((resume) => {
    process.stdout.write(text, (error) => {
      if (!error) return resume(Effect.void)
      process.exitCode = brokenPipe
      resume(Effect.interrupt)
    })
  })

const optionalNumber = (name: string, description: string) =>
  Flag.Finite(name).pipe(Flag.withDescription(description), Flag.optional)

const runOptions = {
  model: Argument.String("model").pipe(Argument.withDescription("A model's name, as `troupe models` lists them")),
  prompt: Argument.String("prompt").pipe(
    Argument.withDescription("What to say to it; without it, standard input is read"),
    Argument.optional
  ),
  system: Flag.String("system").pipe(Flag.withDescription("A system message to begin with"), Flag.optional),
  temperature: optionalNumber("temperature", "0 is greedy, up to 2; default 1"),
  topP: optionalNumber("top-p", "Nucleus sampling, 0 to 1; default 1"),
  seed: Flag.Int("seed").pipe(Flag.withDescription("The same seed gives the same answer"), Flag.optional),
  maxTokens: Flag.Int("max-tokens").pipe(Flag.withDescription("The most tokens to generate"), Flag.optional),
  stop: Flag.String("stop").pipe(
    Flag.withDescription("End the answer before this text; may be repeated"),
    Flag.atLeast(0)
  ),
  json,
  config
}

const promptOf = (prompt: Option.Option<string>) =>
  Option.match(prompt, {
    onSome: Effect.succeed,
    onNone: () =>
      process.stdin.isTTY
        ? Effect.fail(new CommandFailed({ message: "What should the model be asked? Give a prompt, or pipe one in." }))
        : Effect.map(Effect.promise(() => readAll(process.stdin)), (text) => text.trimEnd())
  })

const runText = Effect.fnUntraced(function*(request: Request) {
  const inference = yield* Inference
  // Without a listener a closed pipe is an uncaught exception, besides the error that the write itself reports.
  process.stdout.on("error", () => {})
  yield* Stream.runForEachArray(
    inference.stream(request),
    (events) => writeOut(events.map((event) => event.type === "text" ? event.text : "").join(""))
  )
  yield* writeOut("\n")
})

const runJson = Effect.fnUntraced(function*(request: Request) {
  const inference = yield* Inference
  yield* printJson(yield* inference.generate(request))
})

const messagesOf = (system: Option.Option<string>, prompt: string): Request["messages"] => {
  const question = { role: "user", content: prompt } as const
  return Option.match(system, {
    onNone: () => [question] as const,
    onSome: (content) => [{ role: "system", content } as const, question] as const
  })
}

const present = <Key extends string, Value>(key: Key, value: Option.Option<Value>) =>
  Option.match(value, { onNone: () => ({}), onSome: (some) => ({ [key]: some } as { readonly [K in Key]: Value }) })

/** The request, or what is wrong with each option. */
const decodeRequest = (request: Request) =>
  Effect.mapError(
    Schema.decodeEffect(RequestSchema, { errors: "all" })(request),
    (error) => new CommandFailed({ message: Problems.fromSchemaError(error).map(Problems.format).join("; ") })
  )

const run = Command.make("run", runOptions, (input) =>
  Effect.gen(function*() {
    const settings = yield* SettingsFile.load({ file: Option.getOrUndefined(input.config), engineHost: "thread" })
    const prompt = yield* promptOf(input.prompt)
    const request = yield* decodeRequest({
      model: input.model,
      messages: messagesOf(input.system, prompt),
      ...present("temperature", input.temperature),
      ...present("topP", input.topP),
      ...present("seed", input.seed),
      ...present("maxTokens", input.maxTokens),
      ...(input.stop.length === 0 ? {} : { stop: input.stop })
    })
    yield* (input.json ? runJson(request) : runText(request)).pipe(
      Effect.provide(App.runtime.pipe(
        Layer.provide(Layer.succeed(Settings, settings)),
        Layer.provideMerge(logging({ ...settings, logLevel: "Error" }))
      ))
    )
  })).pipe(
    Command.withDescription("Ask a model once; the answer streams to standard output"),
    Command.withExamples([
      {
        command: "troupe run tiny-chat \"What is the capital of Japan?\" --temperature 0",
        description: "One question"
      },
      { command: "echo 'Count to 7.' | troupe run tiny-chat --json", description: "A prompt from a pipe, JSON out" }
    ])
  )

const models = Command.make("models", { config, json }, ({ config, json }) =>
  Effect.gen(function*() {
    const settings = yield* SettingsFile.load({ file: Option.getOrUndefined(config) })
    if (json) {
      return yield* printJson(settings.models.map(({ deployments, name }) => ({
        name,
        deployments: deployments.map(({ id, options }) => ({ id, ...options }))
      })))
    }
    yield* Console.log(table(modelRows(settings.models)))
  })).pipe(Command.withDescription("List the configured models"))

const check = Command.make(
  "check",
  { config, json },
  ({ config, json }) =>
    SettingsFile.load({ file: Option.getOrUndefined(config) }).pipe(
      Effect.matchEffect({
        onSuccess: (settings) => {
          const names = settings.models.map((model) => model.name)
          return json
            ? printJson({ valid: true, environment: settings.environment, models: names })
            : Console.log(
              `The configuration is valid. Environment: ${settings.environment}. Models: ${names.join(", ")}.`
            )
        },
        onFailure: (error) =>
          json
            ? Effect.andThen(
              printJson({ valid: false, source: error.source, problems: error.problems }),
              Effect.sync(() => {
                process.exitCode = 1
              })
            )
            : Effect.fail(error)
      })
    )
).pipe(Command.withDescription("Check the configuration of every environment, without starting anything"))

const schema = Command.make("schema", {}, () => printJson(fileJsonSchema())).pipe(
  Command.withDescription("Print the JSON Schema of troupe.yaml, for editors")
)

const configCommand = Command.make("config").pipe(
  Command.withDescription("Check the configuration, or print its schema"),
  Command.withSubcommands([check, schema])
)

/** The whole command line. */
export const troupe = Command.make("troupe").pipe(
  Command.withDescription("Run language models as supervised actors: as a service, or once from the command line"),
  Command.withSubcommands([serve, run, models, configCommand])
)
