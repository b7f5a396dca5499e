/** Resident memory of a process, MB, from Linux's `/proc`. */
import { readFileSync, writeFileSync } from "node:fs"

export const unavailable = "Memory is not measured here: it is read from /proc, which this system does not have."

const read = (pid: number, field: "VmRSS" | "VmHWM"): number => {
  const [, kilobytes] = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8")) ??
    []
  return Number(kilobytes) / 1024
}

export const resident = (pid: number): number => read(pid, "VmRSS")

/** Runs `work` and returns the most memory meanwhile. */
export const peakDuring = async <A>(
  pid: number,
  work: () => Promise<A>
): Promise<readonly [result: A, peak: number]> => {
  // Sets the peak to the current memory: `man 5 proc_pid_clear_refs`.
  writeFileSync(`/proc/${pid}/clear_refs`, "5")
  const result = await work()
  return [result, read(pid, "VmHWM")]
}
