/** Separate cores for processes that must not share CPU time; on Linux, with `taskset`. */
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"

/** The numbers of a list as `0-2,5`. */
const numbersOf = (list: string): ReadonlyArray<number> =>
  list.trim().split(",").flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number)
    return Array.from({ length: last! - first! + 1 }, (_, index) => first! + index)
  })

/** Cores that this process may use; empty if the system does not report them. */
const allowed = (): ReadonlyArray<number> => {
  try {
    return numbersOf(/^Cpus_allowed_list:(.*)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "")
  } catch {
    return []
  }
}

/**
 * Assigns one core to the measured processes, of which only one may be active at a time, and the other cores to the rest.
 *
 * @returns whether the assignment succeeded
 */
export const part = (measured: ReadonlyArray<number>, others: ReadonlyArray<number>): boolean => {
  const cores = allowed()
  if (cores.length < 2) return false
  const pin = (pid: number, cores: ReadonlyArray<number>) =>
    execFileSync("taskset", ["--all-tasks", "--cpu-list", "--pid", cores.join(","), String(pid)], { stdio: "ignore" })
  try {
    for (const pid of measured) pin(pid, cores.slice(-1))
    for (const pid of others) pin(pid, cores.slice(0, -1))
    return true
  } catch {
    return false
  }
}
