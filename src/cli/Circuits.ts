/** `troupe circuits`: which deployments a running service does not call for now, and how an operator ends that. */
import { Console, Effect, Schema } from "effect"
import { Argument, Command } from "effect/cli"
import type { Circuit } from "../layers/http/AdminSchema.ts"
import { target, withClient } from "./Client.ts"
import { json, printJson, table } from "./Shared.ts"

const deployment = Argument.String("deployment").pipe(
  Argument.withSchema(Schema.NonEmptyString),
  Argument.withDescription("Deployment ID, such as chat#0")
)

const retryIn = ({ retryAfterMs }: Circuit): string => retryAfterMs === 0 ? "" : `${Math.ceil(retryAfterMs / 1_000)} s`

const print = (asJson: boolean, circuits: ReadonlyArray<Circuit>) => {
  if (asJson) return printJson(circuits)
  if (circuits.length === 0) return Console.log("No deployment has been called yet.")
  const rows = circuits.map((circuit) => [circuit.deployment, circuit.phase, retryIn(circuit)])
  return Console.log(table([["DEPLOYMENT", "CIRCUIT", "RETRY IN"], ...rows]))
}

const list = Command.make("ls", { ...target, json }, ({ json, ...target }) =>
  Effect.flatMap(
    withClient(target, (client) => client.admin.circuits({})),
    ({ circuits }) => print(json, circuits)
  )).pipe(Command.withDescription("List the circuit breakers of the deployments that have been called"))

const reset = Command.make(
  "reset",
  { deployment, ...target, json },
  ({ deployment, json, ...target }) =>
    Effect.flatMap(
      withClient(target, (client) => client.admin.resetCircuit({ params: { deployment } })),
      ({ circuits }) => print(json, circuits)
    )
).pipe(
  Command.withDescription("Close the circuit of a deployment, so that requests reach it again"),
  Command.withExamples([{
    command: "troupe circuits reset chat#0",
    description: "Reset the first deployment of the model chat"
  }])
)

export const circuits = Command.make("circuits").pipe(
  Command.withDescription("Show or reset the circuit breakers of a running service"),
  Command.withSubcommands([list, reset])
)
