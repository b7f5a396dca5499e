/** The commands of `troupe`. Handlers fail with an error whose message is one clear line; `main.ts` prints it. */
import { Command } from "effect/cli"
import { circuits, decisions, drain, load, ps, reload, replay, resume, unload } from "./cli/Admin.ts"
import { cache } from "./cli/Cache.ts"
import { check } from "./cli/ConfigCheck.ts"
import { deploy } from "./cli/Deploy.ts"
import { keys } from "./cli/Keys.ts"
import { launch } from "./cli/Launch.ts"
import { logs } from "./cli/Logs.ts"
import { models } from "./cli/Models.ts"
import { printJson } from "./cli/Output.ts"
import { placement } from "./cli/Placement.ts"
import { policy } from "./cli/Policy.ts"
import { rollout } from "./cli/Rollout.ts"
import { route } from "./cli/Route.ts"
import { run } from "./cli/Run.ts"
import { serve } from "./cli/Serve.ts"
import { status } from "./cli/Status.ts"
import { top } from "./cli/Top.ts"
import { budgets, usage } from "./cli/Usage.ts"
import { fileJsonSchema } from "./services/settings/Schema.ts"

const schema = Command.make("schema", {}, () => printJson(fileJsonSchema())).pipe(
  Command.withDescription("Print the JSON Schema of troupe.yaml, for editors")
)

const configCommand = Command.make("config").pipe(
  Command.withDescription("Check the configuration or print its JSON Schema"),
  Command.withSubcommands([check, schema])
)

/** The whole command line. */
export const troupe = Command.make("troupe").pipe(
  Command.withDescription("Run local and remote language models, as a service or from the command line"),
  Command.withSubcommands([
    { group: "Run", commands: [serve, deploy, run, launch, models] },
    { group: "Watch a running service", commands: [top, logs, status, ps, decisions, replay, route, usage, budgets] },
    {
      group: "Change a running service",
      commands: [load, unload, reload, drain, resume, circuits, cache, keys, rollout]
    },
    { group: "Configure", commands: [configCommand, policy, placement] }
  ])
)
