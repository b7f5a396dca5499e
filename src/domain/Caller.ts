/** How a caller stands among others. */
import type { Duration } from "effect"
import type { Priority } from "./Inference.ts"

/** Names the tenant of a caller to another instance, which has no key of that caller. */
export const tenantHeader = "x-troupe-tenant"

/** How a caller stands among others, and what he wants of the model afterwards: see `Inference.Request`. */
export interface Caller {
  readonly tenant?: string | undefined
  readonly priority?: Priority | undefined
  readonly keepAlive?: Duration.Duration | undefined
}
