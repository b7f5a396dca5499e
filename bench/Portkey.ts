/** Portkey's gateway as a child process, if it is installed: `npm ci --prefix bench/peers`. */
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { ended } from "./Child.ts"
import { freePort } from "./FreePort.ts"
import { until } from "./Until.ts"

export interface Portkey {
  readonly pid: number
  readonly port: number
  /** Headers of a request besides its key. */
  readonly headers: Readonly<Record<string, string>>
}

const entry = fileURLToPath(
  new URL("peers/node_modules/@portkey-ai/gateway/build/start-server.js", import.meta.url)
)

export const isInstalled: boolean = existsSync(entry)

export const missing = "Portkey's gateway is not installed, so its rows are omitted: npm ci --prefix bench/peers"

/** Limit of its shutdown, ms. */
const stopLimit = 2_000

const isListening = (port: number): Promise<boolean> =>
  fetch(`http://127.0.0.1:${port}/`).then(({ ok }) => ok, () => false)

/** Runs it during `use`, or runs `use` without it if it is not installed. */
export const withPortkey = async <A>(
  upstreamPort: number,
  use: (portkey: Portkey | undefined) => Promise<A>
): Promise<A> => {
  if (!isInstalled) return use(undefined)
  const port = await freePort()
  const child = spawn(process.execPath, [entry, "--headless", `--port=${port}`], {
    stdio: "ignore",
    env: { PATH: process.env["PATH"], NODE_ENV: "production" }
  })
  const stop = () => child.kill("SIGTERM")
  process.once("exit", stop)
  try {
    await until("Portkey's gateway listens", () => {
      if (child.exitCode !== null) throw new Error(`Portkey's gateway ended with exit code ${child.exitCode}`)
      return isListening(port)
    })
    return await use({
      pid: child.pid!,
      port,
      headers: {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": `http://127.0.0.1:${upstreamPort}/v1`
      }
    })
  } finally {
    process.off("exit", stop)
    stop()
    await ended(child, stopLimit)
  }
}
