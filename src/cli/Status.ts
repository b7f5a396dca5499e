/** `troupe status`: whether a running service is healthy, for people and scripts. */
import { Console, Effect } from "effect"
import { Command } from "effect/cli"
import type { Overview } from "../layers/http/OverviewSchema.ts"
import type { AlertReport } from "../services/alerts/AlertNotice.ts"
import { valueText } from "../services/alerts/AlertRule.ts"
import type { Window } from "../services/health/Availability.ts"
import { withClient } from "./Client.ts"
import { reasonOf, stateOf } from "./DeploymentText.ts"
import { json, target } from "./Flags.ts"
import { percent, printJson, table } from "./Output.ts"
import { head, lostText } from "./OverviewText.ts"

/** Models without a deployment that can answer. */
export const unavailableModels = (
  { deployments, models }: Pick<Overview, "deployments" | "models">
): ReadonlyArray<string> =>
  models.map(({ model }) => model).filter((name) =>
    deployments.filter(({ model }) => model === name).every(({ circuit, drain, keys, state }) =>
      state === "failed" || drain !== undefined || (circuit !== undefined && circuit.retryAfterMs > 0) ||
      (keys !== undefined && keys.waiting > 0 && keys.waiting === keys.total)
    )
  )

type Alert = AlertReport["alerts"][number]

const isFiring = ({ state }: Alert): boolean => state === "firing"

/** Why the service is not healthy; empty: it is. */
export const problemsOf = (
  overview: Pick<Overview, "deployments" | "models" | "service">,
  alerts: ReadonlyArray<Alert>
): ReadonlyArray<string> => [
  ...(overview.service.status === "ready" ? [] : [`The service is ${overview.service.status}.`]),
  ...(overview.service.stores ?? []).flatMap(lostText),
  ...unavailableModels(overview).map((name) => `No deployment of ${name} can answer now.`),
  ...alerts.filter((one) => isFiring(one) && one.severity === "critical").map(({ alert }) =>
    `The critical alert ${alert} fires.`
  )
]

/** The alerts that fire; empty: none does. */
export const alertTable = (alerts: ReadonlyArray<Alert>): string => {
  const rows = alerts.filter(isFiring).map(({ alert, metric, severity, since, value }) => [
    alert,
    severity,
    valueText(metric, value),
    new Date(since).toISOString()
  ])
  return rows.length === 0 ? "" : table([["ALERT", "SEVERITY", "VALUE", "SINCE"], ...rows])
}

const rowOf = ({ availability, errorRate, failed, meetsTargets, requests, seconds, window }: Window) => [
  window,
  `${seconds} s`,
  String(requests),
  String(failed),
  errorRate === undefined ? "" : percent(errorRate),
  percent(availability),
  meetsTargets ? "yes" : "NO"
]

const windowTable = ({ targets, windows }: Overview["service"]): string =>
  table([
    [
      "WINDOW",
      "COVERS",
      "REQUESTS",
      "FAILED",
      `ERROR RATE (TARGET ${percent(targets.errorRate)})`,
      `AVAILABLE (TARGET ${percent(targets.availability)})`,
      "WITHIN TARGETS"
    ],
    ...windows.map(rowOf)
  ])

const deploymentTable = ({ deployments }: Overview): string =>
  table([
    ["DEPLOYMENT", "STATE", "REASON"],
    ...deployments.map((one) => [one.deployment, stateOf(one), reasonOf(one)])
  ])

const statusText = (overview: Overview, problems: ReadonlyArray<string>, alerts: string): string =>
  [
    problems.length === 0 ? "Healthy." : `Not healthy. ${problems.join(" ")}`,
    ...head(overview),
    "",
    windowTable(overview.service),
    ...(alerts === "" ? [] : ["", alerts]),
    "",
    deploymentTable(overview)
  ].join("\n")

export const status = Command.make("status", { ...target, json }, ({ json, ...to }) =>
  Effect.gen(function*() {
    const { overview, report: { alerts } } = yield* withClient(
      to,
      (client) => Effect.all({ overview: client.live.overview({}), report: client.admin.alerts({}) })
    )
    const problems = problemsOf(overview, alerts)
    const { at, deployments, memory, service } = overview
    yield* json
      ? printJson({ healthy: problems.length === 0, problems, at, service, memory, deployments, alerts })
      : Console.log(statusText(overview, problems, alertTable(alerts)))
    if (problems.length > 0) process.exitCode = 1
  })).pipe(
    Command.withDescription("Say whether a running service is healthy; exit code 1 if it is not"),
    Command.withExamples([{ command: "troupe status --json", description: "For scripts: `healthy`, and why not" }])
  )
