/** `troupe policy`: how requests are routed and retried, as the configuration comes to it. */
import { Console, Effect, Option } from "effect"
import { Argument, Command } from "effect/cli"
import { routingOf } from "../domain/RoutingPolicy.ts"
import type { Resolved } from "../services/settings/Settings.ts"
import { CommandFailed, config, json, loadToShow, printJson, spanAsText, table } from "./Shared.ts"

/** What `troupe.yaml` calls otherwise. */
const written: Readonly<Record<string, string>> = {
  "selection.keep": "candidates",
  "fallbacks.ordinary": "fallbacks",
  "fallbacks.context": "contextFallbacks",
  "fallbacks.content": "contentFallbacks"
}

/** A figure's name and value as they are written in `troupe.yaml`, so that whoever reads them can change them. */
const asWritten = (path: string, value: string): ReadonlyArray<string> => {
  const name = written[path] ?? path.replace(/^selection\./, "")
  return name.endsWith("Ms") ? [name.slice(0, -2), value === "0" ? "false" : spanAsText(Number(value))] : [name, value]
}

/** One line a figure, by its path. */
const rows = (value: unknown, path = ""): ReadonlyArray<ReadonlyArray<string>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? Object.entries(value).flatMap(([key, inner]) => rows(inner, path === "" ? key : `${path}.${key}`))
    : [asWritten(path, Array.isArray(value) ? value.join(", ") : String(value))]

/** A policy of this name, else how a model of this name is routed. */
const find = (settings: Resolved, name: string): Effect.Effect<object, CommandFailed> => {
  const named = settings.policies.find((one) => one.name === name)
  if (named !== undefined) return Effect.succeed(named)
  const model = settings.models.find((one) => one.name === name)
  if (model === undefined) {
    const names = [...settings.policies, ...settings.models].map((one) => one.name)
    return Effect.fail(
      new CommandFailed({ message: `No policy or model is named "${name}". Available: ${names.join(", ")}.` })
    )
  }
  const { fallbacks, policy: { name: policyName, ...figures } } = routingOf(model, settings.policies)
  return Effect.succeed({ model: name, policy: policyName, ...figures, fallbacks })
}

const name = Argument.String("name").pipe(
  Argument.withDescription("Name of a policy or model (default: all policies)"),
  Argument.optional
)

const show = Command.make("show", { name, config, json }, (input) =>
  Effect.gen(function*() {
    const settings = yield* loadToShow(input.config)
    const one = Option.getOrUndefined(input.name)
    const found = one === undefined ? settings.policies : yield* find(settings, one)
    if (input.json) return yield* printJson(found)
    const all = Array.isArray(found) ? found : [found]
    yield* Console.log(all.map((each) => table(rows(each))).join("\n\n"))
  })).pipe(
    Command.withDescription("Print a policy, or the policy of a model, with all defaults"),
    Command.withExamples([
      { command: "troupe policy show", description: "Print all policies" },
      { command: "troupe policy show tiny-chat", description: "Print the policy and fallbacks of a model" }
    ])
  )

export const policy = Command.make("policy").pipe(
  Command.withDescription("Show how requests are routed and retried"),
  Command.withSubcommands([show])
)
