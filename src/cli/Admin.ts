/** `troupe ps`, `load`, `unload` and `reload`: what a running service's models do, and what an operator does to them. */
import { Console, Effect, Schema } from "effect"
import { Argument, Command } from "effect/cli"
import type { Action, Deployment } from "../layers/http/AdminSchema.ts"
import { target, withClient } from "./Client.ts"
import { json, printJson, table } from "./Shared.ts"

const model = Argument.String("model").pipe(
  Argument.withSchema(Schema.NonEmptyString),
  Argument.withDescription("Name of a configured model")
)

const mebibytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`

const stateOf = ({ circuit, pinned, state }: Deployment): string =>
  [state, ...(pinned ? ["pinned"] : []), ...(circuit === undefined ? [] : [`circuit ${circuit.phase}`])].join(", ")

const seconds = (ms: number): string => `${Math.ceil(ms / 1_000)} s`

/** Why it is not called. */
const troubleOf = ({ circuit, keys, lastFailure = "", state }: Deployment): string => {
  if (state === "failed") return lastFailure
  if (circuit !== undefined && circuit.retryAfterMs > 0) {
    return `circuit open after failures; retry in ${seconds(circuit.retryAfterMs)}`
  }
  return keys === undefined ? "" : `the provider limited or rejected its keys; retry in ${seconds(keys.retryAfterMs)}`
}

const rows = (deployments: ReadonlyArray<Deployment>): ReadonlyArray<ReadonlyArray<string>> => [
  ["DEPLOYMENT", "ENGINE", "STATE", "RUNNING", "WAITING", "MEMORY", ""],
  ...deployments.map((deployment) => [
    deployment.deployment,
    deployment.engine,
    stateOf(deployment),
    String(deployment.running),
    String(deployment.queued),
    deployment.memoryBytes === 0 ? "" : mebibytes(deployment.memoryBytes),
    troubleOf(deployment)
  ])
]

const print = (asJson: boolean, deployments: ReadonlyArray<Deployment>) =>
  asJson ? printJson(deployments) : Console.log(table(rows(deployments)))

export const ps = Command.make("ps", { ...target, json }, ({ json, ...target }) =>
  Effect.flatMap(
    withClient(target, (client) => client.admin.deployments({})),
    ({ deployments }) => print(json, deployments)
  )).pipe(Command.withDescription("List the deployments of a running service, their state and memory"))

const act = (action: Action, description: string) =>
  Command.make(action, { model, ...target, json }, ({ json, model, ...target }) =>
    Effect.flatMap(
      withClient(target, (client) => client.admin.act({ params: { model, action } })),
      ({ deployments }) => print(json, deployments)
    )).pipe(Command.withDescription(description))

export const load = act("load", "Load a model; also retries one that failed")
export const unload = act("unload", "Unload a model after its running requests have finished")
export const reload = act("reload", "Load a new instance of a model, then replace the old one without downtime")
