/** `troupe policy`: how requests are routed and retried, with all defaults of the configuration. */
import { Console, Effect, Option } from "effect"
import { Argument, Command } from "effect/cli"
import { durationText } from "../domain/Fields.ts"
import { routingOf } from "../domain/RoutingPolicy.ts"
import type { Resolved } from "../services/settings/Settings.ts"
import { CommandFailed, config, json, loadWithoutSecrets } from "./Flags.ts"
import { printJson, table } from "./Output.ts"

/** Names in `troupe.yaml` of fields with another name in a policy. */
const fieldNames: Readonly<Record<string, string>> = {
  "selection.keep": "candidates",
  "fallbacks.ordinary": "fallbacks",
  "fallbacks.context": "contextFallbacks",
  "fallbacks.content": "contentFallbacks"
}

/** Name and value as they are written in `troupe.yaml`. */
const asSetting = (path: string, value: string): ReadonlyArray<string> => {
  const name = fieldNames[path] ?? path.replace(/^selection\./, "")
  return name.endsWith("Ms")
    ? [name.slice(0, -2), value === "0" ? "false" : durationText(Number(value))]
    : [name, value]
}

/** Names in one line; other lists as they are written in `troupe.yaml`. */
const listText = (list: ReadonlyArray<unknown>): string =>
  list.every((item) => typeof item === "string") ? list.join(", ") : `[${list.join(", ")}]`

/** One row for each setting. */
const rows = (value: unknown, path = ""): ReadonlyArray<ReadonlyArray<string>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? Object.entries(value).flatMap(([key, inner]) => rows(inner, path === "" ? key : `${path}.${key}`))
    : [asSetting(path, Array.isArray(value) ? listText(value) : String(value))]

/** The policy of this name, else the routing of the model of this name. */
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
    const settings = yield* loadWithoutSecrets(input.config)
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
