/** `troupe route`: who would answer a request, and why, without asking anybody. */
import { Console, Effect, Layer, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as App from "../App.ts"
import { abilities } from "../domain/EngineProtocol.ts"
import * as Problems from "../domain/Problem.ts"
import * as Overrides from "../domain/RoutingOptions.ts"
import type { Question } from "../services/routing/Explanation.ts"
import { explain as explainRoute, Question as QuestionSchema } from "../services/routing/Explanation.ts"
import { Settings } from "../services/settings/Settings.ts"
import type { Target } from "./Client.ts"
import { target, withClient } from "./Client.ts"
import { explained } from "./RoutingText.ts"
import { CommandFailed, json, loadToShow, logging, printJson } from "./Shared.ts"

const descriptions: Readonly<Record<string, string>> = {
  policy: "By this policy",
  strategy: "By this strategy",
  deployments: "Only these of the model's deployments, with commas",
  except: "None of these, with commas",
  fallbacks: "Models that stand in for it, with commas",
  session: "The session that it is of",
  task: "What it is about, as deployments name it in tasks",
  retries: "Attempts at one deployment after its first",
  "timeout-ms": "For the request as a whole, ms",
  continue: "true or false: another goes on where one fails in the middle"
}

/** One for each header that a request may have. */
const overrides = Object.fromEntries(Overrides.headerNames.map((header) => {
  const name = header.slice("x-troupe-".length)
  const description = descriptions[name] ?? `As the header ${header}`
  return [header, Flag.String(name).pipe(Flag.withDescription(description), Flag.optional)]
}))

const options = {
  prompt: Argument.String("prompt").pipe(
    Argument.withDescription("What would be asked; left out, its length is not known"),
    Argument.optional
  ),
  model: Flag.String("model").pipe(
    Flag.withDescription("The model that would be asked for; default the first that is configured"),
    Flag.optional
  ),
  explain: Flag.Boolean("explain").pipe(
    Flag.withDescription("Scores with their terms, who was ruled out and why, and the plan"),
    Flag.withDefault(false)
  ),
  tools: Flag.Boolean("tools").pipe(Flag.withDescription("It has tools"), Flag.withDefault(false)),
  needs: Flag.String("needs").pipe(
    Flag.withDescription(`What the deployment must be able to do, with commas: ${abilities.join(", ")}`),
    Flag.optional
  ),
  maxTokens: Flag.Int("max-tokens").pipe(Flag.withDescription("The most tokens to generate"), Flag.optional),
  tenant: Flag.String("tenant").pipe(Flag.withDescription("Whose request it is"), Flag.optional),
  overrides,
  ...target,
  json
}

/** A field of the question as the command line calls it. */
const flagOf = (path: string): string =>
  path === ""
    ? path
    : `--${path.replace(/^route\.?/, "").replace(/\[.*/, "").replaceAll(/[A-Z]/g, "-$&").toLowerCase()}`

const inFlags = (message: string): string => message.replace(/^(?:route\.)?[a-zA-Z]+(?:\[\d+\])?(?=: )/, flagOf)

const present = (some: object): object =>
  Object.fromEntries(
    Object.entries(some).flatMap(([key, value]: [string, Option.Option<unknown>]) =>
      Option.isSome(value) ? [[key, value.value]] : []
    )
  )

type Input = Command.Command.Config.Infer<typeof options>

const questionOf = ({ maxTokens, model, needs, overrides, prompt, tenant, tools }: Input) => {
  const route = Overrides.fromHeaders(present(overrides) as Readonly<Record<string, string>>)
  const named = Option.match(needs, { onNone: () => [], onSome: (text) => text.split(",").map((name) => name.trim()) })
  const question = {
    ...present({ prompt, model, maxTokens, tenant }),
    needs: [...new Set([...named, ...(tools ? ["tools"] : [])])],
    ...(route === undefined ? {} : { route })
  }
  return Effect.mapError(
    Schema.decodeUnknownEffect(QuestionSchema, { errors: "all" })(question),
    (error) =>
      new CommandFailed({
        message: Problems.fromSchemaError(error).map(({ expected, path }) => `${flagOf(path)}: ${expected}`).join("; ")
      })
  )
}

/** Nothing is loaded and nothing is measured yet. */
const fromConfiguration = (question: Question, { config }: Target) =>
  Effect.flatMap(
    loadToShow(config),
    (settings) =>
      explainRoute(question).pipe(
        Effect.mapError(({ message }) => new CommandFailed({ message })),
        Effect.provide(App.runtime.pipe(
          Layer.provide(Layer.succeed(Settings, settings)),
          Layer.provideMerge(logging({ ...settings, logLevel: "Error" }))
        ))
      )
  )

const decide = Effect.fnUntraced(function*(question: Question, target: Target) {
  const asked = withClient(target, (client) => client.admin.route({ payload: question }))
  const told = yield* Option.isSome(target.url)
    ? asked
    : Effect.catchTag(asked, "NoService", () => Effect.undefined)
  return told === undefined
    ? { source: "configuration" as const, explanation: yield* fromConfiguration(question, target) }
    : { source: "service" as const, explanation: told }
})

const sources = {
  service: "As the running service would decide now.",
  configuration: "No service runs: by the configuration alone, with nothing measured."
}

export const route = Command.make("route", options, (input) =>
  Effect.gen(function*() {
    const question = yield* questionOf(input)
    const { explanation, source } = yield* Effect.catchTag(
      decide(question, input),
      "CommandFailed",
      ({ message }) => Effect.fail(new CommandFailed({ message: inFlags(message) }))
    )
    yield* input.json
      ? printJson({ source, ...explanation })
      : Console.log(`${sources[source]}\n${explained(explanation, input.explain)}`)
    // For scripts that ask whether anybody can.
    if (explanation.plan.lists.ordinary.length === 0) process.exitCode = 1
  })).pipe(
    Command.withDescription("Tell who would answer a request, and why, without asking anybody"),
    Command.withExamples([
      { command: "troupe route \"What is 7 + 5?\" --model tiny-chat --explain", description: "With scores and plan" },
      { command: "troupe route \"Hello!\" --strategy cost --tools", description: "As a request with these wishes" }
    ])
  )
