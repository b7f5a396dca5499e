/**
 * Prints the progress of a pull: one line that is updated in a terminal, one line for each 10 % elsewhere. No colors.
 */
import type { Progress } from "../services/store/ModelStore.ts"
import { bytesText } from "./Output.ts"

const widestBar = 30
const narrowestBar = 10
const shortestName = 8

/** Columns of a terminal of unknown width. */
const usualColumns = 80

/** Names of files and messages of servers must not control the terminal. */
const printable = (text: string): string => text.replaceAll(/\p{Cc}/gu, "?")

/** An upper bound of the columns of text: characters other than Latin can need two. */
const widthOf = (text: string): number =>
  Array.from(text).reduce((width, letter) => width + (letter < "\u0300" ? 1 : 2), 0)

/** The beginning and end of text that is too wide. */
const shorten = (text: string, width: number): string => {
  const letters = Array.from(text)
  let shortened = text
  for (let kept = letters.length - 1; kept >= 0 && widthOf(shortened) > width; kept--) {
    shortened = `${letters.slice(0, Math.ceil(kept / 2)).join("")}~${
      letters.slice(letters.length - (kept >> 1)).join("")
    }`
  }
  return shortened
}

const bar = (part: number, width: number): string => {
  const done = Math.round(part * width)
  return `[${"#".repeat(done)}${"-".repeat(width - done)}]`
}

type Received = Extract<Progress, { readonly type: "received" }>

/** Percent; MiB for a file of unknown size. */
const stepOf = ({ receivedBytes, totalBytes }: Received): number =>
  totalBytes === undefined ? Math.floor(receivedBytes / 2 ** 20) : Math.floor((100 * receivedBytes) / totalBytes)

const amountOf = ({ receivedBytes, totalBytes }: Received): string =>
  totalBytes === undefined
    ? bytesText(receivedBytes)
    : `${Math.floor((100 * receivedBytes) / totalBytes)} % of ${bytesText(totalBytes)}`

/** One line that fits: first the bar is shortened, then the name, then the bar is left out. */
const lineFor = (progress: Received, columns: number): string => {
  const { file, receivedBytes, totalBytes } = progress
  const [name, amount] = [printable(file), amountOf(progress)]
  // Some terminals wrap after the last column.
  const room = columns - 1 - amount.length - 1
  const wanted = Math.min(widestBar, room - widthOf(name) - 3)
  const barWidth = Math.max(wanted, narrowestBar)
  const nameRoom = room - barWidth - 3
  if (totalBytes !== undefined && nameRoom >= Math.min(shortestName, widthOf(name))) {
    return `${shorten(name, nameRoom)} ${bar(receivedBytes / totalBytes, barWidth)} ${amount}`
  }
  return room > 0 ? `${shorten(name, room)} ${amount}` : shorten(amount, columns - 1)
}

/** The line of another event; undefined if the event has no line. */
const lineOf = (progress: Exclude<Progress, Received>): string | undefined => {
  switch (progress.type) {
    case "resolved":
      return `Pulling ${progress.name}${progress.bytes === undefined ? "" : `, ${bytesText(progress.bytes)}`}`
    case "resumed":
      return `${progress.file}: resuming at ${bytesText(progress.fromBytes)}`
    case "retry":
      return `${progress.file}: ${progress.detail}; attempt ${progress.attempt + 1} in ${
        (progress.delayMs / 1000).toFixed(1)
      } s`
    case "inspecting":
      return `Testing that ${progress.name} loads`
    case "done":
      return undefined
  }
}

/** The stream to which progress is printed. */
export interface Output {
  readonly isTTY?: boolean
  /** Current width of a terminal. */
  readonly columns?: number
  write(text: string): unknown
}

/**
 * A printer for one pull. `end` leaves the terminal on a new line.
 *
 * @param isPlain the terminal cannot overwrite a line
 */
export const makeProgressPrinter = (out: Output, isPlain = process.env["TERM"] === "dumb") => {
  const isChanging = out.isTTY === true && !isPlain
  let isLineOpen = false
  let shown = ""
  const end = () => {
    if (isLineOpen) out.write("\n")
    isLineOpen = false
    shown = ""
  }
  const change = (progress: Received) => {
    const line = lineFor(progress, out.columns || usualColumns)
    if (line !== shown) out.write(`\r\x1b[2K${line}`)
    shown = line
    isLineOpen = true
  }
  const append = (progress: Received) => {
    const key = `${progress.file} ${Math.floor(stepOf(progress) / 10)}`
    if (key !== shown) out.write(`${printable(progress.file)}: ${amountOf(progress)}\n`)
    shown = key
  }
  return {
    end,
    print: (progress: Progress) => {
      if (progress.type === "received") return isChanging ? change(progress) : append(progress)
      const line = lineOf(progress)
      if (line === undefined) return
      end()
      out.write(`${printable(line)}\n`)
    }
  }
}
