/** The configuration of a service that a scenario starts. */
import { availableParallelism } from "node:os"

/**
 * Compute threads of a model of realistic size: one core is left for everything else. `BENCH_THREADS` replaces the
 * number.
 */
export const computeThreads: number = Number(process.env["BENCH_THREADS"]) || Math.max(1, availableParallelism() - 1)

/** One model with one deployment. */
export type Deployment = Readonly<Record<string, unknown>>

/** Settings of every measured service. Requests of a scenario are equal, so that a cache would answer them. */
const common = { server: { shutdownGrace: "1 second" }, cache: { when: "never" } }

/** `troupe.yaml` without models: the embedded `tiny-chat`, with its 8 slots and 1 thread. */
export const embedded: string = JSON.stringify(common)

/** `troupe.yaml` as JSON, which is valid YAML. */
export const make = (
  models: Readonly<Record<string, Deployment>>,
  options: Readonly<Record<string, unknown>> = {},
  server: Readonly<Record<string, unknown>> = {}
): string =>
  JSON.stringify({
    ...common,
    server: { ...common.server, ...server },
    models: Object.fromEntries(
      Object.entries(models).map(([name, deployment]) => [name, { ...options, deployments: [deployment] }])
    )
  })
