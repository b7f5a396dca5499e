/** The model that `troupe models show` is asked about, and how `troupe.yaml` names it. */
import { Effect } from "effect"
import { isAbsolute, resolve } from "node:path"
import type { EngineDeployment } from "../domain/Deployment.ts"
import * as EngineKinds from "../services/engines/EngineKinds.ts"
import type { Resolved } from "../services/settings/Settings.ts"
import { Settings } from "../services/settings/Settings.ts"
import { nameOf } from "../services/store/ModelSource.ts"
import type { StoredModel } from "../services/store/ModelStore.ts"
import { ModelStore } from "../services/store/ModelStore.ts"

const optionsOf = ({ manifest, path }: StoredModel): EngineDeployment => EngineKinds.fromFormat(manifest.kind, path)

/** What `show` is asked about. */
export interface Shown {
  readonly name: string
  readonly options: EngineDeployment
  readonly stored?: StoredModel
}

/** The configured model of this name, if one of its deployments is local. */
const configured = (settings: Resolved, name: string): Shown | undefined => {
  const model = settings.models.find((one) => one.name === name)
  const options = model?.deployments.map((deployment) => deployment.options).find(EngineKinds.hasPath)
  return options === undefined ? undefined : { name, options }
}

/** A path, else a model of the store, else a configured one. */
export const findShown = Effect.fnUntraced(function*(nameOrPath: string) {
  const isPath = /[/\\]|\.gguf$/.test(nameOrPath)
  if (isPath) return { name: nameOf(nameOrPath), options: EngineKinds.fromFormat("gguf", nameOrPath) } satisfies Shown
  const settings = yield* Settings
  return yield* (yield* ModelStore).get(nameOrPath).pipe(
    Effect.map((stored): Shown => ({ name: nameOrPath, options: optionsOf(stored), stored })),
    Effect.catchIf(
      ({ reason }) => reason._tag === "NotInStore" && configured(settings, nameOrPath) !== undefined,
      () => Effect.succeed(configured(settings, nameOrPath)!)
    )
  )
})

/** JSON's strings are YAML's as well. */
const scalar = (value: string | number | boolean): string =>
  typeof value === "string" && !/^(?!(?:true|false|null|yes|no|on|off)$)[A-Za-z/][\w./:-]*$/i.test(value)
    ? JSON.stringify(value)
    : String(value)

const isScalar = (value: unknown): value is string | number | boolean =>
  typeof value === "string" || typeof value === "number" || typeof value === "boolean"

/** A path that holds wherever the file is; of a model of the store, its name there. */
const placeOf = (path: string): string => path.startsWith("store:") || isAbsolute(path) ? path : resolve(path)

/** The models section with this model alone. */
const snippet = (name: string, options: EngineDeployment): string => {
  const { path } = EngineKinds.kindOf(options)
  const fields = Object.entries(options).flatMap(([field, value]) =>
    isScalar(value)
      ? [`${field}: ${scalar(field === path ? placeOf(String(value)) : value)}`]
      : []
  )
  return ["models:", `  ${scalar(name)}:`, "    deployments:", `      - ${fields.join("\n        ")}`].join("\n")
}

/** As `troupe.yaml` names it. */
export const asWritten = ({ name, options, stored }: Shown): string => {
  if (stored === undefined) return snippet(name, options)
  return snippet(name, EngineKinds.withPath(options, `store:${name}`))
}
