/** Whether the service takes requests, as `GET /health/ready` tells a load balancer. */
import { Context, Schema } from "effect"

/** The state of one deployment. */
export const DeploymentHealth = Schema.Struct({
  deployment: Schema.String,
  state: Schema.Literals(["cold", "loading", "ready", "draining", "failed"]),
  running: Schema.Int,
  queued: Schema.Int,
  lastFailure: Schema.optionalKey(Schema.String)
})

export const Stage = Schema.Literals(["starting", "ready", "stopping"])
export type Stage = typeof Stage.Type

/** The body of `GET /health/ready`. */
export const Report = Schema.Struct({
  status: Stage,
  deployments: Schema.Array(DeploymentHealth)
})

/** Where the service is in its life. Set by whoever starts and stops it. */
export class Readiness extends Context.Service<Readiness, {
  stage: Stage
}>()("troupe/services/models/Readiness") {}
