/**
 * Reads memory from the control group if it sets a limit, otherwise from the machine.
 *
 * **Details**
 *
 * Which groups count is in `ControlGroups`.
 *
 * Sources: Linux's `Documentation/admin-guide/cgroup-v2.rst` (`memory.max`, `memory.current`, `memory.stat`) and
 * `cgroup-v1/memory.rst` (`memory.limit_in_bytes`, `memory.usage_in_bytes`).
 */
import { Effect, Layer } from "effect"
import { freemem, totalmem } from "node:os"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import type { Reading } from "../../services/models/Memory.ts"
import { Memory } from "../../services/models/Memory.ts"
import { GarbageCollector } from "../../services/models/MemoryPressure.ts"
import { foldersOf, numberIn, ownGroupFile, readText, root } from "./ControlGroups.ts"

const bytesIn = (text: string): number | undefined => numberIn(text, /^(\d+)\s*$/)

/** The machine's memory; Linux counts the page cache as available, which `os.freemem` does not on every system. */
const machine = async (): Promise<Reading> => {
  const kibibytes = numberIn(await readText("/proc/meminfo"), /^MemAvailable:\s+(\d+) kB/m)
  return { totalBytes: totalmem(), availableBytes: kibibytes === undefined ? freemem() : kibibytes * 1024 }
}

interface Group {
  readonly limit: string
  readonly usage: string
}

const versions: readonly [Group, Group] = [
  { limit: "memory.max", usage: "memory.current" },
  { limit: "memory/memory.limit_in_bytes", usage: "memory/memory.usage_in_bytes" }
]

/** The control group's memory, if its limit is below the machine's memory. */
const group = async (folder: string, { limit, usage }: Group, total: number): Promise<Reading | undefined> => {
  const [most, used, stat] = await Promise.all([
    readText(`${folder}/${limit}`),
    readText(`${folder}/${usage}`),
    readText(`${folder}/${usage.replace(/[^/]*$/, "memory.stat")}`)
  ])
  const totalBytes = bytesIn(most)
  const usedBytes = bytesIn(used)
  if (totalBytes === undefined || usedBytes === undefined || totalBytes >= total) return undefined
  // Inactive file pages are reclaimed on demand. In version 1 `total_inactive_file` includes descendant groups, as the
  // usage does.
  const reclaimable = numberIn(stat, /^total_inactive_file (\d+)$/m) ?? numberIn(stat, /^inactive_file (\d+)$/m) ?? 0
  return { totalBytes, availableBytes: Math.max(0, totalBytes - usedBytes + Math.min(reclaimable, usedBytes)) }
}

const scarcest = (readings: ReadonlyArray<Reading>): Reading | undefined =>
  readings.toSorted((a, b) => a.availableBytes - b.availableBytes)[0]

/**
 * @param mounted the folder of the control groups
 * @param own the file that names this process's group
 */
export const readMemory = async (mounted: string = root, own: string = ownGroupFile): Promise<Reading> => {
  const whole = await machine()
  const [version2, version1] = versions
  const folders = foldersOf(mounted, await readText(own))
  const groups = await Promise.all([
    ...folders.map((folder) => group(folder, version2, whole.totalBytes)),
    group(mounted, version1, whole.totalBytes)
  ])
  const part = scarcest(groups.filter((one) => one !== undefined))
  return part === undefined ? whole : { ...part, availableBytes: Math.min(part.availableBytes, whole.availableBytes) }
}

/** Collects garbage also where Node.js was started without `--expose-gc`. */
export const layerCollector = Layer.succeed(GarbageCollector, () => {
  setFlagsFromString("--expose-gc")
  // A context that is made from now on has the function.
  const collect = runInNewContext("gc") as () => void
  collect()
})

export const layer = Layer.succeed(Memory, { read: Effect.promise(() => readMemory()) })
