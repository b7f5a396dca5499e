/**
 * Whether this Node can run Troupe.
 *
 * **Gotchas**
 *
 * A Node that is too old must be able to read this file: its syntax and imports are those of Node 18.
 */
import { readFileSync } from "node:fs"

const { engines } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
  engines: { node: string }
}

/** As `22.19` of `>=22.19`. */
const needed = engines.node.replace(">=", "")
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
const [neededMajor = 0, neededMinor = 0] = needed.split(".").map(Number)

/** One line that names the Node that is needed; undefined where this one will do. */
export const unsupported: string | undefined = major < neededMajor || (major === neededMajor && minor < neededMinor)
  ? `Node.js ${needed} or later is required. This is Node.js ${process.versions.node}.`
  : undefined
