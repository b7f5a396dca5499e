/** The measurements of all deployments, in memory: attempts write them, the router reads them. */
import type { Measurement as MeasurementOf } from "../../domain/Measurement.ts"
import * as Measurement from "../../domain/Measurement.ts"
import type { Verdict } from "./Circuit.ts"

/** One attempt at a deployment, while it is measured. */
export interface LatencySample {
  /** A loaded engine has given it a slot: what follows counts as latency, and the engine will have its prompt. */
  readonly granted: () => void
  /** The first content of its answer has come. */
  readonly content: () => void
  /**
   * The attempt has ended.
   *
   * @param tokens generated
   */
  readonly end: (verdict: Verdict, tokens: number) => void
}

/** The measurements of all deployments: attempts write them, the router reads them. */
export interface LatencyStats {
  readonly of: (deployment: string) => MeasurementOf
  readonly begin: (deployment: string) => LatencySample
}

/** @param now ms of `Monotonic` */
export const make = (now: () => number): LatencyStats => {
  const measured = new Map<string, MeasurementOf>()
  const of = (deployment: string): MeasurementOf => measured.get(deployment) ?? Measurement.unmeasured
  return {
    of,
    begin: (deployment) => {
      let grantedAt: number | undefined
      let firstTokenMs: number | undefined
      measured.set(deployment, Measurement.started(of(deployment)))
      return {
        granted: () => {
          grantedAt ??= now()
        },
        content: () => {
          if (grantedAt !== undefined) firstTokenMs ??= now() - grantedAt
        },
        end: (verdict, tokens) => {
          const at = now()
          // Without a slot it has taken no time of the deployment's.
          const sample = { ok: verdict === "success", tookMs: at - (grantedAt ?? at), firstTokenMs, tokens }
          const known = of(deployment)
          measured.set(deployment, verdict === "left" ? Measurement.left(known) : Measurement.ended(known, sample, at))
        }
      }
    }
  }
}
