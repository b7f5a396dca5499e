/**
 * Checks that a model's file exists and that its output can be an answer. Damaged weights load without an error, and
 * then compute values that are not numbers, or the same number for every token.
 */
import { access, stat } from "node:fs/promises"
import { refuse } from "../../domain/Job.ts"

/** Throws `load_failed` unless the file exists and is not empty. */
export const checkFile = async (file: string): Promise<void> => {
  await access(file).catch(() => refuse({ kind: "load_failed", message: `${file} does not exist or is not readable` }))
  const found = await stat(file)
  if (!found.isFile()) refuse({ kind: "load_failed", message: `${file} is not a file` })
  if (found.size === 0) refuse({ kind: "load_failed", message: `${file} is empty` })
}

/** The problem with a model's output, if any. Minus infinity is allowed: models mask tokens with it. */
export const outputProblem = (numbers: ArrayLike<number>): string | undefined => {
  let least = Number.POSITIVE_INFINITY
  let most = Number.NEGATIVE_INFINITY
  for (let at = 0; at < numbers.length; at++) {
    const number = numbers[at]!
    if (Number.isNaN(number) || number === Number.POSITIVE_INFINITY) return "its output is not a number"
    if (number < least) least = number
    if (number > most) most = number
  }
  if (numbers.length === 0) return "it has no output"
  if (most === Number.NEGATIVE_INFINITY) return "its output is not a number"
  return numbers.length > 1 && least === most ? "its output is the same for every token" : undefined
}

/** Refuses a model whose first output is invalid. */
export const checkFirstOutput = (numbers: ArrayLike<number>): void => {
  const problem = outputProblem(numbers)
  if (problem !== undefined) refuse({ kind: "load_failed", message: `The model file is damaged: ${problem}.` })
}

/** Refuses a vector or scores that are not numbers, or a vector without a direction. */
export const checkVector = (vector: ArrayLike<number>): void => {
  const problem = outputProblem(vector)
  if (problem !== undefined) {
    refuse({ kind: "failed", message: "The model computed a vector without a direction; its file may be damaged." })
  }
}

/** Refuses a score that is not a number. */
export const checkScore = (score: number): void => {
  if (!Number.isFinite(score)) {
    refuse({ kind: "failed", message: "The model computed a score that is not a number; its file may be damaged." })
  }
}
