/** nginx as a pure proxy in a child process, if it is installed. */
import { execFileSync, spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ended } from "./Child.ts"
import { freePort } from "./FreePort.ts"
import { until } from "./Until.ts"

export interface Nginx {
  readonly pid: number
  readonly port: number
}

const isInstalled = (): boolean => {
  try {
    execFileSync("nginx", ["-v"], { stdio: "ignore" })
    return true
  } catch {
    return false
  }
}

export const missing = "nginx is not installed, so its rows are omitted"

/** Limit of its shutdown, ms. */
const stopLimit = 2_000

/** One process, which passes answers on as they arrive and keeps its connections. */
const configOf = (folder: string, port: number, upstreamPort: number): string => `
daemon off;
master_process off;
pid ${folder}/pid;
error_log stderr crit;
events { worker_connections 8192; }
http {
  access_log off;
  ${
  ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${folder}/${name};`).join(" ")
}
  keepalive_requests 1000000000;
  upstream provider {
    server 127.0.0.1:${upstreamPort};
    keepalive 1024;
    keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / {
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header connection "";
      proxy_buffering off;
    }
  }
}
`

const isListening = (port: number): Promise<boolean> =>
  fetch(`http://127.0.0.1:${port}/`, { method: "POST" }).then(() => true, () => false)

/** Runs it during `use`, or runs `use` without it if it is not installed. */
export const withNginx = async <A>(
  upstreamPort: number,
  use: (nginx: Nginx | undefined) => Promise<A>
): Promise<A> => {
  if (!isInstalled()) return use(undefined)
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), "troupe-bench-"))
  const file = join(folder, "nginx.conf")
  writeFileSync(file, configOf(folder, port, upstreamPort))
  const child = spawn("nginx", ["-e", "stderr", "-p", folder, "-c", file], { stdio: ["ignore", "ignore", "inherit"] })
  const stop = () => {
    child.kill("SIGTERM")
    rmSync(folder, { recursive: true, force: true })
  }
  process.once("exit", stop)
  try {
    await until("nginx listens", () => {
      if (child.exitCode !== null) throw new Error(`nginx ended with exit code ${child.exitCode}`)
      return isListening(port)
    })
    return await use({ pid: child.pid!, port })
  } finally {
    process.off("exit", stop)
    stop()
    await ended(child, stopLimit)
  }
}
