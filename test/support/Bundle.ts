/** Builds the bundle that tests start as `troupe`, if a source has changed since it was built. */
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"

const start = fileURLToPath(new URL("../../start.mjs", import.meta.url))

export default () => {
  const { stderr } = spawnSync(process.execPath, [start, "--build"], { encoding: "utf8" })
  // Of a build that fails.
  if (stderr !== "") throw new Error(stderr)
}
