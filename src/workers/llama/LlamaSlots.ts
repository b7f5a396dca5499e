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
  /** How many jobs have begun. */
  readonly jobs: () => number
  /** The tokens at its beginning that a prompt with the same beginning can reuse. */
  readonly reusable: () => ReadonlyArray<Token>
  /** Writes the computation of the reusable tokens to a file, and forgets the others. No job may use the slot. */
  readonly save: (path: string) => Promise<void>
  /** Replaces its computation by that of a file; by none if that fails. */
  readonly restore: (path: string) => Promise<void>
}

/** What is true of a slot's computation. */
interface Computed {
  /** Tokens at the beginning that were computed in complete pieces. */
  inPieces: number
  isInvalid: boolean
  jobs: number
}

/** Forgets the tokens from a position on. */
const forgetFrom = async (sequence: LlamaContextSequence, contextLock: ContextLock, start: number): Promise<void> => {
  const end = sequence.nextTokenIndex
  if (end > start) await contextLock.run(() => sequence.eraseContextTokenRanges([{ start, end }]))
}

/** Writes and reads a slot's computation. */
const makeFiles = (
  sequence: LlamaContextSequence,
  contextLock: ContextLock,
  cacheGranularity: number,
  computed: Computed
): Pick<Slot, "restore" | "reusable" | "save"> => {
  const reusable = (): ReadonlyArray<Token> => {
    if (computed.isInvalid || sequence.needsCheckpoints) return []
    const most = cacheGranularity === 1 ? sequence.nextTokenIndex : computed.inPieces
    return sequence.contextTokens.slice(0, most - most % cacheGranularity)
  }
  return {
    reusable,
    async save(path) {
      await forgetFrom(sequence, contextLock, reusable().length)
      await contextLock.run(async () => void await sequence.saveStateToFile(path))
    },
    async restore(path) {
      computed.isInvalid = true
      computed.inPieces = 0
      await contextLock.run(() => sequence.loadStateFromFile(path, { acceptRisk: true }))
      computed.isInvalid = false
      computed.inPieces = sequence.nextTokenIndex
    }
  }
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
  const state: Computed = { inPieces: 0, isInvalid: false, jobs: 0 }
  const shared = (prompt: Array<Token>) => sequence.compareContextTokens(prompt).firstDifferentIndex
  const kept = (prompt: Array<Token>): number => {
    // Models without a state for each token cannot return to an earlier token.
    if (sequence.needsCheckpoints) return 0
    const most = Math.min(
      shared(prompt),
      prompt.length - 1,
      cacheGranularity === 1 ? sequence.nextTokenIndex : state.inPieces
    )
    return most - most % cacheGranularity
  }
  return {
    ...makeFiles(sequence, contextLock, cacheGranularity, state),
    owner: "",
    number,
    get length() {
      return state.isInvalid ? 0 : sequence.nextTokenIndex
    },
    sequence,
    cachedOf: (prompt) => ({ length: sequence.nextTokenIndex, shared: shared(prompt) }),
    computed(tokens) {
      state.inPieces += tokens
    },
    invalidate() {
      state.isInvalid = true
    },
    jobs: () => state.jobs,
    async begin(prompt) {
      state.jobs++
      const keep = state.isInvalid ? 0 : kept(prompt)
      await forgetFrom(sequence, contextLock, keep)
      if (sequence.nextTokenIndex !== keep) {
        refuse({ kind: "failed", message: "The engine could not return to an earlier state." })
      }
      state.isInvalid = false
      state.inPieces = keep
      return keep
    }
  }
}
