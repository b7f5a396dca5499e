/** The machine on which the figures were measured. */
import { readFileSync } from "node:fs"
import { availableParallelism, cpus, release, totalmem, type } from "node:os"

export interface Machine {
  readonly cpu: string
  /** Cores this process may use. */
  readonly cores: number
  /** Bytes. */
  readonly memory: number
  readonly system: string
  readonly node: string
  readonly troupe: string
}

export const describe = (): Machine => {
  const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
    readonly version: string
  }
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    memory: totalmem(),
    system: `${type()} ${release()}`,
    node: process.version,
    troupe: version
  }
}

export const format = ({ cores, cpu, memory, node, system, troupe }: Machine): string =>
  `troupe ${troupe}, Node ${node}, ${cpu}, ${cores} cores, ${(memory / 2 ** 30).toFixed(1)} GiB, ${system}`
