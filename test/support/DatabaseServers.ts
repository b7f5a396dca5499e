/**
 * Postgres and Redis for tests: the programs of Debian's packages `postgresql` and `redis-server`, on loopback, with their
 * data in a temporary folder. Each is started by the first test of a file that needs it, and stopped by its process id.
 */
import type { ChildProcess } from "node:child_process"
import { execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, globSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { connect, createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { fileURLToPath } from "node:url"

/** A running server. */
export interface DatabaseServer {
  readonly url: string
  readonly child: ChildProcess
  readonly stop: () => Promise<void>
}

const inPath = (name: string): string | undefined =>
  (process.env["PATH"] ?? "").split(delimiter).map((folder) => join(folder, name)).find((file) => existsSync(file))

/** The folder of Postgres' programs; Debian has one for each version. */
const postgresFolder: string | undefined = globSync("/usr/lib/postgresql/*/bin").toSorted().at(-1)
const redisServer: string | undefined = inPath("redis-server")

/** Whether a missing server is an error: in CI, which installs all. */
export const mustRun = process.env["TROUPE_TEST_STORES"] === "all"

/** Servers that this machine has. */
export const installed = { postgres: postgresFolder !== undefined, redis: redisServer !== undefined }

/** What is left out, in one line; undefined if nothing is. */
export const leftOut = (): string | undefined => {
  const missing = [
    ...(installed.postgres ? [] : ["Postgres (Debian package postgresql)"]),
    ...(installed.redis ? [] : ["Redis (Debian package redis-server)"])
  ]
  return missing.length === 0 ? undefined : `Stores left out of the tests, because not installed: ${missing.join(", ")}`
}

const cache = fileURLToPath(new URL("../../node_modules/.cache", import.meta.url))

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}

/** Postgres does not run as root; then it runs as the user that the package creates. */
const ownerOf = (): { readonly uid?: number; readonly gid?: number } => {
  if (process.getuid?.() !== 0) return {}
  const id = (flag: string) => Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }))
  return { uid: id("-u"), gid: id("-g") }
}

/** Whether a connection to the port is accepted. */
const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1")
      .once("connect", () => resolve(true))
      .once("error", () => resolve(false))
    socket.once("close", () => socket.destroy())
    socket.once("connect", () => socket.destroy())
  })

/** Waits until a server answers, and makes sure that it ends with this process. */
const started = async (
  child: ChildProcess,
  folder: string,
  url: string,
  ready: () => Promise<boolean>
): Promise<DatabaseServer> => {
  let output = ""
  const collect = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-2000)
  }
  child.stdout?.on("data", collect)
  child.stderr?.on("data", collect)
  const kill = () => child.kill("SIGKILL")
  process.once("exit", kill)
  const closed = once(child, "close")
  for (;;) {
    if (child.exitCode !== null) throw new Error(`The server ended at its start: ${output}`)
    if (await ready()) break
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return {
    url,
    child,
    stop: async () => {
      child.kill("SIGINT")
      await closed
      process.removeListener("exit", kill)
      rmSync(folder, { recursive: true, force: true })
    }
  }
}

const program = (name: string): string => join(postgresFolder!, name)

/** With its owner and its rights. */
const copyFolder = (from: string, to: string) => execFileSync("cp", ["-a", from, to], { stdio: "pipe" })

/** Creates the data of a new server in `folder`, or copies them: `initdb` takes ten times as long as a copy. */
const createData = (folder: string, owner: ReturnType<typeof ownerOf>): string => {
  const data = join(folder, "data")
  // The owner is part of the name, since another one may not start the server.
  const created = join(cache, `postgres-${postgresFolder!.split("/").at(-2)}-${owner.uid ?? process.getuid?.()}`)
  if (existsSync(created)) {
    copyFolder(created, data)
    return data
  }
  const passwordFile = join(folder, "password")
  writeFileSync(passwordFile, "secret\n")
  const options = ["-U", "troupe", "--auth=scram-sha-256", `--pwfile=${passwordFile}`, "--no-sync", "-E", "UTF8"]
  execFileSync(program("initdb"), ["-D", data, ...options, "--locale=C"], { ...owner, cwd: folder, stdio: "pipe" })
  mkdirSync(cache, { recursive: true })
  const copy = mkdtempSync(`${created}-`)
  copyFolder(data, join(copy, "data"))
  try {
    renameSync(join(copy, "data"), created)
  } catch {
    // Another process has been faster.
  }
  rmSync(copy, { recursive: true, force: true })
  return data
}

/** Starts Postgres with the user `troupe`, its password `secret`, and the database `troupe`. */
export const startPostgres = async (): Promise<DatabaseServer> => {
  const owner = ownerOf()
  const folder = mkdtempSync(join(tmpdir(), "troupe-postgres-"))
  if (owner.uid !== undefined) execFileSync("chown", [`${owner.uid}:${owner.gid}`, folder])
  const data = createData(folder, owner)
  const port = await freePort()
  const options = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200"]
  const child = spawn(
    program("postgres"),
    ["-D", data, "-h", "127.0.0.1", "-p", String(port), "-k", folder, ...options.flatMap((option) => ["-c", option])],
    { ...owner, cwd: folder, stdio: ["ignore", "pipe", "pipe"] }
  )
  const ready = () => {
    try {
      execFileSync(program("pg_isready"), ["-q", "-h", "127.0.0.1", "-p", String(port)], { stdio: "ignore" })
      return Promise.resolve(true)
    } catch {
      return Promise.resolve(false)
    }
  }
  return started(child, folder, `postgres://troupe:secret@127.0.0.1:${port}/postgres`, ready)
}

/** Starts Redis, at a free port unless one is given. */
export const startRedis = async (at?: number): Promise<DatabaseServer> => {
  const folder = mkdtempSync(join(tmpdir(), "troupe-redis-"))
  const port = at ?? await freePort()
  const child = spawn(
    redisServer!,
    ["--port", String(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no"],
    { cwd: folder, stdio: ["ignore", "pipe", "pipe"] }
  )
  return started(child, folder, `redis://127.0.0.1:${port}`, () => accepts(port))
}
