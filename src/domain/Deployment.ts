/** A model, which is the name that a request selects, and its deployments, each a way to serve it. Plain data. */
import type { Schema } from "effect"
import { Duration } from "effect"
import type { CacheSettings } from "./CacheControl.ts"
import type { traits } from "./Fields.ts"
import type { RemoteDeployment } from "./RemoteDeployment.ts"
import type { Routing } from "./RoutingPolicy.ts"

export { Bytes, described, optional, Span, traits } from "./Fields.ts"
export type { Provider } from "./ProviderKind.ts"
export { RemoteDeployment } from "./RemoteDeployment.ts"

type Traits = Schema.Struct.Type<typeof traits>

/** Options of a deployment on an engine; a kind's own options are in its record in `services/engines`. */
export interface EngineDeployment extends Traits {
  /** The name of the kind. */
  readonly engine: string
  /** Tokens that prompt and answer share. */
  readonly contextSize?: number
  /** Requests that run concurrently in one engine thread; default `defaultSlots`. */
  readonly slots?: number
  /** Engine threads; default 1. */
  readonly replicas?: number
  /** Most replicas, where they follow the load; default that of the settings. */
  readonly maxReplicas?: number
  readonly provider?: undefined
  readonly [option: string]: unknown
}

/** How a deployment is served. */
export type DeploymentOptions = EngineDeployment | RemoteDeployment

/** Whether another host serves the deployment. */
export const isRemote = (options: DeploymentOptions): options is RemoteDeployment => options.engine === "remote"

/** One concrete way to serve a model. */
export interface Deployment {
  /** Unique: the model's name and the index in its list, as `tiny-chat#0`. */
  readonly id: string
  readonly model: string
  readonly options: DeploymentOptions
  readonly idleUnload: Duration.Duration
  /** The service loads it at start. */
  readonly preload: boolean
  /** It stays loaded, even if another model needs the memory. */
  readonly pinned: boolean
  /** Callers that may wait for it. */
  readonly queueLimit: number
  /** Its engine counts as hung after this time without a sign of progress. */
  readonly stallAfter: Duration.Duration
  /** A load that takes longer stops, and its waiting callers fail: `timeouts.load` of the model's policy. */
  readonly loadTimeout: Duration.Duration
}

/** A name that requests select, and its deployments. */
export interface Model {
  readonly name: string
  /** Further names that select it; left out, none. */
  readonly aliases?: ReadonlyArray<string>
  readonly deployments: readonly [Deployment, ...Array<Deployment>]
  /** If left out, the policy `default` without fallbacks. */
  readonly routing?: Routing
  /** If left out, its answers are not cached. */
  readonly cache?: CacheSettings
}

/** An unused model is unloaded after this time, unless configured. */
export const defaultIdleUnload = Duration.minutes(10)

/** Requests that run concurrently in one engine thread, unless configured. */
export const defaultSlots = 4
