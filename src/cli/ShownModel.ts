/** The model that `troupe models show` describes, and its entry for `troupe.yaml`. */
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

/** The model to show. */
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

/** The model at a path, else of the store, else of the configuration. */
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

/** A YAML scalar: JSON strings are valid YAML. */
const scalar = (value: string | number | boolean): string =>
  typeof value === "string" && !/^(?!(?:true|false|null|yes|no|on|off)$)[A-Za-z/][\w./:-]*$/i.test(value)
    ? JSON.stringify(value)
    : String(value)

const isScalar = (value: unknown): value is string | number | boolean =>
  typeof value === "string" || typeof value === "number" || typeof value === "boolean"

/** An absolute path, or the reference to a model of the store. */
const placeOf = (path: string): string => path.startsWith("store:") || isAbsolute(path) ? path : resolve(path)

/** The `models` section with this model. */
const snippet = (name: string, options: EngineDeployment): string => {
  const { path } = EngineKinds.kindOf(options)
  const fields = Object.entries(options).flatMap(([field, value]) =>
    isScalar(value)
      ? [`${field}: ${scalar(field === path ? placeOf(String(value)) : value)}`]
      : []
  )
  return ["models:", `  ${scalar(name)}:`, "    deployments:", `      - ${fields.join("\n        ")}`].join("\n")
}

/** The entry for `troupe.yaml`. */
export const asWritten = ({ name, options, stored }: Shown): string => {
  if (stored === undefined) return snippet(name, options)
  return snippet(name, EngineKinds.withPath(options, `store:${name}`))
}
