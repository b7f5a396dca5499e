/** What a valid configuration probably lacks: `troupe config check` prints it and still succeeds. */
import { addressOf } from "../App.ts"
import type { Deployment } from "../domain/Deployment.ts"
import type { Problem } from "../domain/Problem.ts"
import { formatPath } from "../domain/Problem.ts"
import { hostOf, isPrivateHost } from "../domain/PublicAddress.ts"
import type { Resolved } from "../services/settings/Settings.ts"

/** A provider's own public API takes no request without a key. */
const missingKey = ({ options }: Deployment): string | undefined => {
  if (options.engine !== "remote" || options.key !== undefined || options.keys !== undefined) return undefined
  const { baseUrl, defaultUrl, keyHeaders } = addressOf(options)
  if (baseUrl === undefined || baseUrl !== defaultUrl || isPrivateHost(hostOf(new URL(baseUrl)))) return undefined
  return Object.keys(options.headers ?? {}).some((name) => keyHeaders.includes(name.toLowerCase()))
    ? undefined
    : `No API key is configured, and ${baseUrl} requires one. ` +
      "Set key: ${NAME}, or set baseUrl to another host"
}

/** Every warning, at its deployment. */
export const warningsOf = ({ models }: Resolved): ReadonlyArray<Problem> =>
  models.flatMap(({ deployments, name }) =>
    deployments.flatMap((deployment, index) => {
      const expected = missingKey(deployment)
      return expected === undefined ? [] : [{ path: formatPath(["models", name, "deployments", index]), expected }]
    })
  )
