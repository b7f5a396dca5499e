/**
 * Chooses the tokens of llama.cpp's next batch.
 *
 * **Details**
 *
 * llama.cpp computes the tokens of a batch together only as far as the numbers of their sequences ascend without a gap
 * (`split_equal` in `llama-batch.cpp`), and as many tokens of each sequence as the shortest part has. A batch is therefore in the
 * order of its sequences, and has either pieces of prompts or next tokens: both in one batch would be computed one after the
 * other, and the answers would wait for the prompts. While both wait, batches alternate.
 *
 * Whether next tokens are computed together depends on their cost: see `LlamaWidths`, and `LlamaThreads` for the threads of a batch.
 */
import type { BatchItem, CustomBatchingPrioritizationStrategy, LlamaContext } from "node-llama-cpp"
import { refuse } from "../../domain/Job.ts"
import type { Computed, Threads } from "./LlamaThreads.ts"
import { makeThreadChoice } from "./LlamaThreads.ts"
import { makeWidths, runsOf } from "./LlamaWidths.ts"

/** The context's parts that the pinned version of the library has. */
interface Inside {
  readonly _ctx: { readonly decodeBatch: () => Promise<void>; readonly setThreads: (threads: number) => void }
  /** In the order of the items of a strategy. */
  readonly _queuedDecodes: ReadonlyArray<{ readonly sequenceId: number }>
}

/** What waits to be computed for a sequence, at most one item for each. */
interface Waiting {
  readonly item: BatchItem
  readonly sequence: number
  /** Tokens of the item to compute. */
  readonly amount: number
}

/** The pieces that fit into a batch, those that have waited longest first; if none fits, a part of the first. */
const fit = (pieces: ReadonlyArray<Waiting>, size: number): ReadonlyArray<Waiting> => {
  const fitting: Array<Waiting> = []
  let left = size
  for (const piece of pieces) {
    if (piece.amount > left) continue
    fitting.push(piece)
    left -= piece.amount
  }
  return fitting.length > 0 ? fitting : [{ ...pieces[0]!, amount: size }]
}

const inOrder = (waiting: ReadonlyArray<Waiting>): ReadonlyArray<Waiting> =>
  waiting.toSorted((one, other) => one.sequence - other.sequence)

export interface Batches {
  /** For the options of the context. */
  readonly strategy: CustomBatchingPrioritizationStrategy
  /** Reads the sequences of the context that uses the strategy, and measures its batches. */
  readonly attach: (context: LlamaContext) => void
}

/** The context's parts; refuses another version of the library. */
const insideOf = (context: LlamaContext): Inside => {
  const { _ctx: native, _queuedDecodes: queue } = context as unknown as Partial<Inside>
  if (native?.decodeBatch === undefined || native.setThreads === undefined || queue === undefined) {
    return refuse({ kind: "load_failed", message: "This version of node-llama-cpp is not the one that Troupe pins." })
  }
  return context as unknown as Inside
}

/** Calls `begin` before each batch, and what it returns with the batch's time, ms. */
const measure = (native: Inside["_ctx"], now: () => number, begin: () => (ms: number) => void): void => {
  const decode = native.decodeBatch.bind(native)
  Object.defineProperty(native, "decodeBatch", {
    configurable: true,
    value: async () => {
      const record = begin()
      const began = now()
      await decode()
      record(now() - began)
    }
  })
}

/**
 * @param mostOfPrompts prompt tokens in a batch: the first prompt must not wait for all others if larger batches are not
 *   cheaper
 */
export const makeBatches = (
  mostOfPrompts: number,
  threads: Threads,
  now: () => number = () => performance.now()
): Batches => {
  const widths = makeWidths()
  const threadChoice = makeThreadChoice(threads)
  let inside: Inside | undefined
  /** The latest batch. */
  let batch: Computed = { tokens: 0 }

  const nextOf = (next: ReadonlyArray<Waiting>, hasPrompts: boolean): ReadonlyArray<Waiting> => {
    const all = inOrder(next)
    const runs = runsOf(all.map(({ sequence }) => sequence))
    // A prompt must not wait for one batch of each answer.
    const isWhole = hasPrompts || widths.choose(runs) === all.length
    batch = isWhole ? { runs, tokens: all.length } : { runs: [1], tokens: 1 }
    return isWhole ? all : next.slice(0, 1)
  }
  const choose = (waiting: ReadonlyArray<Waiting>, size: number): ReadonlyArray<Waiting> => {
    const next = waiting.filter(({ amount }) => amount === 1)
    const prompts = waiting.filter(({ amount }) => amount > 1)
    const isPromptsTurn = next.length === 0 || batch.runs !== undefined
    if (prompts.length === 0 || !isPromptsTurn) return nextOf(next.slice(0, size), prompts.length > 0)
    const pieces = inOrder(fit(prompts, Math.min(mostOfPrompts, size)))
    batch = { tokens: pieces.reduce((sum, { amount }) => sum + amount, 0) }
    return pieces
  }
  return {
    strategy: ({ items, size }) =>
      choose(
        items.map((item, index) => ({
          item,
          sequence: inside?._queuedDecodes[index]?.sequenceId ?? 0,
          amount: item.tokens.length
        })),
        size
      ).map(({ amount, item }) => ({ item, processAmount: amount })),
    attach(context) {
      const { _ctx: native } = inside = insideOf(context)
      measure(native, now, () => {
        const computed = batch
        const threads = threadChoice.choose(computed)
        native.setThreads(threads)
        return (ms) => {
          threadChoice.record(computed, threads, ms)
          if (computed.runs !== undefined) widths.record(computed.runs, ms)
        }
      })
    }
  }
}
