#!/usr/bin/env node
/**
 * Entry of the command line.
 *
 * **Details**
 *
 * Node.js keeps compiled code in a folder of the user, for this process and for the engine processes, which inherit the
 * variable. The service writes it once it listens. `NODE_COMPILE_CACHE` names another folder, and
 * `NODE_DISABLE_COMPILE_CACHE=1` turns it off.
 *
 * **Gotchas**
 *
 * A Node.js that is too old must be able to read this file to print the message of `RequireNode`: its static imports and
 * its syntax are those of Node.js 18.
 */
import { join } from "node:path"

const unsupported = await import("./RequireNode.ts").then(() => undefined, (error: Error) => error.message)

/** Warnings of experimental features that this program uses are of no use to the user. */
const hideExperimentalWarnings = (): void => {
  const print = process.listeners("warning")
  process.removeAllListeners("warning")
  process.on("warning", (warning) => {
    if (warning.name !== "ExperimentalWarning") { for (const listener of print) listener(warning) }
  })
}

if (unsupported !== undefined) {
  process.stderr.write(`${unsupported}\n`)
  process.exitCode = 1
} else {
  hideExperimentalWarnings()
  const { enableCompileCache } = await import("node:module")
  const { HOME, XDG_CACHE_HOME } = process.env
  const caches = XDG_CACHE_HOME || (HOME ? join(HOME, ".cache") : undefined)
  if (caches !== undefined) {
    process.env["NODE_COMPILE_CACHE"] ??= join(caches, "troupe", "compiled")
    enableCompileCache(process.env["NODE_COMPILE_CACHE"])
  }
  await import("./cli/Process.ts")
}
