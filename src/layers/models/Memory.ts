/**
 * Reads memory from the control group where one sets a limit, and from the machine otherwise.
 *
 * **Details**
 *
 * Of version 2, the group of this process and all around it count, as a systemd unit's limit is not at the root; of
 * version 1, what is mounted, which in a container is its own group.
 *
 * Sources: Linux's `Documentation/admin-guide/cgroup-v2.rst` (`memory.max`, `memory.current`, `memory.stat`) and
 * `cgroup-v1/memory.rst` (`memory.limit_in_bytes`, `memory.usage_in_bytes`).
 */
import { Effect, Layer } from "effect"
import { readFile } from "node:fs/promises"
import { freemem, totalmem } from "node:os"
import type { Reading } from "../../services/models/Memory.ts"
import { Memory } from "../../services/models/Memory.ts"

const root = "/sys/fs/cgroup"
const ownGroupFile = "/proc/self/cgroup"

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

const versions: readonly [Group, Group] = [
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

/** The process's own group of version 2 and those around it, innermost first: each one's limit binds. */
const foldersOf = (mounted: string, ownGroup: string): ReadonlyArray<string> => {
  const path = /^0::(\/.*)$/m.exec(ownGroup)?.[1] ?? "/"
  const names = path.split("/").filter((name) => name !== "")
  // A path that leads out of what is mounted here is another namespace's.
  const inside = names.includes("..") ? [] : names
  return Array.from(
    { length: inside.length + 1 },
    (_, up) => [mounted, ...inside.slice(0, inside.length - up)].join("/")
  )
}

const scarcest = (readings: ReadonlyArray<Reading>): Reading | undefined =>
  readings.toSorted((a, b) => a.availableBytes - b.availableBytes)[0]

/**
 * @param mounted where the control groups are
 * @param own the file that tells which of them this process is in
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

export const layer = Layer.succeed(Memory, { read: Effect.promise(() => readMemory()) })
