/** The route of one request: the deployments that can answer it, in order, or why none can. */
import * as UnknownFields from "../../dialects/shared/UnknownFields.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { List } from "../../domain/FailureClass.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InvalidRequest, make, NoDeployment } from "../../domain/InferenceError.ts"
import type { RoutingOptions } from "../../domain/RoutingOptions.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"
import type { Source } from "../../domain/Source.ts"
import type { Decision } from "./DecisionRecord.ts"
import type { RequiredCapability } from "./Selection.ts"

/** What of a request decides who answers it. */
export interface RoutingRequest {
  readonly model: string
  readonly capabilities?: ReadonlyArray<RequiredCapability> | undefined
  /** The fields of the request that need it, for the error where nobody has it. */
  readonly pathsOf?: ((need: string) => ReadonlyArray<string>) | undefined
  /** The caller's own request, with the fields of it that Troupe does not know. */
  readonly source?: Source | undefined
  readonly maxTokens?: number | undefined
  readonly tenant?: string | undefined
  /** What the request wants otherwise than its model's configuration says. */
  readonly route?: RoutingOptions | undefined
  /** Characters of the prompt, where that is known. */
  readonly promptLength?: number | undefined
  /** The prompt as one text that begins as the model's own prompt does; asked for only where it decides. */
  readonly promptText?: (() => string) | undefined
}

/** Who may answer one request, and why. */
export interface Route {
  readonly model: string
  /** The primary first; nobody, where all are ruled out. */
  readonly deployments: ReadonlyArray<Deployment>
  /** Every other deployment that could take it may not be called now, so that half-open circuits let more through. */
  readonly alone?: boolean | undefined
  /** Deployments of the models that stand in for it, by what may go wrong; `ordinary` ones come after the others. */
  readonly fallbacks: Readonly<Record<List, ReadonlyArray<Deployment>>>
  /** An earlier answer to the same request may be given where nobody else can answer: see `CachedResponses`. */
  readonly cached: boolean
  readonly decision: Decision
  readonly policy: Policy
  /** ms in which 95 of 100 first tokens of the primary come, where that is known and the policy hedges. */
  readonly slowestFirstTokenMs: number | undefined
  /** Hashes of the prompt's beginnings, where the policy goes by them: see `SelectionPrefixes`. */
  readonly prefix?: ReadonlyArray<number> | undefined
}

/** The wish that leaves none of the model's deployments, if one does. */
const tooMuch = ({ excluded }: Decision, { deployments: only, except = [] }: RoutingOptions): string | undefined => {
  if (only === undefined && except.length === 0) return undefined
  const left = excluded.filter(({ deployment }) => only?.includes(deployment) ?? true)
  if (!left.every(({ deployment }) => except.includes(deployment))) return undefined
  return left.length === 0 ? "route.deployments" : "route.except"
}

/** A capability that no deployment has is the request's mistake, by the fields that need it. */
const lacks = (
  { missing = [], model }: Decision,
  reason: NoDeployment,
  { pathsOf = () => ["model"], source }: Pick<RoutingRequest, "pathsOf" | "source">
): InvalidRequest => {
  if (source !== undefined && missing.includes(`${source.dialect} fields`)) {
    return new InvalidRequest(UnknownFields.refused(source, model))
  }
  const [path = "model", ...others] = missing.flatMap(pathsOf)
  const also = others.length === 0 ? "" : ` (likewise ${others.join(", ")})`
  return new InvalidRequest({ path, detail: `${reason.message}${also}` })
}

/** Why no deployment is left. Where none could take the request at any time, the request is at fault. */
export const noDeployment = (
  decision: Decision,
  { route = {}, ...wish }: Pick<RoutingRequest, "pathsOf" | "route" | "source"> = {}
): InferenceError => {
  const { missing, model, retryAfterMs, excluded } = decision
  const reason = new NoDeployment({ model, excluded, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) })
  const path = tooMuch(decision, route)
  if (path !== undefined) return make(new InvalidRequest({ path, detail: reason.message }))
  return make(missing === undefined ? reason : lacks(decision, reason, wish))
}
