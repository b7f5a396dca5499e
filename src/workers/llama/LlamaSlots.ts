/**
 * The llama engine's slots: sequences of one context, each of which keeps what it computed last for a prompt that
 * begins alike.
 */
import type { LlamaContextSequence, Token } from "node-llama-cpp"
import { refuse } from "../../domain/Job.ts"
import type { Kept, Owned } from "../job/Slots.ts"

/**
 * Runs work that needs the context to itself, while every generation waits at its next token.
 *
 * The library computes batches under the context's lock for as long as any token is asked for, so without this a
 * newcomer would wait until all others have finished.
 */
export const makeInterlude = () => {
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
    /** Resolves when no one needs the context to itself. */
    pause: (): Promise<void> | undefined => waiting === 0 ? undefined : over.promise
  }
}

export type Interlude = ReturnType<typeof makeInterlude>

/** A sequence that one job at a time uses. */
export interface Slot extends Owned {
  readonly sequence: LlamaContextSequence
  /** What a prompt finds in it. */
  readonly keptOf: (prompt: Array<Token>) => Kept
  /** Keeps what the prompt shares with the last one, and returns how many tokens that are: never all of the prompt. */
  readonly begin: (prompt: Array<Token>) => Promise<number>
  /** A whole piece of a prompt has been computed. */
  readonly computed: (tokens: number) => void
  /** What is in the sequence cannot be trusted any more. */
  readonly spoil: () => void
}

/**
 * @param grain tokens are kept in pieces of so many, and only as they were computed together: with flash attention or
 *   on a GPU, a token's numbers depend a little on which others are computed with it, and a seed's answer must not
 *   depend on what ran before
 */
export const makeSlot = (sequence: LlamaContextSequence, interlude: Interlude, grain: number): Slot => {
  /** Tokens at the beginning that were computed in whole pieces. */
  let whole = 0
  const shared = (prompt: Array<Token>) => sequence.compareContextTokens(prompt).firstDifferentIndex
  const kept = (prompt: Array<Token>): number => {
    // Models that keep no state for each token cannot go back to an earlier one.
    if (sequence.needsCheckpoints) return 0
    const most = Math.min(shared(prompt), prompt.length - 1, grain === 1 ? sequence.nextTokenIndex : whole)
    return most - most % grain
  }
  let spoilt = false
  return {
    owner: "",
    sequence,
    keptOf: (prompt) => ({ length: sequence.nextTokenIndex, shared: shared(prompt) }),
    computed(tokens) {
      whole += tokens
    },
    spoil() {
      spoilt = true
    },
    async begin(prompt) {
      const keep = spoilt ? 0 : kept(prompt)
      const end = sequence.nextTokenIndex
      if (end > keep) await interlude.run(() => sequence.eraseContextTokenRanges([{ start: keep, end }]))
      if (sequence.nextTokenIndex !== keep) {
        refuse({ kind: "failed", message: "The engine could not go back to an earlier state." })
      }
      spoilt = false
      whole = keep
      return keep
    }
  }
}
