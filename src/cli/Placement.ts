/** `troupe placement plan`: on which node each model of several machines runs, and what has to move. */
import { Console, Effect, Result, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { resolve } from "node:path"
import * as SettingsFile from "../layers/settings/SettingsFile.ts"
import type { Move, Plan, Unplaced } from "../services/placement/Placement.ts"
import * as Placement from "../services/placement/Placement.ts"
import * as PlacementFile from "../services/placement/PlacementFile.ts"
import { SettingsError } from "../services/settings/Settings.ts"
import { json } from "./Flags.ts"
import { printJson, table } from "./Output.ts"

const inputIn = Effect.fnUntraced(function*(file: string) {
  const source = resolve(file)
  const { text, value } = yield* SettingsFile.readYaml(source)
  const input = PlacementFile.read(value)
  if (Result.isSuccess(input)) return input.success
  return yield* new SettingsError({ source, problems: [...SettingsFile.located(text, input.failure)] })
})

const duration = (ms: number): string => {
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`
  return ms < 7_200_000 ? `${Math.round(ms / 60_000)} min` : `${(ms / 3_600_000).toFixed(1)} h`
}

/** What the requests wait less, against what the load takes. */
const reasonOf = ({ loadMs, reason, savedMs, unloadsFirst }: Move): string => {
  const saved = savedMs === undefined
    ? reason
    : `requests wait ${duration(savedMs)} less in all, loading takes ${duration(loadMs)}`
  return unloadsFirst ? `${saved}; unload it before it is loaded: memory is short for both` : saved
}

const rowOf = (move: Move, index: number): ReadonlyArray<string> => [
  String(index + 1),
  move.type,
  move.model,
  move.from ?? "",
  move.to ?? "",
  move.device ?? "",
  reasonOf(move)
]

const missingText = ({ model, reason, replicas }: Unplaced): string =>
  `${replicas === 1 ? "A replica" : `${replicas} replicas`} of ${model} fit${
    replicas === 1 ? "s" : ""
  } nowhere: ${reason}.`

const textOf = ({ moves, unplaced }: Plan): string => {
  const rows = [["STEP", "ACTION", "MODEL", "FROM", "TO", "DEVICE", "REASON"], ...moves.map(rowOf)]
  const none = unplaced.length === 0 ? ["Nothing has to move."] : []
  return [...(moves.length === 0 ? none : [table(rows)]), ...unplaced.map(missingText)].join("\n")
}

const options = {
  nodes: Flag.String("nodes").pipe(
    Flag.withSchema(Schema.NonEmptyString),
    Flag.withDescription("YAML file with the nodes and the models")
  ),
  json
}

const plan = Command.make("plan", options, ({ json, nodes }) =>
  Effect.gen(function*() {
    const planned = Placement.plan(yield* inputIn(nodes))
    yield* json ? printJson(planned) : Console.log(textOf(planned))
    // For scripts: a wanted replica has no place.
    if (planned.unplaced.length > 0) process.exitCode = 1
  })).pipe(
    Command.withDescription("Print which models have to be loaded, moved and unloaded; changes nothing"),
    Command.withExamples([
      { command: "troupe placement plan --nodes nodes.yaml", description: "Print the steps in their order" },
      { command: "troupe placement plan --nodes nodes.yaml --json", description: "Print the assignment, too" }
    ])
  )

export const placement = Command.make("placement").pipe(
  Command.withDescription("Plan on which machines models run"),
  Command.withSubcommands([plan])
)
