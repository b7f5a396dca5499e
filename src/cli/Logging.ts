/**
 * Log entries on standard error: readable lines in a terminal, JSON elsewhere, or the format of `logFormat`. Standard
 * output is for the command's output.
 */
import { Layer, Logger, LogLevel, References } from "effect"
import { plainLine } from "../domain/Text.ts"
import type { Resolved } from "../services/settings/Settings.ts"

type Entry = ReturnType<typeof Logger.formatStructured.log>

const messageOf = ({ message }: Entry): string =>
  (Array.isArray(message) ? message : [message])
    .map((part) => typeof part === "string" ? part : JSON.stringify(part)).join(" ")

const json = (entry: Entry): string =>
  JSON.stringify({
    timestamp: entry.timestamp,
    level: entry.level,
    message: messageOf(entry),
    ...entry.annotations,
    ...(entry.cause === undefined ? {} : { cause: entry.cause })
  })

const valueText = (value: unknown): string =>
  typeof value === "string" && /^[^\s="]+$/.test(value) ? value : JSON.stringify(value) ?? String(value)

/** Such as `18:25:12 INFO  Loaded tiny-chat#0 in 12 ms. alert=memory`. */
const text = (entry: Entry): string => {
  const pairs = Object.entries(entry.annotations).map(([key, value]) => ` ${key}=${valueText(value)}`).join("")
  const cause = entry.cause === undefined ? "" : `\n${entry.cause}`
  return `${entry.timestamp.slice(11, 19)} ${entry.level.padEnd(5)} ${plainLine(messageOf(entry))}${pairs}${cause}`
}

/** A logger that formats entries, without numbers of fibers. */
export const formatted = (format: "text" | "json") =>
  Logger.map(Logger.formatStructured, format === "text" ? text : json)

type Settings = Pick<Resolved, "logFormat" | "logLevel">

const loggerOf = ({ logFormat }: Settings) =>
  Logger.withConsoleError(formatted(logFormat ?? (process.stderr.isTTY ? "text" : "json")))

/** Logging as the settings configure it. */
export const layer = (settings: Settings) =>
  Layer.mergeAll(
    Logger.layer([loggerOf(settings)]),
    Layer.succeed(References.MinimumLogLevel, settings.logLevel)
  )

/** As `layer`, for a service: the level is that of `current`, which another configuration may change. */
export const layerChanging = (settings: Settings, current: { level: Settings["logLevel"] }) => {
  const logger = loggerOf(settings)
  const filtered = Logger.make((options) =>
    LogLevel.isGreaterThanOrEqualTo(options.logLevel, current.level) ? logger.log(options) : undefined
  )
  return Layer.mergeAll(Logger.layer([filtered]), Layer.succeed(References.MinimumLogLevel, "Debug"))
}
