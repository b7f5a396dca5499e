/** The slots of the llama engine: sequences of one context. Each keeps its last computation for a prompt with the same beginning. */
import type { LlamaContextSequence, Token } from "node-llama-cpp"
import { refuse } from "../../domain/Job.ts"
import type { Cached, Owned } from "../job/Slots.ts"
import type { Place } from "./LlamaSlotChoice.ts"

/**
 * Gives work exclusive use of the context, while every generation waits at its next token.
 *
 * The library holds the context's lock while any token is requested, so that without this, a new job would wait until all
 * others have finished.
 */
export const makeContextLock = () => {
  let waiting = 0
  let over = Promise.withResolvers<void>()
  return {
    async run(work: () => Promise<void>) {
      waiting++
      try {
        await work()
      } finally {
        waiting--
        if (waiting === 0) {
          over.resolve()
          over = Promise.withResolvers()
        }
      }
    },
    /** Resolves when no work needs the context exclusively. */
    pause: (): Promise<void> | undefined => waiting === 0 ? undefined : over.promise
  }
}

export type ContextLock = ReturnType<typeof makeContextLock>

/** A sequence that one job at a time uses. */
export interface Slot extends Owned, Place {
  readonly sequence: LlamaContextSequence
  /** Its computation, compared with a prompt. */
  readonly cachedOf: (prompt: Array<Token>) => Cached
  /** Keeps the tokens that the prompt shares with the last one, and returns their number: never all of the prompt. */
  readonly begin: (prompt: Array<Token>) => Promise<number>
  /** A complete piece of a prompt has been computed. */
  readonly computed: (tokens: number) => void
  /** The content of the sequence is not valid any more. */
  readonly invalidate: () => void
}

/**
 * @param number of the sequence
 * @param cacheGranularity tokens are kept in pieces of this size that were computed together: with flash attention or on
 *   a GPU, a token's values depend slightly on the tokens computed with it, and the answer for a seed must not depend on
 *   earlier jobs
 */
export const makeSlot = (
  number: number,
  sequence: LlamaContextSequence,
  contextLock: ContextLock,
  cacheGranularity: number
): Slot => {
  /** Tokens at the beginning that were computed in complete pieces. */
  let inPieces = 0
  const shared = (prompt: Array<Token>) => sequence.compareContextTokens(prompt).firstDifferentIndex
  const kept = (prompt: Array<Token>): number => {
    // Models without a state for each token cannot return to an earlier token.
    if (sequence.needsCheckpoints) return 0
    const most = Math.min(
      shared(prompt),
      prompt.length - 1,
      cacheGranularity === 1 ? sequence.nextTokenIndex : inPieces
    )
    return most - most % cacheGranularity
  }
  let isInvalid = false
  return {
    owner: "",
    number,
    get length() {
      return isInvalid ? 0 : sequence.nextTokenIndex
    },
    sequence,
    cachedOf: (prompt) => ({ length: sequence.nextTokenIndex, shared: shared(prompt) }),
    computed(tokens) {
      inPieces += tokens
    },
    invalidate() {
      isInvalid = true
    },
    async begin(prompt) {
      const keep = isInvalid ? 0 : kept(prompt)
      const end = sequence.nextTokenIndex
      if (end > keep) await contextLock.run(() => sequence.eraseContextTokenRanges([{ start: keep, end }]))
      if (sequence.nextTokenIndex !== keep) {
        refuse({ kind: "failed", message: "The engine could not return to an earlier state." })
      }
      isInvalid = false
      inPieces = keep
      return keep
    }
  }
}
