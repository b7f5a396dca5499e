/** The commands that call a running service: `troupe ps`, `load`, `unload`, `reload`, `circuits` and `decisions`. */
import { Console, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import type { Report } from "../layers/http/AdminReload.ts"
import type { Action, Circuit, Deployment, Replay } from "../layers/http/AdminSchema.ts"
import * as SettingsDiff from "../services/settings/SettingsDiff.ts"
import { withClient } from "./Client.ts"
import { engineOf, reasonOf, replicasOf, runningOf, stateOf } from "./DeploymentText.ts"
import type { Target } from "./Flags.ts"
import { CommandFailed, json, target } from "./Flags.ts"
import { bytesText, printJson, secondsText, table } from "./Output.ts"
import * as RoutingText from "./RoutingText.ts"

const model = Argument.String("model").pipe(
  Argument.withSchema(Schema.NonEmptyString),
  Argument.withDescription("Name of a configured model")
)

const drained = Argument.String("deployment").pipe(
  Argument.withSchema(Schema.NonEmptyString),
  Argument.withDescription("Deployment ID, such as chat#0, or the name of a model for all of its deployments")
)

/** Where no replicas follow their load there is no column for them. */
const rows = (deployments: ReadonlyArray<Deployment>): ReadonlyArray<ReadonlyArray<string>> => {
  const hasScaling = deployments.some(({ scaling }) => scaling !== undefined)
  const ifScaling = (text: string) => hasScaling ? [text] : []
  return [
    ["DEPLOYMENT", "ENGINE", "STATE", ...ifScaling("REPLICAS"), "RUNNING", "WAITING", "MEMORY", "REASON"],
    ...deployments.map((deployment) => [
      deployment.deployment,
      engineOf(deployment),
      stateOf(deployment),
      ...ifScaling(replicasOf(deployment)),
      runningOf(deployment),
      String(deployment.queued),
      deployment.memoryBytes === 0 ? "" : bytesText(deployment.memoryBytes),
      reasonOf(deployment)
    ])
  ]
}

const printDeployments = (asJson: boolean, deployments: ReadonlyArray<Deployment>) =>
  asJson ? printJson(deployments) : Console.log(table(rows(deployments)))

export const ps = Command.make("ps", { ...target, json }, ({ json, ...target }) =>
  Effect.flatMap(
    withClient(target, (client) => client.admin.deployments({})),
    ({ deployments }) => printDeployments(json, deployments)
  )).pipe(Command.withDescription("List the deployments of a running service, their state and memory"))

const act = (action: Action, description: string) =>
  Command.make(action, { model, ...target, json }, ({ json, model, ...target }) =>
    Effect.flatMap(
      withClient(target, (client) => client.admin.act({ params: { model, action } })),
      ({ deployments }) => printDeployments(json, deployments)
    )).pipe(Command.withDescription(description))

export const load = act("load", "Load a model; also retries one that failed")
export const unload = act("unload", "Unload a model after its running requests have finished")

/** An id of a deployment has a `#`, which no other argument has. */
const actOn = (action: "drain" | "resume", description: string) =>
  Command.make(action, { name: drained, ...target, json }, ({ json, name, ...target }) =>
    Effect.flatMap(
      withClient(target, (client) =>
        /#\d+$/.test(name)
          ? client.admin.actOne({ params: { deployment: name, action } })
          : client.admin.act({ params: { model: name, action } })),
      ({ deployments }) => printDeployments(json, deployments)
    )).pipe(Command.withDescription(description))

export const drain = actOn("drain", "Give a deployment or a model no new requests; it ends those that it has")
export const resume = actOn("resume", "End the drain of a deployment or a model")

const reloadModel = (name: string, asJson: boolean, to: Target) =>
  Effect.flatMap(
    withClient(to, (client) => client.admin.act({ params: { model: name, action: "reload" } })),
    ({ deployments }) => printDeployments(asJson, deployments)
  )

const summaryOf = ({ applied, changes }: Report, dryRun: boolean): string => {
  if (changes.length === 0) return "The configuration in use is that of the file."
  if (dryRun) return "Nothing was changed (--dry-run)."
  return applied ? "Applied." : "Nothing was changed: all differences need a restart."
}

const reloadConfiguration = Effect.fnUntraced(function*(dryRun: boolean, asJson: boolean, to: Target) {
  const query = dryRun ? { dryRun: "true" } as const : {}
  const report = yield* withClient(to, (client) => client.admin.reload({ query }))
  if (asJson) return yield* printJson(report)
  const warnings = (report.warnings ?? []).map((warning) => `Warning: ${warning}`)
  yield* Console.log([...report.changes.map(SettingsDiff.line), ...warnings, summaryOf(report, dryRun)].join("\n"))
})

const reloadOptions = {
  model: Argument.optional(
    Argument.withDescription(model, "Name of a model to load again (default: the configuration is read again)")
  ),
  dryRun: Flag.Boolean("dry-run").pipe(
    Flag.withDescription("Print what would change, and change nothing"),
    Flag.withDefault(false)
  ),
  ...target,
  json
}

const noDryRun = new CommandFailed({ message: "--dry-run is for the configuration. Leave the model out." })

export const reload = Command.make("reload", reloadOptions, ({ dryRun, json, model, ...to }) => {
  if (Option.isNone(model)) return reloadConfiguration(dryRun, json, to)
  return dryRun ? Effect.fail(noDryRun) : reloadModel(model.value, json, to)
}).pipe(
  Command.withDescription("Read the configuration again, or replace one model's instance, without downtime"),
  Command.withExamples([
    { command: "troupe reload --dry-run", description: "Show what an edited troupe.yaml would change" },
    { command: "troupe reload", description: "Apply troupe.yaml to the running service" },
    { command: "troupe reload chat", description: "Load a new instance of the model chat, then replace the old one" }
  ])
)

const printCircuits = (asJson: boolean, circuits: ReadonlyArray<Circuit>) => {
  if (asJson) return printJson(circuits)
  if (circuits.length === 0) return Console.log("No deployment has been called yet.")
  const rows = circuits.map(({ deployment, phase, retryAfterMs }) => [
    deployment,
    phase,
    retryAfterMs === 0 ? "" : secondsText(retryAfterMs)
  ])
  return Console.log(table([["DEPLOYMENT", "CIRCUIT", "RETRY IN"], ...rows]))
}

const listCircuits = Command.make("ls", { ...target, json }, ({ json, ...target }) =>
  Effect.flatMap(
    withClient(target, (client) => client.admin.circuits({})),
    ({ circuits }) => printCircuits(json, circuits)
  )).pipe(Command.withDescription("List the circuit breakers of the deployments that have been called"))

const deployment = Argument.String("deployment").pipe(
  Argument.withSchema(Schema.NonEmptyString),
  Argument.withDescription("Deployment ID, such as chat#0")
)

const resetCircuit = Command.make(
  "reset",
  { deployment, ...target, json },
  ({ deployment, json, ...target }) =>
    Effect.flatMap(
      withClient(target, (client) => client.admin.resetCircuit({ params: { deployment } })),
      ({ circuits }) => printCircuits(json, circuits)
    )
).pipe(
  Command.withDescription("Close the circuit of a deployment, so that requests reach it again"),
  Command.withExamples([
    { command: "troupe circuits reset chat#0", description: "Reset the first deployment of the model chat" }
  ])
)

export const circuits = Command.make("circuits").pipe(
  Command.withDescription("Show or reset the circuit breakers of a running service"),
  Command.withSubcommands([listCircuits, resetCircuit])
)

const decisionOptions = {
  id: Argument.String("id").pipe(
    Argument.withDescription("Decision ID from the response header x-troupe-decision (default: list the latest)"),
    Argument.optional
  ),
  limit: Flag.Int("limit").pipe(
    Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000 }))),
    Flag.withDescription("Number of requests to list, at most 1000 (default: 20)"),
    Flag.withDefault(20)
  ),
  ...target,
  json
}

