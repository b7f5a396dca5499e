/** Decodes a provider's answers of text completions, whole and streamed. Pure. */
import { Result } from "effect"
import { numberOf } from "../../domain/ExactNumber.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import { ContentRefused } from "../../domain/InferenceError.ts"
import type { ChosenLogprob, ReportedUsage, TokenLogprob } from "../../domain/Job.ts"
import type { Native } from "../../domain/Source.ts"
import { isNative } from "../../domain/Source.ts"
import { cut, malformed } from "../shared/ErrorMapping.ts"
import { at, codeOf, type Fields, fieldsOf, listAt, parse, textAt } from "../shared/Json.ts"
import { eventOf, makeHolding } from "../shared/NativeEvents.ts"
import type { DecodeResult, EventDecoder, Target } from "../shared/ProviderDialect.ts"
import { makeCounter } from "../shared/TokenCounter.ts"
import { errorIn, finishReasonOf, interruptions, ownChoice, reportedUsage } from "./DecodeAnswer.ts"

const logprobOf = (token: string, logprob: unknown): TokenLogprob | undefined => {
  const value = numberOf(logprob)
  return value === undefined ? undefined : { token, logprob: value, bytes: [...Buffer.from(token)] }
}

/** The likeliest tokens at a position, likeliest first. */
const topOf = (given: unknown): ReadonlyArray<TokenLogprob> =>
  Object.entries(fieldsOf(given) ?? {})
    .flatMap(([token, logprob]) => logprobOf(token, logprob) ?? [])
    .toSorted((one, other) => other.logprob - one.logprob)

/** The first token of an echoed prompt has none. */
const logprobsOf = (choice: Fields): ReadonlyArray<ChosenLogprob> => {
  const logprobs = listAt(choice, "logprobs", "token_logprobs")
  const top = listAt(choice, "logprobs", "top_logprobs")
  return listAt(choice, "logprobs", "tokens").flatMap((token, index) => {
    if (typeof token !== "string") return []
    const { bytes, logprob } = logprobOf(token, logprobs[index]) ?? { bytes: [...Buffer.from(token)], logprob: null }
    return [{ token, bytes, logprob, top: topOf(top[index]) }]
  })
}

const nativeOf = (form: Native["form"]) => (body: Fields): Native => ({ dialect: "openai", form, body, hasMore: false })

/** Decodes the first choice of an answer: a request asks for one. */
class TextDecoder {
  readonly #generation: Generation
  readonly #target: Target
  readonly #counter: ReturnType<typeof makeCounter>
  #finish: string | undefined
  #stop: string | undefined
  #hasText = false
  usage: ReportedUsage | undefined

  constructor(generation: Generation, target: Target) {
    this.#generation = generation
    this.#target = target
    this.#counter = makeCounter(generation)
  }

  push(body: Fields): ReadonlyArray<Event> {
    this.usage = reportedUsage(body["usage"]) ?? this.usage
    const choice = ownChoice(body)
    if (choice === undefined || this.#finish !== undefined) return []
    this.#finish = codeOf(choice["finish_reason"])
    this.#stop = textAt(choice, "stop_reason")
    const text = textAt(choice, "text") ?? ""
    if (text === "") return []
    this.#hasText = true
    const logprobs = this.#generation.logprobs === undefined ? [] : logprobsOf(choice)
    const event = { type: "text", text, tokens: this.#counter.count(text) } as const
    return [logprobs.length === 0 ? event : { ...event, logprobs }]
  }

  isFinished(): boolean {
    return this.#finish !== undefined
  }

  end(): DecodeResult {
    const target = this.#target
    if (this.#finish === undefined || interruptions.has(this.#finish)) return Result.fail(cut(target))
    const reason = finishReasonOf(this.#finish, false, this.#hasText)
    if (reason === "content_filter" && !this.#hasText) {
      const { deployment } = target
      return Result.fail(new ContentRefused({ deployment, detail: "its content filter ended the answer." }))
    }
    const usage = this.#counter.usage(this.usage)
    const stop = this.#stop !== undefined && this.#generation.stop.includes(this.#stop) ? { stop: this.#stop } : {}
    return Result.succeed([{ type: "finish", reason, usage, ...stop }])
  }
}

export const events = (generation: Generation, target: Target): EventDecoder => {
  const decoder = new TextDecoder(generation, target)
  const holding = isNative(generation, target.options) ? makeHolding(nativeOf("chunk")) : undefined
  const withNative = (chunk: Fields, decoded: ReadonlyArray<Event>): ReadonlyArray<Event> => {
    // The usage comes with the finish.
    if (holding === undefined || ownChoice(chunk) === undefined) return decoded
    return decoded.length === 0
      ? holding.hold(chunk)
      : [...holding.begin(), eventOf(nativeOf("chunk")(chunk), true), ...decoded]
  }
  const end = (): DecodeResult =>
    Result.map(decoder.end(), (last) => holding === undefined ? last : [...holding.begin(), ...last])
  return {
    push: ({ data, event }) => {
      if (data === "[DONE]") return end()
      const chunk = fieldsOf(parse(data))
      if (chunk === undefined) return Result.fail(malformed(target, "an event that is not a JSON object"))
      const error = errorIn(event === "error" && !("choices" in chunk) ? { error: chunk } : chunk, target)
      return error === undefined ? Result.succeed(withNative(chunk, decoder.push(chunk))) : Result.fail(error)
    },
    isFinished: () => decoder.isFinished(),
    usage: () => decoder.usage,
    end
  }
}

export const buffered = (body: unknown, generation: Generation, target: Target): DecodeResult => {
  const answer = fieldsOf(body)
  const error = errorIn(answer, target)
  if (error !== undefined) return Result.fail(error)
  if (answer === undefined || typeof at(ownChoice(answer), "text") !== "string") {
    return Result.fail(malformed(target, "no `choices[0].text`. Check `provider` and `baseUrl` of the deployment"))
  }
  const decoder = new TextDecoder(generation, target)
  const decoded = decoder.push(answer)
  return Result.map(decoder.end(), (last) => [
    ...(isNative(generation, target.options) ? [eventOf(nativeOf("buffered")(answer), false)] : []),
    ...decoded,
    ...last
  ])
}
