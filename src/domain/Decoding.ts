/** Further options of sampling, which few callers set and few engines have. */
import { Schema } from "effect"
import { atLeastOne, wholeNumber } from "./Problem.ts"

/** The most of the answer's last tokens that count for penalties. */
export const mostPenaltyTokens = 4_096

/** The most ids of tokens that end an answer. */
export const mostStopTokens = 1_000

/** A minimum of this many tokens is one without end. */
export const mostTokens = 1_000_000

const within = (minimum: number, maximum: number) => Schema.Finite.check(Schema.isBetween({ minimum, maximum }))

/** Models on this machine only. */
export const Decoding = Schema.Struct({
  /**
   * Exclude top choices: with this probability a token is chosen from those below the threshold and the least likely one
   * above it; not for ONNX models. Default none.
   */
  xtc: Schema.optional(Schema.Struct({ probability: within(0, 1), threshold: within(0, 1) })),
  /** Don't repeat yourself: a penalty for tokens that would repeat a sequence; not for ONNX models. Default none. */
  dry: Schema.optional(Schema.Struct({
    /** 0 turns it off. */
    multiplier: within(0, 100),
    /** The penalty grows with this power of the length beyond `allowedLength`. */
    base: within(1, 100),
    /** Sequences of this many tokens may be repeated. */
    allowedLength: wholeNumber(1, 10_000),
    /** Looks at this many of the last tokens; default all. */
    lastTokens: Schema.optional(wholeNumber(0, 1_000_000)),
    /** Texts that end a repetition: tokens before one are not compared with tokens after it. */
    sequenceBreakers: Schema.Array(Schema.NonEmptyString).check(Schema.isMaxLength(100))
  })),
  /** The answer does not end by itself before it has this many tokens; not with a format or a required tool. Default 0. */
  minTokens: Schema.optional(wholeNumber(0, mostTokens)),
  /** The answer ends before the first of these tokens, by id; default none. */
  stopTokens: Schema.optional(
    Schema.Array(wholeNumber(0, 2 ** 31 - 1)).check(atLeastOne, Schema.isMaxLength(mostStopTokens))
  ),
  /** How many of the answer's last tokens count for penalties; default 64. */
  penaltyWindow: Schema.optional(wholeNumber(0, mostPenaltyTokens))
})
