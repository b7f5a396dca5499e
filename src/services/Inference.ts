/**
 * The front door: one request in, one answer out, whoever gives it.
 *
 * **Details**
 *
 * Every admitted request ends exactly once, with an answer, an `InferenceError` or an interruption. Interrupting the
 * effect or ending the stream early stops the engine within one token.
 *
 * **Example**
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const inference = yield* Inference.Inference
 *   const answer = yield* inference.generate(Inference.request({
 *     model: "tiny-chat",
 *     messages: [{ role: "user", content: "What is the capital of Japan?" }],
 *     temperature: 0
 *   }))
 *   return answer.text
 * })
 * ```
 */
import type { Effect, Stream } from "effect"
import { Context, Schema } from "effect"
import type { FinishReason, TokenUsage } from "./EngineProtocol.ts"
import type { InferenceError } from "./InferenceError.ts"

/** One message of a conversation. */
export const Message = Schema.Struct({
  role: Schema.Literals(["system", "user", "assistant"]),
  content: Schema.String
})
export type Message = typeof Message.Type

/** The largest seed: seeds are 32-bit unsigned integers. */
export const maxSeed = 2 ** 32 - 1

const within = (minimum: number, maximum: number) => Schema.isBetween({ minimum, maximum })

/** What a caller asks for. */
export const Request = Schema.Struct({
  /** A model's name, as `Registry` lists them. */
  model: Schema.NonEmptyString,
  /** At least one. */
  messages: Schema.Array(Message).check(Schema.isMinLength(1)),
  /** 0 is greedy; default 1. */
  temperature: Schema.optional(Schema.Finite.check(within(0, 2))),
  /** Nucleus sampling: the smallest set of tokens whose probability sums to this; default 1, which turns it off. */
  topP: Schema.optional(Schema.Finite.check(within(0, 1))),
  /** The same seed, options and prompt give the same answer; default random. */
  seed: Schema.optional(Schema.Int.check(within(0, maxSeed))),
  /** Only the so many likeliest tokens; default all. */
  topK: Schema.optional(Schema.Int.check(within(1, 1_000_000))),
  /** Only tokens at least this likely, as a share of the likeliest; default 0, all. */
  minP: Schema.optional(Schema.Finite.check(within(0, 1))),
  /** Divides the logits of tokens that the answer has already; default 1. */
  repeatPenalty: Schema.optional(Schema.Finite.check(within(0.01, 10))),
  /** Taken off the logit of a token that the answer has already; default 0. */
  presencePenalty: Schema.optional(Schema.Finite.check(within(-2, 2))),
  /** Taken off the logit of a token for each time that the answer has it; default 0. */
  frequencyPenalty: Schema.optional(Schema.Finite.check(within(-2, 2))),
  /** Added to the logits of tokens, by token id; -100 never chooses one; default none. */
  logitBias: Schema.optional(
    Schema.Record(Schema.String.check(Schema.isPattern(/^\d+$/)), Schema.Finite.check(within(-100, 100)))
  ),
  /** The most tokens to generate; default as many as the context window has room for. */
  maxTokens: Schema.optional(Schema.Int.check(within(1, 1_000_000))),
  /** The answer ends before the first of these; default none. */
  stop: Schema.optional(Schema.Array(Schema.NonEmptyString))
})
export type Request = typeof Request.Type

/** A request, checked; throws where the types could not tell. */
export const request = (input: Request): Request => Schema.decodeSync(Request)(input)

/** What a stream of an answer consists of: any number of `text`, then one `finish`. */
export type Event =
  | {
    readonly type: "text"
    readonly text: string
    /** Tokens generated since the event before. */
    readonly tokens: number
  }
  | { readonly type: "finish"; readonly reason: FinishReason; readonly usage: TokenUsage }

/** A whole answer. */
export interface Answer {
  readonly text: string
  /** `length`: the answer was cut at `maxTokens` or where the context window ends. */
  readonly finishReason: FinishReason
  readonly usage: TokenUsage
  /** Which deployment answered. */
  readonly deployment: string
}

export class Inference extends Context.Service<Inference, {
  /** The answer as it is generated. Fails before the first event, or in its middle with what came before it given. */
  readonly stream: (request: Request) => Stream.Stream<Event, InferenceError>
  /** The whole answer. */
  readonly generate: (request: Request) => Effect.Effect<Answer, InferenceError>
}>()("troupe/services/Inference") {}
