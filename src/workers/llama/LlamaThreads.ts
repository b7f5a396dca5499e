/**
 * Chooses the compute threads of llama.cpp's batches.
 *
 * **Details**
 *
 * A batch with few next tokens waits for the memory that has the weights, which half of the cores saturate. Pieces of prompts and
 * batches with many next tokens wait for the cores. All cores are never used: the threads of a batch wait for each other
 * at every step, so a single one whose core is busy with something else holds up all of them, and a batch takes many
 * times as long. Where more threads are slower after all, because the machine has other work, batches get fewer.
 *
 * **Gotchas**
 *
 * With flash attention, a next token that is computed alone has slightly different values with another number of threads
 * (`flash_attn_ext` in ggml's `ops.cpp` splits the KV cache by threads), so batches with such tokens have always the same
 * number: the answer for a seed must not depend on other work.
 */

/** What the threads depend on. */
export interface Machine {
  /** Cores that the process may use. */
  readonly cores: number
  /** Bytes of the model's weights. */
  readonly weightsBytes: number
  /** Engine threads that share the cores. */
  readonly replicas: number
}

/** Settings; left out, chosen. */
export interface ThreadSettings {
  readonly threads?: number | undefined
  readonly promptThreads?: number | undefined
}

/** Compute threads. */
export interface Threads {
  /** Of batches with few next tokens. */
  readonly answers: number
  /** Of batches with prompts or many next tokens. */
  readonly prompts: number
}

/** Models below this size are computed on one thread: the threads would wait for each other longer than they compute. */
const smallBytes = 50e6
/** More threads wait for memory. */
const mostForAnswers = 16
/** More threads wait for each other. */
const mostForPrompts = 32

/**
 * The threads of each engine thread. `threads` alone is for all batches.
 *
 * | cores | answers | prompts |
 * |---|---|---|
 * | 1, 2 | 1 | 1 |
 * | 4 | 2 | 3 |
 * | 8 | 4 | 7 |
 * | 16 | 8 | 15 |
 * | 64 | 16 | 32 |
 */
export const threadsFor = (
  { cores, replicas, weightsBytes }: Machine,
  { promptThreads, threads }: ThreadSettings = {}
): Threads => {
  const share = weightsBytes < smallBytes ? 1 : Math.max(1, Math.floor((cores - 1) / replicas))
  const answers = threads ?? Math.min(mostForAnswers, Math.ceil(share / 2))
  return { answers, prompts: promptThreads ?? threads ?? Math.min(mostForPrompts, share) }
}

/** Batches after which a number of threads counts as measured. */
const trials = 3
/** Smoothing factor of later batches. */
const weight = 0.25
/** Choices after which the slower number is measured again. */
const retryAfter = 128

/** Chooses the faster of two numbers of threads, by the time of a token. */
const makeFaster = (numbers: readonly [number, number]) => {
  const costs = new Map(numbers.map((threads) => [threads, { samples: 0, ms: Number.POSITIVE_INFINITY }]))
  let choices = 0
  return {
    choose(): number {
      const [few, many] = numbers
      if (few === many) return few
      const unmeasured = [many, few].find((threads) => costs.get(threads)!.samples < trials)
      if (unmeasured !== undefined) return unmeasured
      const isManyFaster = costs.get(many)!.ms <= costs.get(few)!.ms
      return isManyFaster === (++choices % retryAfter !== 0) ? many : few
    },
    record(threads: number, ms: number): void {
      const { ms: before, samples } = costs.get(threads) ?? { ms: ms, samples: 0 }
      costs.set(threads, {
        samples: samples + 1,
        ms: samples < trials ? Math.min(before, ms) : before + weight * (ms - before)
      })
    }
  }
}

/** A batch: the runs of its next tokens, or else the tokens of its prompts. */
export interface Computed {
  readonly runs?: ReadonlyArray<number> | undefined
  readonly tokens: number
}

/** Next tokens that are enough for the threads of prompts. */
const manyTokens = 8
/** Pieces of prompts that are large enough to measure. */
const measuredTokens = 32

/** Chooses the threads of each batch. */
export const makeThreadChoice = ({ answers, prompts }: Threads) => {
  const forPrompts = makeFaster([answers, prompts])
  const forMany = makeFaster([answers, prompts])
  const chooserOf = ({ runs }: Computed) => {
    if (runs === undefined) return forPrompts
    return runs.every((run) => run >= manyTokens) ? forMany : undefined
  }
  return {
    choose: (batch: Computed): number => chooserOf(batch)?.choose() ?? answers,
    record(batch: Computed, threads: number, ms: number): void {
      if (batch.runs === undefined && batch.tokens < measuredTokens) return
      chooserOf(batch)?.record(threads, ms / batch.tokens)
    }
  }
}
