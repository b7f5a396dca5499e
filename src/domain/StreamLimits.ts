/**
 * How answers of local engines are streamed: the size of their parts, and how far an engine may be ahead of its reader.
 *
 * **Gotchas**
 *
 * Engine threads import this module, so it must not import `effect`: see `EngineProtocol`.
 */

/** The parts of an answer. The first one is sent at once, a later one when a limit is reached. */
export interface PartLimits {
  readonly tokens: number
  /** A longer token is a part of its own. */
  readonly characters: number
  /** Time since the last part, ms. */
  readonly delayMs: number
}

/** How far an engine may be ahead. */
export interface ReaderLimits {
  /** Tokens that are sent before the reader has taken them. */
  readonly window: number
  /** Tokens between two looks at the reader's latency. */
  readonly readEvery: number
  /** The latency above which the reader is slow, ms. */
  readonly slowAfterMs: number
  /** The window of a slow reader. */
  readonly slowWindow: number
}

export type StreamLimits = PartLimits & ReaderLimits

/**
 * A delay of 15 ms is less than a frame of a display, and longer than a small model needs for some tokens: a faster engine would
 * spend more time on messages than on tokens.
 */
export const streamDefaults: StreamLimits = {
  tokens: 10,
  characters: 100,
  delayMs: 15,
  window: 256,
  readEvery: 100,
  slowAfterMs: 100,
  slowWindow: 32
}

/** The limits of parts that an engine thread needs; undefined if they are the defaults. */
export const partsOf = ({ characters, delayMs, tokens }: PartLimits): PartLimits | undefined =>
  characters === streamDefaults.characters && delayMs === streamDefaults.delayMs && tokens === streamDefaults.tokens
    ? undefined
    : { characters, delayMs, tokens }
