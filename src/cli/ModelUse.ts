/**
 * What uses a model of the store: the configuration file of the command, and the services of this user that run.
 *
 * **Gotchas**
 *
 * Configuration files of services that do not run are not known. A service that does not answer counts by its file alone.
 */
import { Effect, Option } from "effect"
import { resolve, sep } from "node:path"
import * as SettingsFile from "../layers/settings/SettingsFile.ts"
import { pathsOf } from "../services/engines/EngineKinds.ts"
import type { Resolved } from "../services/settings/Settings.ts"
import type { StoredModel } from "../services/store/ModelStore.ts"
import { withPlace } from "./Client.ts"
import { loadWithoutSecrets } from "./Flags.ts"
import * as RunningService from "./RunningService.ts"

/** The configured models that use the file or the folder of a stored model. */
export const modelsWith = ({ models }: Pick<Resolved, "models">, path: string): ReadonlyArray<string> =>
  models.flatMap(({ deployments, name }) =>
    deployments.some(({ options }) =>
        pathsOf(options).some(([, used]) => used === path || used.startsWith(`${path}${sep}`))
      )
      ? [name]
      : []
  )

const quoted = (names: ReadonlyArray<string>): string => names.map((name) => JSON.stringify(name)).join(", ")

const inFile = (file: string, { path }: StoredModel) =>
  Effect.map(
    Effect.option(loadWithoutSecrets(Option.some(file))),
    (settings) => Option.isNone(settings) ? [] : modelsWith(settings.value, path)
  )

/** Longest wait for the answer of a service. */
const answerWithin = "2 seconds"

/** Whether a service was started with the model as an argument: `troupe serve mine`. */
const isServedAlone = (place: RunningService.Place, { manifest: { name } }: StoredModel) =>
  withPlace(place, (client) => client.admin.deployments({})).pipe(
    Effect.map(({ deployments }) =>
      deployments.some(({ model, provider }) => provider === undefined && model === name)
    ),
    Effect.timeout(answerWithin),
    Effect.orElseSucceed(() => false)
  )

/** @param file that the command was given */
export const usesOf = Effect.fnUntraced(function*(model: StoredModel, file: Option.Option<string>) {
  const own = resolve(Option.getOrElse(file, () => SettingsFile.defaultFile))
  const configured = yield* inFile(own, model)
  const running = yield* Effect.filter(
    RunningService.all(),
    (place) =>
      Effect.flatMap(
        place.file === undefined ? Effect.succeed([]) : inFile(place.file, model),
        (names) => names.length > 0 ? Effect.succeed(true) : isServedAlone(place, model)
      ),
    { concurrency: "unbounded" }
  )
  return [
    ...(configured.length === 0 ? [] : [`${quoted(configured)} in ${own}`]),
    ...running.map((place) => `the running service at ${RunningService.textOf(place)}`)
  ]
})
