/**
 * The ways to load a deployment and the memory each needs: as measured when it was loaded last, or as its files tell.
 */
import { Effect } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import type { Engine } from "../engines/Engine.ts"
import type { ModelFiles } from "../engines/ModelFiles.ts"
import { bitsOf } from "../store/Gguf.ts"
import type { Life } from "./Actor.ts"
import type { Choice } from "./MemoryScheduler.ts"

/** An engine process without a model: Node, the library and the pool, bytes. Measured: 110 MiB on Linux. */
const processBytes = 110 * 2 ** 20

const mebibyte = 2 ** 20

/** The deployment with each of its files in the first place. */
const variantsOf = (deployment: Deployment): readonly [Deployment, ...Array<Deployment>] => {
  const { options } = deployment
  if (options.engine !== "llama" || options.variants === undefined) return [deployment]
  return [deployment, ...options.variants.map((file) => ({ ...deployment, options: { ...options, file } }))]
}

/** What makes a footprint: the same options take the same memory. */
const nameOf = ({ options }: Deployment): string => JSON.stringify(options)

export interface Choices {
  readonly choices: (deployment: Deployment) => Effect.Effect<readonly [Choice, ...Array<Choice>]>
  /** Remembers the most that a life's engine takes, which counts from now on in place of the estimate. */
  readonly measure: (life: Life, engine: Engine) => Effect.Effect<void>
}

/** @param where an engine in this process costs no process of its own */
export const make = (files: ModelFiles["Service"], where: "process" | "thread"): Choices => {
  const measured = new Map<string, number>()

  const estimate = Effect.fnUntraced(function*(deployment: Deployment) {
    const { options } = deployment
    const { totalBytes } = yield* files.estimate(options)
    const bits = options.engine === "llama" ? bitsOf((yield* files.inspectFile(options.file)).header) : undefined
    const native = options.engine === "llama" || options.engine === "onnx"
    const overhead = where === "process" && native ? processBytes : 0
    return { bytes: totalBytes + overhead, ...(bits === undefined ? {} : { bits }) }
  })

  const choiceOf = (deployment: Deployment): Effect.Effect<ReadonlyArray<Choice>> => {
    const name = nameOf(deployment)
    return Effect.match(estimate(deployment), {
      onSuccess: ({ bytes, ...rest }) => [{ name, deployment, ...rest, bytes: measured.get(name) ?? bytes }],
      onFailure: () => []
    })
  }

  return {
    choices: (deployment) =>
      Effect.map(Effect.forEach(variantsOf(deployment), choiceOf), (found) => {
        const [first, ...others] = found.flat()
        // The engine says better what is wrong with its file.
        return first === undefined ? [{ name: nameOf(deployment), bytes: 0, deployment }] : [first, ...others]
      }),
    measure: (life, engine) =>
      Effect.map(engine.memoryBytes, (now) => {
        // A model whose file is mapped takes its memory with its first job.
        if (now < mebibyte || life.actor.served === 0) return
        const name = nameOf(life.granted)
        const bytes = Math.max(now, measured.get(name) ?? 0)
        measured.set(name, bytes)
        life.bytes = bytes
      })
  }
}
