/** What was measured, by deployment, and what is being measured: in memory, for the selector. */
import type { Measurement } from "../../domain/Measurement.ts"
import { unmeasured } from "../../domain/Measurement.ts"
import type { Trial } from "../routing/Router.ts"
import * as Measurements from "./LatencyStats.ts"

export class Board {
  readonly #measured = new Map<string, Measurement>()
  readonly #now: () => number

  /** @param now ms of `Monotonic` */
  constructor(now: () => number) {
    this.#now = now
  }

  of(deployment: string): Measurement {
    return this.#measured.get(deployment) ?? unmeasured
  }

  begin(deployment: string): Trial {
    let began: number | undefined
    let firstTokenMs: number | undefined
    this.#measured.set(deployment, Measurements.started(this.of(deployment)))
    return {
      granted: () => {
        began ??= this.#now()
      },
      content: () => {
        if (began !== undefined) firstTokenMs ??= this.#now() - began
      },
      end: (end, tokens) => {
        const at = this.#now()
        // Without a slot it has taken no time of the deployment's.
        const sample = { ok: end === "success", tookMs: at - (began ?? at), firstTokenMs, tokens }
        const known = this.of(deployment)
        this.#measured.set(
          deployment,
          end === "left" ? Measurements.left(known) : Measurements.ended(known, sample, at)
        )
      }
    }
  }
}