export const decisions = Command.make(
  "decisions",
  decisionOptions,
  ({ id, json, limit, ...target }) =>
    Effect.gen(function*() {
      if (Option.isSome(id)) {
        const record = yield* withClient(target, (client) => client.admin.decision({ params: { id: id.value } }))
        return yield* json ? printJson(record) : Console.log(RoutingText.recordText(record))
      }
      const { decisions } = yield* withClient(target, (client) => client.admin.decisions({ query: { limit } }))
      if (json) return yield* printJson(decisions)
      yield* Console.log(decisions.length === 0 ? "No requests yet." : RoutingText.recordTable(decisions))
    })
).pipe(
  Command.withDescription("Show the latest requests to a running service, with attempts and errors"),
  Command.withExamples([
    { command: "troupe decisions --limit 5", description: "List the latest five requests" },
    { command: "troupe decisions dec-1a2b3c-0", description: "Show one request with its scores and attempts" }
  ])
)

const replayed = Argument.String("id").pipe(
  Argument.withSchema(Schema.NonEmptyString),
  Argument.withDescription("Decision ID from the response header x-troupe-decision, or the ID of the response")
)

const replayText = ({ answer, decision, replayOf, status }: Replay): string =>
  [
    `Sent the request of ${replayOf} again: status ${status}.`,
    ...(decision === undefined ? [] : ["", RoutingText.recordText(decision)]),
    "",
    JSON.stringify(answer, undefined, 2)
  ].join("\n")

export const replay = Command.make(
  "replay",
  { id: replayed, ...target, json },
  ({ id, json, ...target }) =>
    Effect.flatMap(
      withClient(target, (client) => client.admin.replay({ params: { id } })),
      (replay) => json ? printJson(replay) : Console.log(replayText(replay))
    )
).pipe(
  Command.withDescription("Send an earlier request again, where decisions.keepBodies keeps it"),
  Command.withExamples([
    { command: "troupe replay dec-1a2b3c-0", description: "Send the request again, and show its record and its answer" }
  ])
)
