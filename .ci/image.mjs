// Performs the steps of the Dockerfile without Docker: node .ci/image.mjs [NAME=VALUE of a build argument ...]
//
// A folder stands for the root of each stage. The instructions are read from the Dockerfile: RUN runs in the stage's work
// folder, COPY copies from the files that `.dockerignore` admits or from another stage, and what ENV, USER, ENTRYPOINT, CMD and
// HEALTHCHECK say starts the service: as uid 1001 (if this runs as root), with a read-only root but /data and /tmp. Then it makes
// a key, asks for the health check, a chat and an embedding, stops the service by SIGTERM and expects exit code 0.
import { execFileSync, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import {
  chmodSync,
  chownSync,
  copyFileSync,
  cpSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync
} from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const source = fileURLToPath(new URL("..", import.meta.url))
const isRoot = process.getuid() === 0
const scratch = mkdtempSync(join(tmpdir(), "troupe-image-"))
chmodSync(scratch, 0o755)
process.on("exit", () => {
  spawnSync("chmod", ["-R", "u+w", scratch])
  rmSync(scratch, { recursive: true, force: true })
})

const print = (line) => process.stdout.write(`${line}\n`)

const fail = (message) => {
  print(`image: ${message}`)
  process.exit(1)
}

/** The instructions, with their lines joined. */
const instructions = readFileSync(join(source, "Dockerfile"), "utf8")
  .replaceAll(/^\s*#.*\n/gm, "").replaceAll(/\\\n\s*/g, " ").split("\n").filter((line) => line.trim() !== "")
  .map((line) => {
    const [, name, rest] = /^([A-Z]+)\s+(.*)$/.exec(line)
    return { name, rest: rest.trim() }
  })

/** The build's context: the files of the repository that `.dockerignore`, a list of what is not ignored, admits. */
const makeContext = () => {
  const patterns = readFileSync(join(source, ".dockerignore"), "utf8").split("\n").filter((line) => /^[^#]/.test(line))
  if (patterns[0] !== "*" || patterns.slice(1).some((line) => !/^![\w.-]+$/.test(line))) {
    fail(".dockerignore has to be * and lines of !NAME.")
  }
  const admitted = new Set(patterns.slice(1).map((line) => line.slice(1)))
  const list = ["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
  for (const file of execFileSync("git", list, { cwd: source, encoding: "utf8" }).split("\0")) {
    if (file === "" || !admitted.has(file.split("/")[0])) continue
    mkdirSync(dirname(join(scratch, "context", file)), { recursive: true })
    copyFileSync(join(source, file), join(scratch, "context", file))
  }
}

const given = Object.fromEntries(process.argv.slice(2).map((argument) => argument.split("=")))
const args = {}
const stages = new Map()
let stage
let place = "/"
let result = { env: {} }

const inStage = (path) => join(stage, path.startsWith("/") ? path : join(place, path))
const filled = (text) => text.replaceAll(/\$\{(\w+)\}/g, (_, name) => args[name] ?? fail(`No value of ${name}.`))

const copy = (rest) => {
  const words = rest.split(/\s+/)
  const flags = Object.fromEntries(words.filter((word) => word.startsWith("--")).map((word) => word.slice(2).split("=")))
  const paths = words.filter((word) => !word.startsWith("--"))
  const target = paths.pop()
  const from = flags.from === undefined ? join(scratch, "context") : stages.get(flags.from)
  for (const path of paths) {
    const isFolder = statSync(join(from, path)).isDirectory()
    const to = isFolder || !target.endsWith("/") ? inStage(target) : join(inStage(target), basename(path))
    mkdirSync(dirname(to), { recursive: true })
    cpSync(join(from, path), to, { recursive: true, verbatimSymlinks: true })
    if (flags.chown === undefined || !isRoot) continue
    const [uid, gid] = flags.chown.split(":").map(Number)
    for (const one of ["", ...readdirSync(to, { recursive: true })]) chownSync(join(to, one), uid, gid)
  }
}

/** Steps of the build reach the registry as this process does: by its proxy, its certificates and its cache. */
const { NODE_ENV: _, ...inherited } = process.env
const environment = () => ({
  ...inherited,
  PATH: `${dirname(process.execPath)}:${process.env.PATH}`,
  ...args,
  ...result.env
})

const perform = {
  ARG: (rest) => {
    const [name, value] = rest.split("=")
    args[name] = given[name] ?? args[name] ?? value
  },
  FROM: (rest) => {
    const [image, , name = "final"] = filled(rest).split(/\s+/)
    if (!image.startsWith(`node:${process.versions.node}-`)) {
      fail(`The image is ${image}, and this is Node.js ${process.versions.node}: they should be one version.`)
    }
    stage = join(scratch, name)
    stages.set(name, stage)
    mkdirSync(stage)
    place = "/"
    result = { env: {} }
  },
  WORKDIR: (rest) => {
    place = rest
    mkdirSync(inStage("."), { recursive: true })
  },
  COPY: copy,
  RUN: (rest) => {
    // It would be the machine's file, not the stage's.
    if (/(^|\s)\//.test(rest)) fail(`RUN has an absolute path: ${rest}`)
    const { status } = spawnSync("sh", ["-c", rest], { cwd: inStage("."), env: environment(), stdio: "inherit" })
    if (status !== 0) fail(`RUN ${rest} ended with exit code ${status}.`)
  },
  ENV: (rest) => {
    for (const pair of rest.split(/\s+/)) result.env[pair.split("=")[0]] = pair.split("=")[1]
  },
  USER: (rest) => {
    result.user = rest.split(":").map(Number)
  },
  HEALTHCHECK: (rest) => {
    result.health = JSON.parse(/CMD (\[.*\])$/.exec(rest)[1])
  },
  ENTRYPOINT: (rest) => {
    result.entry = JSON.parse(rest)
  },
  CMD: (rest) => {
    result.command = JSON.parse(rest)
  },
  EXPOSE: () => {},
  VOLUME: () => {}
}

const build = () => {
  makeContext()
  for (const { name, rest } of instructions) {
    print(`${name} ${rest}`)
    const step = perform[name] ?? fail(`${name} is not performed here.`)
    step(rest)
  }
}

/** What `node` is in the image: the user of the service may not read every folder that has this one. */
const addNode = () => {
  mkdirSync(inStage("/usr/local/bin"), { recursive: true })
  copyFileSync(process.execPath, inStage("/usr/local/bin/node"))
}

const isWritable = (path) => ["/data", "/tmp"].some((folder) => path.startsWith(inStage(folder)))

const makeReadOnly = () => {
  mkdirSync(inStage("/tmp"))
  chmodSync(inStage("/tmp"), 0o1777)
  for (const path of ["", ...readdirSync(stage, { recursive: true })].map((name) => join(stage, name)).toReversed()) {
    const status = lstatSync(path)
    if (!isWritable(path) && !status.isSymbolicLink()) chmodSync(path, status.mode & 0o555)
  }
}

/** Absolute paths of the image are those of its folder. */
const mapped = (text) => text.startsWith("/") ? inStage(text) : text

const start = (words, more = {}, stdio = "inherit") => {
  const [program, ...rest] = words.map(mapped)
  const [uid, gid] = result.user
  return spawn(program === "node" ? inStage("/usr/local/bin/node") : program, rest, {
    cwd: inStage("."),
    env: {
      PATH: inStage("/usr/local/bin"),
      TMPDIR: inStage("/tmp"),
      ...Object.fromEntries(Object.entries(result.env).map(([name, value]) => [name, mapped(value)])),
      ...more
    },
    stdio,
    ...(isRoot ? { uid, gid } : {})
  })
}

const run = async (...call) => {
  const child = start(...call)
  let text = ""
  child.stdout?.on("data", (data) => {
    text += data
  })
  const [code] = await once(child, "close")
  return { code, text }
}

const freePort = async () => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address()
  server.close()
  return String(port)
}

const ask = async (url, key, path, body, expected) => {
  const response = await fetch(url + path, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(30_000)
  })
  const text = await response.text()
  if (!text.includes(expected)) fail(`${path} was answered with ${response.status} ${text}`)
  print(`${path}: ${response.status}`)
}

const sizeOf = (path) => {
  const [kilobytes] = execFileSync("du", ["-sk", path], { encoding: "utf8" }).split("\t")
  return `${Math.round(Number(kilobytes) / 1024)} MiB`
}

const tryService = async () => {
  const more = { PORT: await freePort() }
  const made = await run([...result.entry, "keys", "create", "app"], more, ["ignore", "pipe", "inherit"])
  const [key] = /\btk-\w+/.exec(made.text) ?? fail(`No key was made: ${made.text}`)
  const service = start([...result.entry, ...result.command], more)
  process.once("exit", () => service.kill("SIGKILL"))
  const ended = once(service, "close")
  let health
  for (let attempt = 0; attempt < 300 && health !== 0 && service.exitCode === null; attempt++) {
    health = (await run(result.health, more)).code
  }
  if (health !== 0) fail("The health check did not succeed.")
  const url = `http://127.0.0.1:${more.PORT}`
  const messages = [{ role: "user", content: "What is the capital of Japan?" }]
  await ask(url, key, "/v1/chat/completions", { model: "tiny-chat", messages, temperature: 0 }, "Tokyo")
  if (args.ONNX === "true") await ask(url, key, "/v1/embeddings", { model: "tiny-embed", input: "Hi" }, "\"embedding\":[")
  service.kill("SIGTERM")
  const [code, signal] = await ended
  if (code !== 0) fail(`After SIGTERM the service ended with ${signal ?? code}, not with exit code 0.`)
  if ((await run(result.health, more)).code !== 1) fail("The health check succeeds though nothing runs.")
}

build()
print(`Size beside Node.js: ${sizeOf(stage)}, of it node_modules ${sizeOf(inStage("node_modules"))}`)
addNode()
makeReadOnly()
await tryService()
if (!isRoot) print("This ran as this user, because only root can start a process as another one.")
print(`The image works as uid ${isRoot ? result.user[0] : process.getuid()} with a read-only root.`)
