/** `troupe rollout`: gradual rollouts of a running service. */
import type { Duration } from "effect"
import { Console, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { Span } from "../domain/Fields.ts"
import { ModelNotFound } from "../domain/InferenceError.ts"
import * as Problem from "../domain/Problem.ts"
import type { RolloutAction, RolloutView } from "../layers/http/RolloutSchema.ts"
import { RolloutSettings } from "../services/rollout/RolloutSettings.ts"
import { withClient } from "./Client.ts"
import type { Target } from "./Flags.ts"
import { CommandFailed, json, target } from "./Flags.ts"
import { printJson } from "./Output.ts"
import { experimentTable, rolloutTable, rolloutText } from "./RolloutText.ts"
import { shadowTable, shadowText } from "./ShadowText.ts"

const print = (asJson: boolean, rollout: RolloutView) => asJson ? printJson(rollout) : Console.log(rolloutText(rollout))

const setting = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.optional)

const span = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withSchema(Span), Flag.withDescription(description), Flag.optional)

const startOptions = {
  model: Argument.String("model").pipe(
    Argument.withSchema(Schema.NonEmptyString),
    Argument.withDescription("Name of a configured model")
  ),
  to: Flag.String("to").pipe(
    Flag.withSchema(Schema.NonEmptyString),
    Flag.withDescription(
      "ID of the deployment that is to take its requests, such as chat#1; or another model of their provider, or another file"
    )
  ),
  steps: setting("steps", "Shares of requests, such as 0.1,0.3,0.7,1 (default: as configured)"),
  every: span("every", "How long a step lasts at least, such as \"5 minutes\" (default: as configured)"),
  evaluateEvery: span("evaluate-every", "How often the versions are compared (default: as configured)"),
  minRequests: Flag.Int("min-requests").pipe(
    Flag.withDescription("Requests of the new version before a step can end (default: as configured)"),
    Flag.optional
  ),
  errorRate: setting(
    "error-rate",
    "Share of failures above which it is rolled back, or false (default: as configured)"
  ),
  ...target,
  json
}

const decodeSettings = Schema.decodeUnknownEffect(Schema.toType(RolloutSettings), { onExcessProperty: "error" })

const numbers = (text: string): ReadonlyArray<number> =>
  text.split(",").map((part) => part.trim() === "" ? Number.NaN : Number(part))

interface Given {
  readonly steps: Option.Option<string>
  readonly every: Option.Option<Duration.Duration>
  readonly evaluateEvery: Option.Option<Duration.Duration>
  readonly minRequests: Option.Option<number>
  readonly errorRate: Option.Option<string>
}

/** A problem of a setting, by the name and the syntax of its flag. */
const ofFlag = ({ expected, path }: Problem.Problem): string => {
  const [name = ""] = path.split("[")
  const flag = name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  return `--${flag}: ${expected.replace(/\[([\d., ]+)\]/, (_, list: string) => list.replaceAll(" ", ""))}`
}

/** The settings that flags give. */
const settingsOf = ({ errorRate, every, evaluateEvery, minRequests, steps }: Given) => {
  const given = {
    steps: Option.map(steps, numbers),
    every,
    evaluateEvery,
    minRequests,
    errorRate: Option.map(errorRate, (text) => text === "false" ? false : Number(text || Number.NaN))
  }
  const found = Object.fromEntries(
    Object.entries(given).flatMap(([name, value]) => Option.isSome<unknown>(value) ? [[name, value.value]] : [])
  )
  return Effect.mapError(
    decodeSettings(found),
    (error) => new CommandFailed({ message: `${Problem.fromSchemaError(error).map(ofFlag).join("; ")}.` })
  )
}

const start = Command.make(
  "start",
  startOptions,
  ({ config, json, model, to, url, ...flags }) =>
    Effect.gen(function*() {
      const settings = yield* settingsOf(flags)
      const rollout = yield* withClient(
        { config, url },
        (client) =>
          client.rollouts.start({
            payload: { model, to, ...(Object.keys(settings).length === 0 ? {} : { settings }) }
          })
      )
      yield* print(json, rollout)
    })
).pipe(
  Command.withDescription("Give a deployment a growing share of a model's requests"),
  Command.withExamples([
    {
      command: "troupe rollout start chat --to chat#1",
      description: "Roll out the second deployment of the model chat"
    },
    {
      command: "troupe rollout start chat --to chat#1 --steps 0.05,0.5,1 --every \"1 hour\"",
      description: "In other steps"
    }
  ])
)

const which = Argument.String("rollout").pipe(
  Argument.withDescription("ID of a rollout, or name of a model for its newest one"),
  Argument.withSchema(Schema.NonEmptyString)
)

