/** The state of a deployment as text, and why it gets no requests. Pure. */
import type { Deployment } from "../layers/http/AdminSchema.ts"
import { secondsText, versionText } from "./Output.ts"

/** Its state, with what differs from others: pinned, a share of a rollout, a circuit. */
export const stateOf = ({ circuit, pinned, state, version }: Deployment): string =>
  [
    state,
    ...(pinned ? ["pinned"] : []),
    ...(version === undefined ? [] : [versionText(version)]),
    ...(circuit === undefined ? [] : [`circuit ${circuit.phase}`])
  ].join(", ")

/** Why the deployment gets no requests, which of its keys wait, or why it has as many replicas; else empty. */
export const reasonOf = ({ circuit, keys, lastFailure = "", scaling, state }: Deployment): string => {
  if (state === "failed") return lastFailure
  if (circuit !== undefined && circuit.retryAfterMs > 0) {
    return `circuit open after failures; retry in ${secondsText(circuit.retryAfterMs)}`
  }
  if (keys === undefined) return scaling?.reason ?? ""
  const { rejected, retryAfterMs, total, waiting } = keys
  const some = (count: number) => count === total ? "its keys" : `${count} of its ${total} keys`
  if (waiting === 0) return `the provider rejected ${some(rejected)} and has not accepted them since; check them`
  const which = some(waiting)
  return `the provider limited or rejected ${which}; retry in ${secondsText(retryAfterMs)}`
}
