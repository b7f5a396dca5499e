/** The console of the command line: what it prints and logs holds no control sequences, wherever the text is from. */
import type { Console } from "effect"
import { plainText } from "../domain/PlainText.ts"

const cleaned = (values: ReadonlyArray<unknown>): ReadonlyArray<unknown> =>
  values.map((value) => typeof value === "string" ? plainText(value) : value)

/** A console that passes texts on to another without their control characters. */
export const plainConsole = (to: Console.Console): Console.Console =>
  Object.assign(Object.create(to) as Console.Console, {
    log: (...values: ReadonlyArray<unknown>) => to.log(...cleaned(values)),
    info: (...values: ReadonlyArray<unknown>) => to.info(...cleaned(values)),
    warn: (...values: ReadonlyArray<unknown>) => to.warn(...cleaned(values)),
    error: (...values: ReadonlyArray<unknown>) => to.error(...cleaned(values)),
    debug: (...values: ReadonlyArray<unknown>) => to.debug(...cleaned(values))
  })
