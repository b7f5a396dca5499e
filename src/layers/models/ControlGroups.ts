/**
 * The control groups whose limits hold for this process, and how their files are read.
 *
 * **Details**
 *
 * In version 2, the group of this process and its ancestors count, as a systemd unit's limit is not at the root. In
 * version 1, the mounted group counts, which in a container is its own group.
 *
 * Source: Linux's `Documentation/admin-guide/cgroup-v2.rst`.
 */
import { readFile } from "node:fs/promises"

/** Where they are mounted. */
export const root = "/sys/fs/cgroup"

/** Names this process's group. */
export const ownGroupFile = "/proc/self/cgroup"

/** The content of a file; empty where there is none. */
export const readText = (path: string): Promise<string> => readFile(path, "utf8").catch(() => "")

/** The number in the first group of the pattern. */
export const numberIn = (text: string, pattern: RegExp): number | undefined => {
  const found = pattern.exec(text)?.[1]
  return found === undefined ? undefined : Number(found)
}

/**
 * The process's own group of version 2 and its ancestors, innermost first: each limit applies.
 *
 * @param ownGroup the content of `ownGroupFile`
 */
export const foldersOf = (mounted: string, ownGroup: string): ReadonlyArray<string> => {
  const path = /^0::(\/.*)$/m.exec(ownGroup)?.[1] ?? "/"
  const names = path.split("/").filter((name) => name !== "")
  // A path with `..` is outside of the mounted tree, in another namespace.
  const inside = names.includes("..") ? [] : names
  return Array.from(
    { length: inside.length + 1 },
    (_, up) => [mounted, ...inside.slice(0, inside.length - up)].join("/")
  )
}
