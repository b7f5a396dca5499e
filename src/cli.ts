/** The commands of `troupe`. Handlers fail with an error whose message is one clear line; `main.ts` prints it. */
import { Console, Effect, Option } from "effect"
import { Command } from "effect/cli"
import { load, ps, reload, unload } from "./cli/Admin.ts"
import { decisions } from "./cli/Decisions.ts"
import { models } from "./cli/Models.ts"
import { policy } from "./cli/Policy.ts"
import { route } from "./cli/Route.ts"
import { run } from "./cli/Run.ts"
import { serve } from "./cli/Serve.ts"
import { config, json, printJson } from "./cli/Shared.ts"
import * as SettingsFile from "./layers/SettingsFile.ts"
import { fileJsonSchema } from "./services/SettingsSchema.ts"

const check = Command.make(
  "check",
  { config, json },
  ({ config, json }) =>
    SettingsFile.load({ file: Option.getOrUndefined(config) }).pipe(
      Effect.tap((settings) => SettingsFile.checkFiles(settings, Option.getOrUndefined(config))),
      Effect.matchEffect({
        onSuccess: (settings) => {
          const names = settings.models.map((model) => model.name)
          return json
            ? printJson({ valid: true, environment: settings.environment, models: names })
            : Console.log(
              `The configuration is valid. Environment: ${settings.environment}. Models: ${names.join(", ")}.`
            )
        },
        onFailure: (error) =>
          json
            ? Effect.andThen(
              printJson({ valid: false, source: error.source, problems: error.problems }),
              Effect.sync(() => {
                process.exitCode = 1
              })
            )
            : Effect.fail(error)
      })
    )
).pipe(Command.withDescription("Check the configuration of every environment, without starting anything"))

const schema = Command.make("schema", {}, () => printJson(fileJsonSchema())).pipe(
  Command.withDescription("Print the JSON Schema of troupe.yaml, for editors")
)

const configCommand = Command.make("config").pipe(
  Command.withDescription("Check the configuration, or print its schema"),
  Command.withSubcommands([check, schema])
)

/** The whole command line. */
export const troupe = Command.make("troupe").pipe(
  Command.withDescription("Run language models as supervised actors: as a service, or once from the command line"),
  Command.withSubcommands([serve, run, models, ps, load, unload, reload, route, decisions, policy, configCommand])
)
