/**
 * Log entries on standard error: readable lines in a terminal, JSON elsewhere, or the format of `logFormat`. Standard
 * output is for the command's output.
 *
 * **Details**
 *
 * Entries below `Warn` are written together: in a terminal at the end of a turn of the event loop, elsewhere after
 * `longestWait`, and when the process ends. A busy service writes one for each request.
 */
import { Cause, Console, Layer, Logger, LogLevel, References } from "effect"
import type { LogIds } from "../domain/Caller.ts"
import { RequestLogIds } from "../domain/Caller.ts"
import { plainLine } from "../domain/Text.ts"
import type { Entry as RequestEntry } from "../services/observability/RequestLog.ts"
import { fieldsOf, isWarning, LogLines, messageOf } from "../services/observability/RequestLog.ts"
import type { Resolved } from "../services/settings/Settings.ts"
import * as RequestLine from "./RequestLine.ts"

type Options = Logger.Options<unknown>
type Fields = Readonly<Record<string, unknown>>

/** What an entry has beside its message. */
interface Entry {
  readonly timestamp: string
  readonly level: string
  readonly message: string
  readonly fields: Fields
  readonly cause: string | undefined
}

const isFields = (part: unknown): part is Fields =>
  typeof part === "object" && part !== null && Object.getPrototypeOf(part) === Object.prototype

const textOf = (part: unknown): string => typeof part === "string" ? part : JSON.stringify(part) ?? String(part)

const msOfSecond = 1_000

/** The second of the latest entry, and its text up to the fraction: `Date` takes longer than the rest of a line. */
let latest = { second: Number.NaN, text: "" }

const timestampOf = (ms: number): string => {
  const second = Math.floor(ms / msOfSecond)
  if (second !== latest.second) latest = { second, text: new Date(second * msOfSecond).toISOString().slice(0, -4) }
  return `${latest.text}${String(ms - second * msOfSecond).padStart(3, "0")}Z`
}

/** Objects in a message are fields of the entry, as its annotations and the ids of its request are. */
const entryOf = ({ cause, date, fiber, logLevel, message }: Options): Entry => {
  const parts: ReadonlyArray<unknown> = Array.isArray(message) ? message : [message]
  const annotations = {
    ...fiber.getRef(RequestLogIds)(fiber.context),
    ...fiber.getRef(References.CurrentLogAnnotations)
  }
  const fields = parts.find(isFields)
  return {
    timestamp: timestampOf(date.getTime()),
    level: logLevel.toUpperCase(),
    message: parts.length === 1 ? textOf(parts[0]) : parts.filter((part) => !isFields(part)).map(textOf).join(" "),
    fields: fields === undefined ? annotations : { ...annotations, ...fields },
    cause: cause.reasons.length === 0 ? undefined : Cause.pretty(cause)
  }
}

const json = ({ cause, fields, level, message, timestamp }: Entry): string =>
  JSON.stringify({ timestamp, level, message, ...fields, cause })

const valueText = (value: unknown): string =>
  typeof value === "string" && /^[^\s="]+$/.test(value) ? value : JSON.stringify(value) ?? String(value)

/** Such as `18:25:12 INFO  Loaded tiny-chat#0 in 12 ms. alert=memory`. */
const text = ({ cause, fields, level, message, timestamp }: Entry): string => {
  const pairs = Object.entries(fields).map(([key, value]) => value === undefined ? "" : ` ${key}=${valueText(value)}`)
  const shown = `${timestamp.slice(11, 19)} ${level.padEnd(5)} ${plainLine(message)}${pairs.join("")}`
  return cause === undefined ? shown : `${shown}\n${cause}`
}

/** A logger that formats entries, without numbers of fibers. */
export const formatted = (format: "text" | "json"): Logger.Logger<unknown, string> => {
  const line = format === "text" ? text : json
  return Logger.make((options) => line(entryOf(options)))
}

/** The entry of a request. */
const requestEntryOf = (entry: RequestEntry, ids: Fields): Entry => ({
  timestamp: timestampOf(Date.now()),
  level: levelOf(entry).toUpperCase(),
  message: messageOf(entry),
  fields: { ...ids, ...fieldsOf(entry) },
  cause: undefined
})

const levelOf = (entry: RequestEntry): "Info" | "Warn" => isWarning(entry) ? "Warn" : "Info"

/** Characters that are kept at most. */
const mostKept = 65_536

/** How long a line waits for others, ms. */
const longestWait = 100

/** Lines for standard error. */
class Lines {
  #text = ""
  readonly #write: (text: string) => void
  readonly #later: (flush: () => void) => void

  constructor(write: (text: string) => void, later: (flush: () => void) => void) {
    this.#write = write
    this.#later = later
  }

  readonly flush = (): void => {
    if (this.#text === "") return
    const text = this.#text
    this.#text = ""
    this.#write(text)
  }

  add(line: string, isUrgent: boolean): void {
    if (this.#text === "" && !isUrgent) this.#later(this.flush)
    this.#text += `${line}\n`
    if (isUrgent || this.#text.length > mostKept) this.flush()
  }
}

let ofProcess: Lines | undefined

/** Those of this process. */
const lines = (): Lines => {
  if (ofProcess !== undefined) return ofProcess
  const wait = (flush: () => void) => void setTimeout(flush, longestWait).unref()
  ofProcess = new Lines((text) => process.stderr.write(text), process.stderr.isTTY ? setImmediate : wait)
  process.on("exit", ofProcess.flush)
  return ofProcess
}

type Settings = Pick<Resolved, "logFormat" | "logLevel">

const formatOf = ({ logFormat }: Settings): "text" | "json" => logFormat ?? (process.stderr.isTTY ? "text" : "json")

const loggerOf = (settings: Settings): Logger.Logger<unknown, void> => {
  const format = formatted(formatOf(settings))
  return Logger.make((options) => {
    const line = format.log(options)
    const console = options.fiber.getRef(Console.Console)
    // A program may have another one.
    if (console !== globalThis.console) return console.error(line)
    lines().add(line, LogLevel.isGreaterThanOrEqualTo(options.logLevel, "Warn"))
  })
}

/** Logging as the settings configure it. */
export const layer = (settings: Settings) =>
  Layer.mergeAll(
    Logger.layer([loggerOf(settings)]),
    Layer.succeed(References.MinimumLogLevel, settings.logLevel)
  )

/** Writes the entries of requests. */
const requestLines = (settings: Settings, current: { readonly level: Settings["logLevel"] }) => {
  const line = formatOf(settings) === "text"
    ? (entry: RequestEntry, ids: LogIds) => text(requestEntryOf(entry, ids))
    : (entry: RequestEntry, ids: LogIds) => RequestLine.json(entry, ids, timestampOf(Date.now()))
  return (entry: RequestEntry, ids: LogIds): void => {
    const level = levelOf(entry)
    if (LogLevel.isGreaterThanOrEqualTo(level, current.level)) lines().add(line(entry, ids), level === "Warn")
  }
}

/** As `layer`, for a service: the level is that of `current`, which another configuration may change. */
export const layerChanging = (settings: Settings, current: { level: Settings["logLevel"] }) => {
  const logger = loggerOf(settings)
  const filtered = Logger.make((options) =>
    LogLevel.isGreaterThanOrEqualTo(options.logLevel, current.level) ? logger.log(options) : undefined
  )
  return Layer.mergeAll(
    Logger.layer([filtered]),
    Layer.succeed(References.MinimumLogLevel, "Debug"),
    Layer.succeed(LogLines, requestLines(settings, current))
  )
}
