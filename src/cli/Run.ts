/** `troupe run`: sends one prompt to a model and prints the answer on standard output. */
import { Effect, Layer, Option, Schema, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { text as readAll } from "node:stream/consumers"
import * as App from "../App.ts"
import type { Request } from "../domain/Inference.ts"
import { Request as RequestSchema } from "../domain/Inference.ts"
import * as Problem from "../domain/Problem.ts"
import { plainText } from "../domain/Text.ts"
import * as SettingsFile from "../layers/settings/SettingsFile.ts"
import { Inference } from "../services/inference/Inference.ts"
import { Settings } from "../services/settings/Settings.ts"
import { CommandFailed, config, json } from "./Flags.ts"
import * as Logging from "./Logging.ts"
import * as NamedModels from "./NamedModels.ts"
import { printJson } from "./Output.ts"

/** 128 plus SIGPIPE, which shells expect when the reader of a pipe has ended. */
const brokenPipe = 141

/** Waits until the text is written; ends the command quietly when the reader of the pipe has ended. */
const writeOut = (text: string) =>
  Effect.callback<void, CommandFailed>((resume) => {
    // Only a terminal interprets control sequences; a program gets the answer unchanged.
    process.stdout.write(process.stdout.isTTY ? plainText(text) : text, (error?: NodeJS.ErrnoException | null) => {
      if (!error) return resume(Effect.void)
      if (error.code !== "EPIPE") {
        return resume(Effect.fail(new CommandFailed({ message: `Cannot write to standard output: ${error.message}` })))
      }
      process.exitCode = brokenPipe
      resume(Effect.interrupt)
    })
  })

const optionalNumber = (name: string, description: string) =>
  Flag.Finite(name).pipe(Flag.withDescription(description), Flag.optional)

const runOptions = {
  model: Argument.String("model").pipe(
    Argument.withDescription("Model to ask: configured, in the store, a path, or a source to pull, such as hf:org/repo")
  ),
  prompt: Argument.String("prompt").pipe(
    Argument.withDescription("Prompt (default: read from standard input)"),
    Argument.optional
  ),
  system: Flag.String("system").pipe(Flag.withDescription("System message"), Flag.optional),
  temperature: optionalNumber("temperature", "Sampling temperature from 0 (most likely token) to 2 (default: 1)"),
  topP: optionalNumber("top-p", "Nucleus sampling probability from 0 to 1 (default: 1)"),
  seed: Flag.Int("seed").pipe(Flag.withDescription("Seed; the same seed gives the same answer"), Flag.optional),
  maxTokens: Flag.Int("max-tokens").pipe(Flag.withDescription("Maximum number of tokens to generate"), Flag.optional),
  stop: Flag.String("stop").pipe(
    Flag.withDescription("Stop sequence; may be repeated"),
    Flag.atLeast(0)
  ),
  json,
  config
}

const noPrompt = new CommandFailed({ message: "No prompt. Pass one as an argument or pipe it to standard input." })

const promptOf = (prompt: Option.Option<string>) =>
  Option.match(prompt, {
    onSome: Effect.succeed,
    onNone: () =>
      process.stdin.isTTY
        ? Effect.succeed("")
        : Effect.map(Effect.promise(() => readAll(process.stdin)), (text) => text.trimEnd())
  }).pipe(Effect.filterOrFail((text) => text.trim() !== "", () => noPrompt))

const runText = Effect.fnUntraced(function*(request: Request) {
  const inference = yield* Inference
  // Without a listener, a closed pipe would also be an uncaught exception.
  process.stdout.on("error", () => {})
  let begun = false
  yield* Stream.runForEachArray(inference.stream(request), (events) => {
    const text = events.map((event) => event.type === "text" ? event.text : "").join("")
    begun ||= text !== ""
    return writeOut(text)
  }).pipe(
    // The error starts on a new line.
    Effect.tapError(() => begun ? writeOut("\n") : Effect.void)
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

/** The flag for a field of the request: `topP` is `--top-p`. */
const flagOf = (path: string): string =>
  `--${path.replace(/\[.*/, "").replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

/** The request; fails with the problem of each flag. */
const decodeRequest = (request: Request) =>
  Effect.mapError(Schema.decodeEffect(RequestSchema, { errors: "all" })(request), (error) => {
    const problems = Problem.fromSchemaError(error).map(({ expected, path }) => `${flagOf(path)}: ${expected}`)
    return new CommandFailed({ message: problems.join("; ") })
  })

export const run = Command.make("run", runOptions, (input) =>
  Effect.gen(function*() {
    const configured = yield* SettingsFile.load({ file: Option.getOrUndefined(input.config), engineHost: "thread" })
    const model = yield* NamedModels.find(configured, input.model)
    const settings = SettingsFile.withModel(configured, model)
    const prompt = yield* promptOf(input.prompt)
    const request = yield* decodeRequest({
      model: model.name,
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
        Layer.provideMerge(Logging.layer({ ...settings, logLevel: "Error" }))
      ))
    )
  })).pipe(
    Command.withDescription("Send one prompt to a model and print the answer as it is generated"),
    Command.withExamples([
      {
        command: "troupe run tiny-chat \"What is the capital of Japan?\" --temperature 0",
        description: "Ask one question"
      },
      {
        command: "echo 'Count to 7.' | troupe run tiny-chat --json",
        description: "Read the prompt from a pipe and print JSON"
      }
    ])
  )
