/** How a pull is shown: one line that changes on a terminal, a line for every tenth elsewhere. */
import type { Progress } from "../services/ModelStore.ts"
import { bytesAsText } from "./Shared.ts"

const barWidth = 30

const bar = (part: number): string => {
  const done = Math.round(part * barWidth)
  return `[${"#".repeat(done)}${"-".repeat(barWidth - done)}]`
}

type Received = Extract<Progress, { readonly type: "received" }>

/** Percent; of a file whose size nobody told, MiB. */
const stepOf = ({ receivedBytes, totalBytes }: Received): number =>
  totalBytes === undefined ? Math.floor(receivedBytes / 2 ** 20) : Math.floor((100 * receivedBytes) / totalBytes)

const amountOf = ({ receivedBytes, totalBytes }: Received): string =>
  totalBytes === undefined
    ? bytesAsText(receivedBytes)
    : `${Math.floor((100 * receivedBytes) / totalBytes)} % of ${bytesAsText(totalBytes)}`

/** What else there is to tell; undefined for what is not told here. */
const lineOf = (progress: Exclude<Progress, Received>): string | undefined => {
  switch (progress.type) {
    case "resolved":
      return `Pulling ${progress.name}${progress.bytes === undefined ? "" : `, ${bytesAsText(progress.bytes)}`}`
    case "resumed":
      return `${progress.file}: going on after ${bytesAsText(progress.fromBytes)}`
    case "retry":
      return `${progress.file}: ${progress.detail}; try ${progress.attempt + 1} in ${
        (progress.delayMs / 1000).toFixed(1)
      } s`
    case "inspecting":
      return `Loading ${progress.name} to see that it works`
    case "done":
      return undefined
  }
}

/** A printer for one pull. `end` leaves the terminal on a new line. */
export const makeProgressPrinter = (out: { readonly isTTY?: boolean; write(text: string): unknown }) => {
  let isLineOpen = false
  let shown = ""
  const end = () => {
    if (isLineOpen) out.write("\n")
    isLineOpen = false
  }
  const printReceived = (progress: Received) => {
    const step = out.isTTY === true ? stepOf(progress) : Math.floor(stepOf(progress) / 10)
    const key = `${progress.file} ${step}`
    if (key === shown) return
    shown = key
    if (out.isTTY !== true) return void out.write(`${progress.file}: ${amountOf(progress)}\n`)
    const { receivedBytes, totalBytes } = progress
    const drawn = totalBytes === undefined ? "" : ` ${bar(receivedBytes / totalBytes)}`
    out.write(`\r\x1b[2K${progress.file}${drawn} ${amountOf(progress)}`)
    isLineOpen = true
  }
  return {
    end,
    print: (progress: Progress) => {
      if (progress.type === "received") return printReceived(progress)
      const line = lineOf(progress)
      if (line === undefined) return
      end()
      out.write(`${line}\n`)
    }
  }
}
