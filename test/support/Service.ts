/** Starts the real service in a process of its own, and stops it. */
import type { ChildProcess } from "node:child_process"
import { execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

/** The entry of `troupe` in the sources. */
export const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))

/** The entry of `troupe` in the bundle, which starts in a third of the CPU time of the sources. `Bundle.ts` builds it. */
const bundle = fileURLToPath(new URL("../../dist/main.js", import.meta.url))

/** A finished command. */
export interface Finished {
  /** Null when a signal ended it. */
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** A running command. */
export interface Running {
  readonly child: ChildProcess
  readonly output: () => { readonly stdout: string; readonly stderr: string }
  readonly finished: Promise<Finished>
}

/** How `troupe` is started. */
interface StartOptions {
  readonly env?: Record<string, string>
  readonly cwd?: string
  /** Empty by default. */
  readonly input?: string
  /** The file that Node.js runs; the bundle by default. */
  readonly entry?: string
}

/** Starts `troupe` with these arguments. */
export const troupe = (args: ReadonlyArray<string>, options: StartOptions = {}): Running => {
  const child = spawn(process.execPath, [options.entry ?? bundle, ...args], {
    stdio: ["pipe", "pipe", "pipe"],
    cwd: options.cwd ?? tmpdir(),
    env: { ...process.env, NODE_ENV: "test", ...options.env }
  })
  // A failing test must not leave a process running.
  const kill = () => child.kill("SIGKILL")
  process.once("exit", kill)
  child.once("close", () => process.removeListener("exit", kill))
  let stdout = ""
  let stderr = ""
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    stdout += chunk
  })
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
    stderr += chunk
  })
  child.stdin.end(options.input ?? "")
  const finished = once(child, "close").then(([code]) => ({ code: code as number | null, stdout, stderr }))
  return { child, output: () => ({ stdout, stderr }), finished }
}

/** Runs `troupe` to its end. */
export const run = (...call: Parameters<typeof troupe>): Promise<Finished> => troupe(...call).finished

/** A folder for one test, removed afterwards. */
export const temporaryFolder = () => {
  const path = mkdtempSync(join(tmpdir(), "troupe-test-"))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

/**
 * Resolves when `check` returns a value, within the time limit of the test. It is asked less often the longer it takes, since it
 * may ask a service or start `ps`, which takes computing time from what it waits for.
 */
export const until = async <A>(check: () => A | undefined | Promise<A | undefined>): Promise<A> => {
  for (let delay = 10;; delay = Math.min(delay * 1.3, 80)) {
    const value = await check()
    if (value !== undefined) return value
    await new Promise((resolve) => setTimeout(resolve, delay))
  }
}

/** Suspends processes: they compute nothing until `resume`. */
export const suspend = (pids: ReadonlyArray<number>): void => pids.forEach((pid) => process.kill(pid, "SIGSTOP"))

export const resume = (pids: ReadonlyArray<number>): void => pids.forEach((pid) => process.kill(pid, "SIGCONT"))

/** A listening service. */
export interface Service {
  readonly url: string
  /** The URL of administration. */
  readonly admin: string
  readonly process: Running
  /** Its configuration file. */
  readonly file: string
  /** Process ids of its engine children. */
  readonly engines: () => ReadonlyArray<number>
  readonly stop: () => Promise<Finished>
}

/**
 * Starts the service on a free port, with this `troupe.yaml`, or with none.
 *
 * @param env variables that replace those of the environment
 */
export const startService = async (yaml?: string, env: Record<string, string> = {}): Promise<Service> => {
  const folder = temporaryFolder()
  if (yaml !== undefined) writeFileSync(join(folder.path, "troupe.yaml"), yaml)
  const running = troupe(["serve", "--port", "0", "--admin-port", "0"], { cwd: folder.path, env })
  const ended = running.finished.then(({ stderr }) => {
    throw new Error(`The service ended: ${stderr}`)
  })
  const url = await Promise.race([
    ended,
    until(() => /listens on (http:\S+)/.exec(running.output().stdout)?.[1])
  ])
  const admin = await until(() => /Administration at (http:\S+)/.exec(running.output().stdout)?.[1])
  ended.catch(() => {})
  return {
    url,
    admin,
    process: running,
    file: join(folder.path, "troupe.yaml"),
    engines: () =>
      execFileSync("ps", ["-A", "-o", "pid=,ppid=,args="], { encoding: "utf8" }).split("\n").flatMap((line) => {
        const [pid, ppid, ...args] = line.trim().split(/\s+/)
        return Number(ppid) === running.child.pid && args.some((arg) => /host\.[tj]s$/.test(arg)) ? [Number(pid)] : []
      }),
    stop: async () => {
      running.child.kill("SIGTERM")
      const finished = await running.finished
      folder[Symbol.dispose]()
      return finished
    }
  }
}
