#!/usr/bin/env node
/**
 * Process entry.
 *
 * **Details**
 *
 * Node keeps what it has compiled in a folder of the user's own, for this process and for the engine processes, which
 * inherit the variable: the second start takes half the time. `NODE_COMPILE_CACHE` names another folder, and
 * `NODE_DISABLE_COMPILE_CACHE=1` does without.
 */
import { enableCompileCache } from "node:module"
import { join } from "node:path"

const { HOME, XDG_CACHE_HOME } = process.env
const caches = XDG_CACHE_HOME || (HOME ? join(HOME, ".cache") : undefined)
if (caches !== undefined) {
  process.env["NODE_COMPILE_CACHE"] ??= join(caches, "troupe", "compiled")
  enableCompileCache(process.env["NODE_COMPILE_CACHE"])
}

await import("./cli/Process.ts")
