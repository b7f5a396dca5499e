/**
 * CPU time of a process or a process tree, from Linux's `/proc`.
 *
 * **Gotchas**
 *
 * `ofProcess` counts in the kernel's ticks, usually of 10 ms: a measurement should last for hundreds of ticks. The others
 * are exact, but without threads that have ended.
 */
import { execFileSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"

/** Whether this system reports the CPU time of other processes. */
export const isAvailable: boolean = existsSync("/proc/self/stat")

export const unavailable = "CPU time is not measured here: it is read from /proc, which this system does not have."

const ticksPerSecond = isAvailable ? Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" })) : 100

interface Stat {
  readonly parent: number
  readonly microseconds: number
}

/** Fields as numbered in `man 5 proc_pid_stat`; the name in parentheses, field 2, may contain any character. */
const readStat = (pid: number): Stat => {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8")
  const fromState = text.slice(text.lastIndexOf(")") + 2).split(" ")
  const field = (number: number) => Number(fromState[number - 3])
  return { parent: field(4), microseconds: (field(14) + field(15)) / ticksPerSecond * 1e6 }
}

/** Of a process with all its threads, µs; user and system time. */
export const ofProcess = (pid: number): number => isAvailable ? readStat(pid).microseconds : Number.NaN

/** Of a thread, ns. */
const ofThread = (pid: number, thread: string): number => {
  try {
    return Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0])
  } catch {
    // The thread has ended since the folder was read.
    return 0
  }
}

/** Of the running threads of a process, µs, by the scheduler's nanoseconds; in ticks where the kernel has none. */
export const ofThreads = (pid: number): number => {
  if (!existsSync(`/proc/${pid}/schedstat`)) return ofProcess(pid)
  let nanoseconds = 0
  try {
    for (const thread of readdirSync(`/proc/${pid}/task`)) nanoseconds += ofThread(pid, thread)
  } catch {
    // The process has ended.
  }
  return nanoseconds / 1_000
}

const readAll = (): ReadonlyMap<number, Stat> => {
  const stats = new Map<number, Stat>()
  for (const pid of readdirSync("/proc").map(Number).filter(Number.isInteger)) {
    try {
      stats.set(pid, readStat(pid))
    } catch {
      // The process has ended since the folder was read.
    }
  }
  return stats
}

/** Processes that a process has started and that still run. */
export const childrenOf = (parent: number): ReadonlyArray<number> =>
  isAvailable ? [...readAll()].filter(([, stat]) => stat.parent === parent).map(([pid]) => pid) : []

/** A process and its running descendants. */
const treeOf = (root: number): ReadonlyArray<number> => {
  const stats = readAll()
  const belongs = (pid: number): boolean => {
    const stat = stats.get(pid)
    return pid === root || (stat !== undefined && belongs(stat.parent))
  }
  return [...stats.keys()].filter(belongs)
}

/** CPU time during a measurement, µs. */
export interface Spent {
  readonly process: number
  readonly tree: number
}

const spentBy = (pid: number): Spent =>
  isAvailable
    ? { process: ofThreads(pid), tree: treeOf(pid).reduce((sum, one) => sum + ofThreads(one), 0) }
    : { process: Number.NaN, tree: Number.NaN }

/** Runs `work` and returns the CPU time of a process and its tree meanwhile. */
export const during = async <A>(pid: number, work: () => Promise<A>): Promise<readonly [result: A, spent: Spent]> => {
  const before = spentBy(pid)
  const result = await work()
  const after = spentBy(pid)
  return [result, { process: after.process - before.process, tree: after.tree - before.tree }]
}
