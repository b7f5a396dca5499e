/** What sampling options mean to every engine. */
import type { SamplingOptions } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"

/** How many of the answer's last tokens count for the penalties. */
export const penaltyWindow = 64

/** -100 is what OpenAI's callers ban a token with. */
const banned = -100

/**
 * The biases, by token id, of which minus infinity bans; an id that the vocabulary does not have is refused.
 *
 * @param vocabulary how many tokens there are
 */
export const biasesOf = (
  { logitBias = {} }: SamplingOptions,
  vocabulary: number
): ReadonlyArray<readonly [number, number]> =>
  Object.entries(logitBias).map(([id, bias]) => {
    if (Number(id) >= vocabulary) {
      refuse({
        kind: "invalid_request",
        path: `logitBias.${id}`,
        message: `Expected a token id below ${vocabulary}, the size of the model's vocabulary`
      })
    }
    return [Number(id), bias <= banned ? Number.NEGATIVE_INFINITY : bias]
  })
