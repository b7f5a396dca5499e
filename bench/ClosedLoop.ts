/** Closed-loop load: each of several callers sends its next request as soon as it has its answer. */
import { median } from "./Statistics.ts"

/** One answer, measured by its caller. */
export interface Sample {
  readonly tokens: number
  /** From the request to the first text, ms. */
  readonly firstTokenMs: number
  readonly text: string
}

/** The summary of a round. */
export interface Round {
  readonly answers: number
  readonly tokens: number
  readonly milliseconds: number
  readonly tokensPerSecond: number
  /** Median time to first token, ms. */
  readonly firstTokenMs: number
  /** The distinct texts of the answers. */
  readonly texts: ReadonlyArray<string>
}

/** Callers send no new request after `milliseconds`; the round ends with the last answer. */
export const closedLoop = async (
  callers: number,
  milliseconds: number,
  ask: () => Promise<Sample>
): Promise<Round> => {
  const samples: Array<Sample> = []
  const begun = performance.now()
  const caller = async () => {
    do {
      samples.push(await ask())
    } while (performance.now() - begun < milliseconds)
  }
  await Promise.all(Array.from({ length: callers }, caller))
  const took = performance.now() - begun
  const tokens = samples.reduce((sum, sample) => sum + sample.tokens, 0)
  return {
    answers: samples.length,
    tokens,
    milliseconds: took,
    tokensPerSecond: tokens / (took / 1000),
    firstTokenMs: median(samples.map((sample) => sample.firstTokenMs)),
    texts: [...new Set(samples.map((sample) => sample.text))]
  }
}
