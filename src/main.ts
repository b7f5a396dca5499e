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
import { join } from "node:path"
import { unsupported } from "./NodeVersion.ts"

if (unsupported !== undefined) {
  process.stderr.write(`troupe: ${unsupported}\n`)
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
