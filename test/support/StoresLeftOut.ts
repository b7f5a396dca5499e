/** Names the stores that a run of the tests left out, after its results. */
import { leftOut } from "./DatabaseServers.ts"

export default () => () => {
  const line = leftOut()
  if (line !== undefined) process.stdout.write(`\n${line}\n`)
}
