/** `troupe route`: which deployment would answer a request, and why, without sending it. */
import { Console, Effect, Layer, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as App from "../App.ts"
import { engineCapabilities } from "../domain/EngineProtocol.ts"
import * as Problem from "../domain/Problem.ts"
import * as RoutingOptions from "../domain/RoutingOptions.ts"
import { explain as explainRoute, ExplanationRequest } from "../services/routing/Explanation.ts"
import { Settings } from "../services/settings/Settings.ts"
import { withClient } from "./Client.ts"
import type { Target } from "./Flags.ts"
import { CommandFailed, json, loadWithoutSecrets, optionalText, target } from "./Flags.ts"
import * as Logging from "./Logging.ts"
import { printJson } from "./Output.ts"
import { explained } from "./RoutingText.ts"

const descriptions: Readonly<Record<string, string>> = {
  policy: "Policy to apply",
  strategy: "Strategy to apply",
  deployments: "Use only these deployments (comma-separated)",
  except: "Exclude these deployments (comma-separated)",
  fallbacks: "Fallback models, in order (comma-separated)",
  session: "Session ID, for strategies that keep a session on one deployment",
  task: "Task of the request, as deployments list it under tasks",
  retries: "Retries per deployment",
  "timeout-ms": "Timeout of the whole request, in milliseconds",
  continue: "true or false: continue a failed answer on another deployment"
}

/** The kinds of values in the help, where they are not text. */
const metavars: Readonly<Record<string, string>> = {
  retries: "integer",
  "timeout-ms": "integer",
  continue: "true|false"
}

/** A flag for each routing header of a request. */
const overrides = Object.fromEntries(RoutingOptions.headerNames.map((header) => {
  const name = header.slice("x-troupe-".length)
  const description = descriptions[name] ?? `Value of the header ${header}`
  const metavar = metavars[name] ?? "string"
  return [header, Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar(metavar), Flag.optional)]
}))

const options = {
  prompt: Argument.String("prompt").pipe(
    Argument.withDescription("Prompt of the request (default: unknown length)"),
    Argument.optional
  ),
  model: optionalText("model", "Requested model (default: the first configured model)"),
  explain: Flag.Boolean("explain").pipe(
    Flag.withDescription("Show scores, excluded deployments with reasons, and the attempt plan"),
    Flag.withDefault(false)
  ),
  tools: Flag.Boolean("tools").pipe(
    Flag.withDescription("The request has tools; same as --needs tools"),
    Flag.withDefault(false)
  ),
  needs: optionalText("needs", `Required capabilities (comma-separated): ${engineCapabilities.join(", ")}`),
  maxTokens: Flag.Int("max-tokens").pipe(Flag.withDescription("Maximum number of tokens to generate"), Flag.optional),
  tenant: optionalText("tenant", "Tenant of the request"),
  overrides,
  ...target,
  json
}

/** The flag for a field of the request. */
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

const requestOf = ({ maxTokens, model, needs, overrides, prompt, tenant, tools }: Input) => {
  const route = RoutingOptions.fromHeaders(present(overrides) as Readonly<Record<string, string>>)
  const named = Option.match(needs, { onNone: () => [], onSome: (text) => text.split(",").map((name) => name.trim()) })
  const request = {
    ...present({ prompt, model, maxTokens, tenant }),
    needs: [...new Set([...named, ...(tools ? ["tools"] : [])])],
    ...(route === undefined ? {} : { route })
  }
  return Effect.mapError(
    Schema.decodeUnknownEffect(ExplanationRequest, { errors: "all" })(request),
    (error) =>
      new CommandFailed({
        message: Problem.fromSchemaError(error)
          .map(({ expected, path }) => `${flagOf(path)}: ${expected}`)
          .join("; ")
      })
  )
}

/** The decision without a service: no model is loaded and there are no measurements. */
const fromConfiguration = (request: ExplanationRequest, { config }: Target) =>
  Effect.flatMap(
    loadWithoutSecrets(config),
    (settings) =>
      explainRoute(request).pipe(
        Effect.mapError(({ message }) => new CommandFailed({ message })),
        Effect.provide(App.runtime.pipe(
          Layer.provide(Layer.succeed(Settings, settings)),
          Layer.provideMerge(Logging.layer({ ...settings, logLevel: "Error" }))
        ))
      )
  )

const decide = Effect.fnUntraced(function*(request: ExplanationRequest, target: Target) {
  const call = withClient(target, (client) => client.admin.route({ payload: request }))
  const fromService = yield* Option.isSome(target.url)
    ? call
    : Effect.catchTag(call, "NoService", () => Effect.undefined)
  return fromService === undefined
    ? { source: "configuration" as const, explanation: yield* fromConfiguration(request, target) }
    : { source: "service" as const, explanation: fromService }
})

const sources = {
  service: "Decision of the running service:",
  configuration: "No service is running. Decision from the configuration, without measurements:"
}

export const route = Command.make("route", options, (input) =>
  Effect.gen(function*() {
    const request = yield* requestOf(input)
    const { explanation, source } = yield* Effect.catchTag(
      decide(request, input),
      "CommandFailed",
      ({ message }) => Effect.fail(new CommandFailed({ message: inFlags(message) }))
    )
    yield* input.json
      ? printJson({ source, ...explanation })
      : Console.log(`${sources[source]}\n${explained(explanation, input.explain)}`)
    // Scripts can test whether any deployment can answer.
    if (explanation.plan.lists.ordinary.length === 0) process.exitCode = 1
  })).pipe(
    Command.withDescription("Show which deployment would answer a request, without sending it"),
    Command.withExamples([
      {
        command: "troupe route \"What is 7 + 5?\" --model tiny-chat --explain",
        description: "Show scores and the attempt plan"
      },
      {
        command: "troupe route \"Hello!\" --strategy cost --tools",
        description: "Route by cost among deployments that support tools"
      }
    ])
  )
