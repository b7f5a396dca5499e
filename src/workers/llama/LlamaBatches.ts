/**
 * What the llama engine computes together: which sequences' tokens go into llama.cpp's next batch.
 *
 * **Details**
 *
 * Where many cores or a GPU compute, the next tokens of all answers are cheapest together. On few cores that depends on
 * the numbers' format: with one thread, a token of a `Q8_0` model in a batch of eight takes half as long again as one
 * alone. So what each width takes is measured as batches run, and tokens are computed one after the other where that is
 * clearly cheaper. Pieces of prompts go together with each other and with next tokens, each as a whole.
 */
import type {
  BatchItem,
  CustomBatchingPrioritizationStrategy,
  LlamaContext,
  PrioritizedBatchItem
} from "node-llama-cpp"
import { refuse } from "../../domain/Job.ts"

/** Batches of a width before it is known what they take. */
const trials = 3
/** The weight of each later one. */
const weight = 0.25
/** Choices after which the dearer way is tried once more. */
const retryAfter = 512
/** What a token alone may take at most of one in a batch: alone, it also takes more of all that is not computing. */
const worth = 0.85

interface Cost {
  readonly samples: number
  /** For each token. */
  readonly ms: number
}

/** Learns what widths take, and says which to take next. */
export const makeWidths = () => {
  const costs = new Map<number, Cost>()
  let choices = 0
  const known = (width: number): number | undefined => {
    const cost = costs.get(width)
    return cost === undefined || cost.samples < trials ? undefined : cost.ms
  }
  return {
    /** How many of the tokens that wait are to be computed in one batch: one, or all. */
    choose(waiting: number): number {
      if (waiting < 2) return waiting
      const together = known(waiting)
      if (together === undefined) return waiting
      const alone = known(1)
      if (alone === undefined) return 1
      choices++
      const isAlone = alone < worth * together
      return isAlone === (choices % retryAfter !== 0) ? 1 : waiting
    },
    took(width: number, ms: number): void {
      const { ms: before, samples } = costs.get(width) ?? { ms: Number.POSITIVE_INFINITY, samples: 0 }
      const each = ms / width
      // The first of all are slow, as long as the file's pages are read.
      costs.set(width, {
        samples: samples + 1,
        ms: samples < trials ? Math.min(before, each) : before + weight * (each - before)
      })
    }
  }
}

const whole = (item: BatchItem): PrioritizedBatchItem => ({ item, processAmount: item.tokens.length })

/** What fits into a batch, in order; of what never does, a part. */
const fit = (items: ReadonlyArray<BatchItem>, size: number): Array<PrioritizedBatchItem> => {
  const fitting: Array<PrioritizedBatchItem> = []
  let left = size
  for (const item of items) {
    if (item.tokens.length > left) continue
    fitting.push(whole(item))
    left -= item.tokens.length
  }
  return fitting.length > 0 ? fitting : [{ item: items[0]!, processAmount: size }]
}

const isNext = ({ tokens }: BatchItem): boolean => tokens.length === 1

export interface Batches {
  /** For the context's options. */
  readonly strategy: CustomBatchingPrioritizationStrategy
  /** Measures the batches of the context that was made with them. */
  readonly watch: (context: LlamaContext) => void
}

/**
 * @param mostOfPrompts tokens of prompts in a batch: those that came first are not to wait for all that came with them,
 *   where more at once are no cheaper
 */
export const makeBatches = (mostOfPrompts: number, now: () => number = () => performance.now()): Batches => {
  const widths = makeWidths()
  /** Of the batch that is computed next, where it has nothing but next tokens. */
  let width: number | undefined
  return {
    strategy({ items, size }) {
      const next = items.filter(isNext)
      if (next.length < items.length) {
        width = undefined
        // At least one token of a prompt goes on, and otherwise no answer waits for prompts.
        const first = next.slice(0, size - 1)
        const left = size - first.length
        return [...first.map(whole), ...fit(items.filter((item) => !isNext(item)), Math.min(mostOfPrompts, left))]
      }
      width = widths.choose(Math.min(next.length, size))
      return next.slice(0, width).map(whole)
    },
    watch(context) {
      const native = (context as unknown as { readonly _ctx?: { decodeBatch?: () => Promise<void> } })._ctx
      const decode = native?.decodeBatch?.bind(native)
      if (native === undefined || decode === undefined) {
        return refuse({
          kind: "load_failed",
          message: "This version of node-llama-cpp is not the one that Troupe pins."
        })
      }
      Object.defineProperty(native, "decodeBatch", {
        value: async () => {
          const began = now()
          const computed = width
          await decode()
          if (computed !== undefined) widths.took(computed, now() - began)
        }
      })
    }
  }
}
