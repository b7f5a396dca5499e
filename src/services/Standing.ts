/** How a caller stands among others. */
import type { Duration } from "effect"
import type { Priority } from "./Inference.ts"

/** How a caller stands among others, and what he wants of the model afterwards: see `Inference.Request`. */
export interface Standing {
  readonly tenant?: string | undefined
  readonly priority?: Priority | undefined
  readonly keepAlive?: Duration.Duration | undefined
}
