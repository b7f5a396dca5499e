/**
 * Log entries on standard error: readable lines in a terminal, JSON elsewhere, or the format of `logFormat`. Standard
 * output is for the command's output.
 */
import { Layer, Logger, References } from "effect"
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

/** Logging as the settings configure it. */
export const layer = ({ logFormat, logLevel }: Pick<Resolved, "logFormat" | "logLevel">) =>
  Layer.mergeAll(
    Logger.layer([Logger.withConsoleError(formatted(logFormat ?? (process.stderr.isTTY ? "text" : "json")))]),
    Layer.succeed(References.MinimumLogLevel, logLevel)
  )
