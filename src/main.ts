#!/usr/bin/env node
/**
 * Process entry.
 *
 * **Details**
 *
 * Node keeps what it has compiled in a folder of the user's own, for this process and for the engine processes, which
 * inherit the variable: the second start takes half the time. `NODE_COMPILE_CACHE` names another folder, and
 * `NODE_DISABLE_COMPILE_CACHE=1` does without.
 *
 * **Gotchas**
 *
 * A Node that is too old must be able to read this file to be told so: it imports nothing by itself but what Node 18 has,
 * and is written in the syntax of that.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"

const { engines } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
  engines: { node: string }
}

/** As `22.19` of `>=22.19`. */
const needed = engines.node.replace(">=", "")
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
const [neededMajor = 0, neededMinor = 0] = needed.split(".").map(Number)

if (major < neededMajor || (major === neededMajor && minor < neededMinor)) {
  process.stderr.write(`troupe: Node ${needed} or later is needed, and this is Node ${process.versions.node}.\n`)
  process.exitCode = 1
} else {
  const { enableCompileCache } = await import("node:module")
  const { HOME, XDG_CACHE_HOME } = process.env
  const caches = XDG_CACHE_HOME || (HOME ? join(HOME, ".cache") : undefined)
  if (caches !== undefined) {
    process.env["NODE_COMPILE_CACHE"] ??= join(caches, "troupe", "compiled")
    enableCompileCache(process.env["NODE_COMPILE_CACHE"])
  }
  await import("./cli/Process.ts")
}
