/**
 * Imported first by both entries, `main.ts` and `index.ts`: if Node.js is too old, the import fails with one line that
 * names the required version.
 *
 * **Gotchas**
 *
 * A Node.js that is too old must be able to read this file: its syntax and imports are those of Node.js 18.
 */
import { readFileSync } from "node:fs"

const { engines } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
  engines: { node: string }
}

/** Such as `22.19`, of `>=22.19`. */
const required = engines.node.replace(">=", "")
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
const [requiredMajor = 0, requiredMinor = 0] = required.split(".").map(Number)

if (major < requiredMajor || (major === requiredMajor && minor < requiredMinor)) {
  throw new Error(`troupe: Node.js ${required} or later is required. This is Node.js ${process.versions.node}.`)
}
