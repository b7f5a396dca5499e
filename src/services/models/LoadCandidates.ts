/**
 * The ways to load a deployment and the memory that each needs: as measured at its last load, or as estimated from its
 * files.
 */
import { Effect } from "effect"
import type { Deployment, DeploymentOptions } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { Engine } from "../engines/Engine.ts"
import * as EngineKinds from "../engines/EngineKinds.ts"
import type { ModelFiles } from "../engines/ModelFiles.ts"
import type { EngineInstance } from "./Actor.ts"
import type { LoadCandidate } from "./MemoryScheduler.ts"

/** An engine process without a model: Node, the library and the pool, bytes. Measured: 110 MiB on Linux. */
const processBytes = 110 * 2 ** 20

/** Memory of an engine's process besides its model, bytes. An engine on a thread of this process has none. */
export const processBytesOf = (options: DeploymentOptions, host: "process" | "thread"): number =>
  host === "process" && !isRemote(options) && EngineKinds.kindOf(options).isNative ? processBytes : 0

const mebibyte = 2 ** 20

/** The deployment, once for each of its paths. */
const variantsOf = (deployment: Deployment): ReadonlyArray<Deployment> => {
  const [, ...variants] = EngineKinds.alternativesOf(deployment.options)
  return [deployment, ...variants.map(({ options }) => ({ ...deployment, options }))]
}

/** Equal options use the same memory. */
const nameOf = ({ options }: Deployment): string => JSON.stringify(options)

export interface LoadCandidates {
  readonly candidates: (deployment: Deployment) => Effect.Effect<readonly [LoadCandidate, ...Array<LoadCandidate>]>
  /** Records the highest memory use of an instance's engine, which replaces the estimate from then on. */
  readonly measure: (instance: EngineInstance, engine: Engine) => Effect.Effect<void>
}

/** @param host where engines run */
export const make = (files: ModelFiles["Service"], host: "process" | "thread"): LoadCandidates => {
  const measured = new Map<string, number>()

  const estimate = Effect.fnUntraced(function*(deployment: Deployment) {
    const { options } = deployment
    const { bits, totalBytes } = yield* files.describe(options)
    return { bytes: totalBytes + processBytesOf(options, host), ...(bits === undefined ? {} : { bits }) }
  })

  const candidateOf = (deployment: Deployment): Effect.Effect<ReadonlyArray<LoadCandidate>> => {
    const name = nameOf(deployment)
    return Effect.match(estimate(deployment), {
      onSuccess: ({ bytes, ...rest }) => [{ name, deployment, ...rest, bytes: measured.get(name) ?? bytes }],
      onFailure: () => []
    })
  }

  return {
    candidates: (deployment) =>
      Effect.map(Effect.forEach(variantsOf(deployment), candidateOf), (found) => {
        const [first, ...others] = found.flat()
        // If no file can be read, the load fails with the engine's own, more precise message.
        return first === undefined ? [{ name: nameOf(deployment), bytes: 0, deployment }] : [first, ...others]
      }),
    measure: (instance, engine) =>
      Effect.map(engine.memoryBytes, (now) => {
        // A model whose file is mapped takes its memory with its first job.
        if (now < mebibyte || instance.actor.served === 0) return
        const name = nameOf(instance.granted)
        const bytes = Math.max(now, measured.get(name) ?? 0)
        measured.set(name, bytes)
        instance.bytes = bytes
      })
  }
}
