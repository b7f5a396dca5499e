/**
 * Reads memory from the control group where one sets a limit, and from the machine otherwise.
 *
 * Sources: Linux's `Documentation/admin-guide/cgroup-v2.rst` (`memory.max`, `memory.current`, `memory.stat`) and
 * `cgroup-v1/memory.rst` (`memory.limit_in_bytes`, `memory.usage_in_bytes`).
 */
import { Effect, Layer } from "effect"
import { readFile } from "node:fs/promises"
import { freemem, totalmem } from "node:os"
import type { Reading } from "../services/Memory.ts"
import { Memory } from "../services/Memory.ts"

const root = "/sys/fs/cgroup"

const readText = (path: string): Promise<string> => readFile(path, "utf8").catch(() => "")

const numberIn = (text: string, pattern: RegExp): number | undefined => {
  const found = pattern.exec(text)?.[1]
  return found === undefined ? undefined : Number(found)
}

const bytesIn = (text: string): number | undefined => numberIn(text, /^(\d+)\s*$/)

/** What the machine has; Linux counts the page cache as available, which `os.freemem` does not everywhere. */
const machine = async (): Promise<Reading> => {
  const kibibytes = numberIn(await readText("/proc/meminfo"), /^MemAvailable:\s+(\d+) kB/m)
  return { totalBytes: totalmem(), availableBytes: kibibytes === undefined ? freemem() : kibibytes * 1024 }
}

interface Group {
  readonly limit: string
  readonly usage: string
}

const versions: ReadonlyArray<Group> = [
  { limit: "memory.max", usage: "memory.current" },
  { limit: "memory/memory.limit_in_bytes", usage: "memory/memory.usage_in_bytes" }
]

/** What the control group has, if it sets a limit that the machine is not below anyway. */
const group = async (folder: string, { limit, usage }: Group, total: number): Promise<Reading | undefined> => {
  const [most, used, stat] = await Promise.all([
    readText(`${folder}/${limit}`),
    readText(`${folder}/${usage}`),
    readText(`${folder}/${usage.replace(/[^/]*$/, "memory.stat")}`)
  ])
  const totalBytes = bytesIn(most)
  const usedBytes = bytesIn(used)
  if (totalBytes === undefined || usedBytes === undefined || totalBytes >= total) return undefined
  // Pages of files that nobody maps now are given back on demand. In version 1 the total counts the groups below too,
  // as the usage does.
  const reclaimable = numberIn(stat, /^total_inactive_file (\d+)$/m) ?? numberIn(stat, /^inactive_file (\d+)$/m) ?? 0
  return { totalBytes, availableBytes: Math.max(0, totalBytes - usedBytes + Math.min(reclaimable, usedBytes)) }
}

/** @param folder where the control group is mounted */
export const readMemory = async (folder: string = root): Promise<Reading> => {
  const whole = await machine()
  for (const version of versions) {
    const part = await group(folder, version, whole.totalBytes)
    if (part !== undefined) {
      return { ...part, availableBytes: Math.min(part.availableBytes, whole.availableBytes) }
    }
  }
  return whole
}

export const layer = Layer.succeed(Memory, { read: Effect.promise(() => readMemory()) })
