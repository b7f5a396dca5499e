/** The real service as a child process: `troupe serve` on a free port, with a configuration file of the bench. */
import type { ChildProcess } from "node:child_process"
import { spawn } from "node:child_process"
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { engineEnvironment } from "../src/domain/EngineEnvironment.ts"
import { ended } from "./Child.ts"

/** A service that has loaded its models and listens. */
export interface Service {
  readonly pid: number
  readonly port: number
}

export interface ServiceOptions {
  /** The content of `troupe.yaml`. */
  readonly config: string
  /** Options of Node, such as `--cpu-prof`. */
  readonly nodeOptions: ReadonlyArray<string>
  /** In addition to the bench's own environment. */
  readonly env?: Readonly<Record<string, string>>
  /** The file of the command line; default `src/main.ts`. */
  readonly entry?: string
  /** Whether its log goes to a file that is removed with the service; default false: to standard error. */
  readonly discardsLog?: boolean
}

const sources = fileURLToPath(new URL("../src/main.ts", import.meta.url))

/** Limit of the service's start, including its models, ms: a busy machine takes ten times as long. */
const startLimit = 120_000
/** Limit of its shutdown: its grace of 1 s for requests, 5 s for its engine process, and a margin, ms. */
const stopLimit = 10_000

const address = /http:\/\/[\d.]+:(\d+)/

const listeningPort = (child: ChildProcess): Promise<number> =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => fail(`The service did not start within ${startLimit} ms`), startLimit)
    const fail = (message: string) => {
      clearTimeout(timer)
      reject(new Error(message))
    }
    let printed = ""
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      printed += text
      const port = address.exec(printed)?.[1]
      if (port === undefined) return
      clearTimeout(timer)
      resolve(Number(port))
    })
    child.once("error", (cause) => fail(`The service did not start: ${cause.message}`))
    child.once("exit", (code, signal) =>
      fail(`The service ended with ${signal ?? `exit code ${code}`} before it listened`))
  })

const start = (
  file: string,
  { discardsLog = false, entry = sources, env, nodeOptions }: ServiceOptions
): ChildProcess => {
  const log = discardsLog ? openSync(join(dirname(file), "log"), "w") : undefined
  const child = spawn(
    process.execPath,
    [...nodeOptions, entry, "serve", "--host", "127.0.0.1", "--port", "0", "--config", file],
    {
      stdio: ["ignore", "pipe", log ?? "inherit"],
      env: { ...engineEnvironment(process.env), NODE_ENV: "production", TROUPE_DATA: dirname(file), ...env }
    }
  )
  if (log !== undefined) closeSync(log)
  return child
}

/** Runs the service during `use`, and stops it however `use` ends. */
export const withService = async <A>(
  options: ServiceOptions,
  use: (service: Service) => Promise<A>
): Promise<A> => {
  const folder = mkdtempSync(join(tmpdir(), "troupe-bench-"))
  const file = join(folder, "troupe.yaml")
  writeFileSync(file, options.config)
  const child = start(file, options)
  const stop = () => {
    child.kill("SIGTERM")
    rmSync(folder, { recursive: true, force: true })
  }
  // An interrupted bench also ends its service.
  process.once("exit", stop)
  try {
    const port = await listeningPort(child)
    return await use({ pid: child.pid!, port })
  } finally {
    process.off("exit", stop)
    stop()
    await ended(child, stopLimit)
  }
}

/** The body of an answer; rejects unless the status is 200. */
export const post = async (
  port: number,
  path: string,
  body: string,
  headers: Readonly<Record<string, string>> = {}
): Promise<string> => {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    method: "POST",
    body,
    headers: { "content-type": "application/json", ...headers }
  })
  const text = await response.text()
  if (response.status !== 200) throw new Error(`The service answered ${response.status}: ${text}`)
  return text
}
