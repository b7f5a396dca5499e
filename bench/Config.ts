/** The configuration of a service that a scenario starts. */
import { availableParallelism } from "node:os"

/**
 * Compute threads of a model of a real one's size: a core is left to all that is not computing. `BENCH_THREADS` says
 * otherwise.
 */
export const computeThreads: number = Number(process.env["BENCH_THREADS"]) || Math.max(1, availableParallelism() - 1)

/** One model with one deployment. */
export type Deployment = Readonly<Record<string, unknown>>

/** `troupe.yaml`, of which JSON is a part. */
export const make = (
  models: Readonly<Record<string, Deployment>>,
  options: Readonly<Record<string, unknown>> = {}
): string =>
  JSON.stringify({
    server: { shutdownGrace: "1 second" },
    models: Object.fromEntries(
      Object.entries(models).map(([name, deployment]) => [name, { ...options, deployments: [deployment] }])
    )
  })
