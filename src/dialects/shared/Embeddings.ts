/** Decodes the vectors of providers' answers. Pure. */
import { Result } from "effect"
import type { Reason } from "../../domain/InferenceError.ts"
import type { Embedding } from "../../domain/Job.ts"
import { malformed } from "./ErrorMapping.ts"
import { numbersOf } from "./Json.ts"
import type { Each, Target } from "./ProviderDialect.ts"
import { taskUsage } from "./TokenCounter.ts"

const unit = (numbers: ReadonlyArray<number>): Float32Array | undefined => {
  const length = Math.sqrt(numbers.reduce((sum, number) => sum + number * number, 0))
  return numbers.length === 0 || length === 0 || length === Number.POSITIVE_INFINITY
    ? undefined
    : Float32Array.from(numbers, (number) => number / length)
}

/**
 * Vectors of unit length.
 *
 * @param reported the prompt's tokens of all inputs; providers report no others, so each input gets a share by its length
 */
export const embeddingsOf = (
  vectors: ReadonlyArray<unknown>,
  inputs: ReadonlyArray<string>,
  reported: number | undefined,
  target: Target
): Result.Result<Each<Embedding>, Reason> => {
  const found = vectors.map((vector) => unit(numbersOf(vector) ?? []))
  if (found.length !== inputs.length || found.includes(undefined)) {
    return Result.fail(malformed(target, "not one vector per input"))
  }
  const { promptTokens, ...estimated } = taskUsage(reported, inputs)
  const characters = inputs.reduce((sum, { length }) => sum + length, 0)
  let counted = 0
  let before = 0
  return Result.succeed(found.map((vector, index) => {
    before += inputs[index]!.length
    const upToHere = index === inputs.length - 1 || characters === 0
      ? promptTokens
      : Math.round(promptTokens * before / characters)
    const share = upToHere - counted
    counted = upToHere
    return Result.succeed({ vector: vector!, promptTokens: share, ...estimated })
  }))
}
