/**
 * Chooses the tokens of llama.cpp's next batch.
 *
 * **Details**
 *
 * On many cores or a GPU, the next tokens of all answers are cheapest in one batch. On few cores that depends on the
 * weights' format: with one thread, a token of a `Q8_0` model in a batch of eight takes 1.5 times as long as one alone.
 * The time of each width is therefore measured as batches run, and tokens are computed one by one if that is clearly
 * cheaper. Pieces of prompts are batched with each other and with next tokens, and are not split.
 */
import type {
  BatchItem,
  CustomBatchingPrioritizationStrategy,
  LlamaContext,
  PrioritizedBatchItem
} from "node-llama-cpp"
import { refuse } from "../../domain/Job.ts"

/** Batches of a width before its cost counts as known. */
const trials = 3
/** Smoothing factor of later batches. */
const weight = 0.25
/** Choices after which the more expensive way is measured again. */
const retryAfter = 512
/** Tokens are computed one by one if one takes less than this share of the time in a batch: one by one has more overhead. */
const aloneShare = 0.85

interface Cost {
  readonly samples: number
  /** For each token. */
  readonly ms: number
}

/** Measures the cost of batch widths, and chooses the next width. */
export const makeWidths = () => {
  const costs = new Map<number, Cost>()
  let choices = 0
  const known = (width: number): number | undefined => {
    const cost = costs.get(width)
    return cost === undefined || cost.samples < trials ? undefined : cost.ms
  }
  return {
    /** How many of the waiting tokens to compute in the next batch: one, or all. */
    choose(waiting: number): number {
      if (waiting < 2) return waiting
      const together = known(waiting)
      if (together === undefined) return waiting
      const alone = known(1)
      if (alone === undefined) return 1
      choices++
      const isAlone = alone < aloneShare * together
      return isAlone === (choices % retryAfter !== 0) ? 1 : waiting
    },
    record(width: number, ms: number): void {
      const { ms: before, samples } = costs.get(width) ?? { ms: Number.POSITIVE_INFINITY, samples: 0 }
      const each = ms / width
      // The first batches are slow, while the pages of the file are read.
      costs.set(width, {
        samples: samples + 1,
        ms: samples < trials ? Math.min(before, each) : before + weight * (each - before)
      })
    }
  }
}

const entire = (item: BatchItem): PrioritizedBatchItem => ({ item, processAmount: item.tokens.length })

/** The items that fit into a batch, in order; if none fits, a part of the first. */
const fit = (items: ReadonlyArray<BatchItem>, size: number): Array<PrioritizedBatchItem> => {
  const fitting: Array<PrioritizedBatchItem> = []
  let left = size
  for (const item of items) {
    if (item.tokens.length > left) continue
    fitting.push(entire(item))
    left -= item.tokens.length
  }
  return fitting.length > 0 ? fitting : [{ item: items[0]!, processAmount: size }]
}

const isNext = ({ tokens }: BatchItem): boolean => tokens.length === 1

export interface Batches {
  /** For the options of the context. */
  readonly strategy: CustomBatchingPrioritizationStrategy
  /** Measures the batches of the context that uses the strategy. */
  readonly measure: (context: LlamaContext) => void
}

/**
 * @param mostOfPrompts prompt tokens in a batch: the first prompt must not wait for all others if larger batches are not
 *   cheaper
 */
export const makeBatches = (mostOfPrompts: number, now: () => number = () => performance.now()): Batches => {
  const widths = makeWidths()
  /** Width of the next batch, if it has next tokens only. */
  let width: number | undefined
  return {
    strategy({ items, size }) {
      const next = items.filter(isNext)
      if (next.length < items.length) {
        width = undefined
        // At least one prompt token is computed; answers do not wait for prompts otherwise.
        const first = next.slice(0, size - 1)
        const left = size - first.length
        return [...first.map(entire), ...fit(items.filter((item) => !isNext(item)), Math.min(mostOfPrompts, left))]
      }
      width = widths.choose(Math.min(next.length, size))
      return next.slice(0, width).map(entire)
    },
    measure(context) {
      const native = (context as unknown as { readonly _ctx?: { decodeBatch?: () => Promise<void> } })._ctx
      const decode = native?.decodeBatch?.bind(native)
      if (native === undefined || decode === undefined) {
        return refuse({
          kind: "load_failed",
          message: "This version of node-llama-cpp is not the one that Troupe pins."
        })
      }
      Object.defineProperty(native, "decodeBatch", {
        configurable: true,
        value: async () => {
          const began = now()
          const computed = width
          await decode()
          if (computed !== undefined) widths.record(computed, now() - began)
        }
      })
    }
  }
}
