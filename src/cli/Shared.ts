/** What the commands share: flags, logs, and how they print. */
import { Console, Layer, Logger, Option, References, Schema } from "effect"
import { Flag } from "effect/cli"
import type { Deployment, Model } from "../domain/Deployment.ts"
import * as SettingsFile from "../layers/settings/SettingsFile.ts"
import type { Resolved } from "../services/settings/Settings.ts"

/** What a command could not do, in words for whoever typed it. */
export class CommandFailed extends Schema.TaggedError<CommandFailed>()("CommandFailed", {
  message: Schema.String
}) {}

export const config = Flag.String("config").pipe(
  Flag.withSchema(Schema.NonEmptyString),
  Flag.withDescription("Configuration file (default: troupe.yaml in the current folder, if any)"),
  Flag.optional
)

export const json = Flag.Boolean("json").pipe(Flag.withDescription("Print JSON"), Flag.withDefault(false))

/** The settings, for commands that call no deployment: those need no keys. */
export const loadToShow = (file: Option.Option<string>) =>
  SettingsFile.load({ file: Option.getOrUndefined(file), secretsMayBeUnset: true })

/** Logs go to standard error: standard output is the command's own. */
export const logging = (settings: Resolved) =>
  Layer.mergeAll(
    Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)]),
    Layer.succeed(References.MinimumLogLevel, settings.logLevel)
  )

export const printJson = (value: unknown) => Console.log(JSON.stringify(value, null, 2))

/** Rows under headings, as wide as the widest cell. */
export const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column]!)).join("  ").trimEnd()).join("\n")
}

const units = [["hour", 3_600_000], ["minute", 60_000], ["second", 1_000]] as const

/** A duration in words that `troupe.yaml` takes, as `10 seconds`; in the largest unit of which it is a whole number. */
export const spanAsText = (ms: number): string => {
  const [unit, length] = units.find(([, length]) => ms >= length && ms % length === 0) ?? ["ms", 1]
  const count = ms / length
  return unit === "ms" || count === 1 ? `${count} ${unit}` : `${count} ${unit}s`
}

/** A size for people. */
export const bytesAsText = (bytes: number): string =>
  bytes < 2 ** 20
    ? `${bytes} bytes`
    : bytes < 2 ** 30
    ? `${(bytes / 2 ** 20).toFixed(1)} MiB`
    : `${(bytes / 2 ** 30).toFixed(1)} GiB`

const sourceOf = ({ options }: Deployment): string => {
  switch (options.engine) {
    case "llama":
      return options.file
    case "onnx":
      return options.folder
    case "fake":
      return "(no model file)"
    case "language-model":
      return options.name
    case "remote":
      return `${options.provider}: ${options.model}`
  }
}

export const modelRows = (models: ReadonlyArray<Model>): ReadonlyArray<ReadonlyArray<string>> => [
  ["MODEL", "ENGINE", "SOURCE"],
  ...models.flatMap(({ deployments, name }) =>
    deployments.map((deployment) => [name, deployment.options.engine, sourceOf(deployment)])
  )
]

/** Files that a second signal removes: it ends the process without its finalizers. */
export const leftovers = new Set<string>()
