/** The section `engines.streams`: how answers of local engines are cut into parts, and which of their readers are slow. */
import { Duration, Schema } from "effect"
import { Count, durationText, optional, Span } from "../../domain/Fields.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import type { StreamLimits } from "../../domain/StreamLimits.ts"
import { streamDefaults as defaults } from "../../domain/StreamLimits.ts"

export const Streams = Schema.Struct({
  tokens: optional(`Maximum tokens of a part. Default ${defaults.tokens}.`, Count),
  characters: optional(
    `Maximum characters of a part. A longer token is a part of its own. Default ${defaults.characters}.`,
    Count
  ),
  delay: optional(
    "How long a part waits for more tokens after the last one was sent. Default " +
      `${durationText(defaults.delayMs)}.`,
    Span
  ),
  readEvery: optional(`Tokens after which the latency of the reader is read. Default ${defaults.readEvery}.`, Count),
  slowAfter: optional(
    "Latency above which a reader is slow: the longest time that it was not ready for more. Default " +
      `${durationText(defaults.slowAfterMs)}.`,
    Span
  ),
  slowWindow: optional(
    "Tokens that an engine may be ahead of a slow reader, until its latency is low again. Default " +
      `${defaults.slowWindow}.`,
    wholeNumber(16)
  )
})

const millisOr = (span: Duration.Duration | undefined, otherwise: number): number =>
  span === undefined ? otherwise : Duration.toMillis(span)

/** @param window tokens that an engine may be ahead of its reader */
export const streamsOf = (
  window: number,
  { delay, slowAfter, ...limits }: typeof Streams.Type = {}
): StreamLimits => ({
  ...defaults,
  ...limits,
  delayMs: millisOr(delay, defaults.delayMs),
  slowAfterMs: millisOr(slowAfter, defaults.slowAfterMs),
  window
})