const list = Command.make("list", { ...target, json }, ({ json, ...target }) =>
  Effect.gen(function*() {
    const { experiments, rollouts, shadows } = yield* withClient(target, (client) => client.rollouts.list({}))
    if (json) return yield* printJson({ rollouts, experiments, shadows })
    yield* Console.log(rollouts.length === 0 ? "No rollouts yet." : rolloutTable(rollouts))
    if (experiments.length > 0) yield* Console.log(`\n${experimentTable(experiments)}`)
    if (shadows.length > 0) yield* Console.log(`\n${shadowTable(shadows)}`)
  })).pipe(Command.withDescription("List the rollouts, A/B tests and copies of requests"), Command.withAlias("ls"))

const status = Command.make(
  "status",
  { rollout: Argument.optional(which), ...target, json },
  (given) =>
    Effect.gen(function*() {
      const { json, rollout: named, ...target } = given
      const { experiments, rollouts } = yield* withClient(target, (client) => client.rollouts.list({}))
      if (Option.isSome(named)) {
        const test = experiments.find(({ model }) => model === named.value)
        if (test !== undefined && rollouts.every(({ model }) => model !== test.model)) {
          return yield* json ? printJson(test) : Console.log(experimentTable([test]))
        }
        return yield* Effect.flatMap(
          withClient(target, (client) => client.rollouts.find({ params: { rollout: named.value } })),
          (rollout) => print(json, rollout)
        )
      }
      const [newest] = rollouts
      if (newest === undefined) return yield* new CommandFailed({ message: "No rollouts yet." })
      yield* print(json, newest)
    })
).pipe(
  Command.withDescription(
    "Show a rollout with its evidence: the newest one, unless one is named; or the A/B test of a model without a rollout"
  ),
  Command.withExamples([{ command: "troupe rollout status chat", description: "Show the newest rollout of chat" }])
)

const noCopies = (which: string) =>
  new CommandFailed({ message: `${which} copies of requests. Set shadow of the model in the configuration.` })

/** The error for a model without copies, or for a name that no model has. */
const noCopiesOf = Effect.fnUntraced(function*(model: string, target: Target) {
  const { deployments } = yield* withClient(target, (client) => client.admin.deployments({}))
  const available = [...new Set(deployments.map((one) => one.model))]
  return yield* available.includes(model)
    ? noCopies(`"${model}" does not have`)
    : new CommandFailed({ message: new ModelNotFound({ available, model }).message })
})

const shadow = Command.make(
  "shadow",
  {
    model: Argument.String("model").pipe(
      Argument.withSchema(Schema.NonEmptyString),
      Argument.withDescription("Name of a model whose requests are copied (default: the first)"),
      Argument.optional
    ),
    ...target,
    json
  },
  ({ json, model, ...target }) =>
    Effect.gen(function*() {
      const { shadows } = yield* withClient(target, (client) => client.rollouts.list({}))
      const found = shadows.find((one) => Option.isNone(model) || one.model === model.value)
      if (found !== undefined) return yield* json ? printJson(found) : Console.log(shadowText(found))
      return yield* Option.isNone(model) ? noCopies("No model has") : noCopiesOf(model.value, target)
    })
).pipe(
  Command.withDescription("Show what the copies of a model's requests have shown: agreement, failures, times and cost"),
  Command.withExamples([{ command: "troupe rollout shadow chat", description: "Show the copies of chat" }])
)

/** Whether its result withholds variants of an A/B test, which can be resumed. */
const withholds = ({ experiment, outcome }: RolloutView): boolean =>
  outcome !== undefined && experiment !== undefined && experiment.withheld.length > 0

/** The only rollout that has not ended; to resume, also the only one that withholds variants of an A/B test. */
const onlyOne = Effect.fnUntraced(function*(to: Target, action: RolloutAction) {
  const { rollouts } = yield* withClient(to, (client) => client.rollouts.list({}))
  const [first, ...others] = rollouts.filter((one) =>
    one.outcome === undefined || (action === "resume" && withholds(one))
  )
  if (first === undefined) return yield* new CommandFailed({ message: "No rollout is running." })
  if (others.length === 0) return first.id
  const names = [first, ...others].map(({ id, model }) => `${id} of ${model}`).join(", ")
  return yield* new CommandFailed({ message: `Several rollouts match. Name one: ${names}.` })
})

const act = (action: RolloutAction, description: string) =>
  Command.make(
    action,
    { rollout: Argument.optional(which), ...target, json },
    ({ json, rollout: named, ...target }) =>
      Effect.gen(function*() {
        const rollout = Option.isSome(named) ? named.value : yield* onlyOne(target, action)
        const changed = yield* withClient(target, (client) => client.rollouts.act({ params: { rollout, action } }))
        yield* print(json, changed)
      })
  ).pipe(Command.withDescription(`${description}: the only running one, unless one is named`))

export const rollout = Command.make("rollout").pipe(
  Command.withDescription(
    "Replace a deployment of a model gradually, and roll back by itself where the new one is worse"
  ),
  Command.withSubcommands([
    start,
    status,
    list,
    shadow,
    act("pause", "Stay at the present share; a worse version is still rolled back"),
    act("resume", "Go on after a pause, or with all variants of an A/B test"),
    act("promote", "Give the new deployment all requests now"),
    act("abort", "Give the new deployment no requests any more")
  ])
)
