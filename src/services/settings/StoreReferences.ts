/** Models of the store in a configuration: `store:<name>` wherever the path of a model file may stand. Pure. */
import type { Model } from "../../domain/Deployment.ts"
import type { Problem } from "../../domain/Problem.ts"
import * as Problems from "../../domain/Problem.ts"
import { pathsOf } from "../engines/EngineKinds.ts"

const scheme = "store:"

/** The name in the store that stands for a path; undefined where a path stands. */
export const nameInStore = (path: string): string | undefined =>
  path.startsWith(scheme) ? path.slice(scheme.length) : undefined

const missingOf = ({ model, options }: Model["deployments"][number], index: number): ReadonlyArray<Problem> =>
  pathsOf(options).flatMap(([field, path]) => {
    const name = nameInStore(path)
    return name === undefined ? [] : [{
      path: Problems.formatPath(["models", model, "deployments", index, ...field]),
      expected: `The store has no model "${name}". Pull it with: troupe models pull <source> --name ${name}`
    }]
  })

/** What is still a name after the store's models were found is missing. */
export const missingFromStore = (models: ReadonlyArray<Model>): ReadonlyArray<Problem> =>
  models.flatMap(({ deployments }) => deployments.flatMap(missingOf))
