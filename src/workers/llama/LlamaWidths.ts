/**
 * Chooses the number of next tokens in a batch, from the measured cost of each number.
 *
 * **Details**
 *
 * On many cores or a GPU, the next tokens of all answers are cheapest in one batch. On few cores that depends on the
 * weights' format: with one thread, a token of a `Q8_0` model in a batch of four takes 1.7 times as long as one alone, and
 * in a batch of sixteen half as long. The cost of each number is therefore measured as batches run, and tokens are computed
 * one by one if that is clearly cheaper.
 *
 * llama.cpp computes tokens together only if the numbers of their sequences have no gap between them. The parts of a batch
 * without a gap, its runs, have costs of their own.
 */

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

/** The lengths of the runs in ascending numbers of sequences. */
export const runsOf = (sequences: ReadonlyArray<number>): Array<number> => {
  const runs: Array<number> = []
  for (const [index, sequence] of sequences.entries()) {
    if (index > 0 && sequence === sequences[index - 1]! + 1) runs[runs.length - 1]!++
    else runs.push(1)
  }
  return runs
}

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((total, each) => total + each, 0)

/** Measures the cost of batch widths, and chooses the next width. */
export const makeWidths = () => {
  const costs = new Map<number, Cost>()
  let choices = 0
  const known = (width: number): number | undefined => {
    const cost = costs.get(width)
    return cost === undefined || cost.samples < trials ? undefined : cost.ms
  }
  /** The time of a batch with these runs, ms; undefined if the cost of one of them is not known. */
  const timeOf = (runs: ReadonlyArray<number>): number | undefined => {
    let time = 0
    for (const run of runs) {
      const ms = known(run)
      if (ms === undefined) return undefined
      time += run * ms
    }
    return time
  }
  /** Adds the time of each of `width` tokens. */
  const add = (width: number, each: number) => {
    const { ms: before, samples } = costs.get(width) ?? { ms: Number.POSITIVE_INFINITY, samples: 0 }
    // The first batches are slow, while the pages of the file are read.
    costs.set(width, {
      samples: samples + 1,
      ms: samples < trials ? Math.min(before, each) : before + weight * (each - before)
    })
  }
  return {
    /**
     * How many of the waiting tokens to compute in the next batch: one, or all.
     *
     * @param runs of the waiting tokens
     */
    choose(runs: ReadonlyArray<number>): number {
      const waiting = sum(runs)
      if (waiting < 2) return waiting
      const together = timeOf(runs)
      if (together === undefined) return waiting
      const alone = known(1)
      if (alone === undefined) return 1
      choices++
      const isAlone = alone * waiting < aloneShare * together
      return isAlone === (choices % retryAfter !== 0) ? 1 : waiting
    },
    /** A batch with several runs gives only the cost of those that are not known. */
    record(runs: ReadonlyArray<number>, ms: number): void {
      if (runs.length === 1) return add(runs[0]!, ms / runs[0]!)
      const unknown = runs.filter((run) => known(run) === undefined)
      const rest = ms - sum(runs.map((run) => run * (known(run) ?? 0)))
      for (const width of new Set(unknown)) add(width, Math.max(0, rest) / sum(unknown))
    }
  }
}
