/** A deployment as text: its engine, its state, what it runs, and why it gets no requests. Pure. */
import type { Deployment } from "../layers/http/AdminSchema.ts"
import { adapterText, fileName, secondsText, versionText } from "./Output.ts"

/** Its state, with what differs from others: drained, pinned, a share of a rollout, a circuit. */
export const stateOf = ({ circuit, drain, pinned, state, version }: Deployment): string =>
  [
    ...(drain === undefined ? [state] : drain === state ? [drain] : [state, drain]),
    ...(pinned ? ["pinned"] : []),
    ...(version === undefined ? [] : [versionText(version)]),
    ...(circuit === undefined ? [] : [`circuit ${circuit.phase}`])
  ].join(", ")

/** Why the deployment gets no requests, which of its keys wait, or why it has as many replicas; else empty. */
export const reasonOf = ({ circuit, drain, keys, lastFailure = "", scaling, state }: Deployment): string => {
  if (drain !== undefined) return "drained by an operator; `troupe resume` ends that"
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

const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`

/** As ` (4 slots, 2+3 threads)`: for answers and for prompts. */
const chosenOf = ({ slots, threads }: Deployment): string => {
  if (threads === undefined) return ""
  const { answers, prompts } = threads
  const threadsText = answers === prompts ? counted(answers, "thread") : `${answers}+${prompts} threads`
  return ` (${slots === undefined ? "" : `${counted(slots, "slot")}, `}${threadsText})`
}

/** The engine with its slots and threads, the name of its file where there are several, and its LoRA adapters. */
export const engineOf = (deployment: Deployment): string => {
  const { engine, lora = [], variant } = deployment
  return [
    `${engine}${chosenOf(deployment)}`,
    ...(variant === undefined ? [] : [fileName(variant)]),
    ...lora.map(adapterText)
  ].join(" ")
}

/** Jobs that hold a slot, of how many where the limit is adaptive. */
export const runningOf = ({ limit, running }: Deployment): string =>
  limit === undefined ? `${running}` : `${running}/${limit}`

/** As `2 of 1-3`. */
export const replicasOf = ({ scaling }: Deployment): string =>
  scaling === undefined ? "" : `${scaling.replicas} of ${scaling.minReplicas}-${scaling.maxReplicas}`
