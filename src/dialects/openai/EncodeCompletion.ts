/**
 * Encodes answers of `POST /v1/completions`, whole and as frames of server-sent events. Pure.
 *
 * **Details**
 *
 * The choice of a provider of the dialect is passed on as it came, with the index of the caller's choice; so are the other
 * fields of its answer if there is one choice.
 */
import type { Answer, Event } from "../../domain/Inference.ts"
import type { ChosenLogprob, FinishReason, TokenLogprob, TokenUsage } from "../../domain/Job.ts"
import type { Native } from "../../domain/Source.ts"
import type { Fields } from "../shared/Json.ts"
import { fieldsOf, listAt, textAt } from "../shared/Json.ts"
import type { Completion, CompletionLogprobs } from "./CompletionSchema.ts"
import { isOpenAi, usageOf } from "./EncodeAnswer.ts"
import type { Usage } from "./Schema.ts"

/** What the parts of an answer share. */
export interface Envelope {
  readonly id: string
  /** Seconds since 1970. */
  readonly created: number
  /** In the request. */
  readonly model: string
  /** The name of the model that a deployment serves, for answers; undefined: that of the request. */
  readonly servedModel: (deployment: string) => string | undefined
  readonly includeUsage: boolean
  /** Choices of each prompt. */
  readonly n: number
  /** The text before the answer of each choice; "" for none. */
  readonly echoes: ReadonlyArray<string>
}

type Choice = Completion["choices"][number]

/** OpenAI's value for a probability near 0; JSON has no infinity. */
const minLogprob = -9999

const entryOf = ({ logprob, token }: TokenLogprob) => [token, Math.max(logprob, minLogprob)] as const

/** @param offset of the first token in the text of the choice, characters */
const logprobsOf = (chosen: ReadonlyArray<ChosenLogprob>, offset: number): CompletionLogprobs => {
  // A character may have several tokens: all begin where it does.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
  const offsets: Array<number> = []
  let at = offset
  for (const { bytes } of chosen) {
    offsets.push(at)
    at += decoder.decode(Uint8Array.from(bytes), { stream: true }).length
  }
  return {
    tokens: chosen.map(({ token }) => token),
    token_logprobs: chosen.map(({ logprob }) => logprob === null ? null : Math.max(logprob, minLogprob)),
    top_logprobs: chosen.every(({ top }) => top.length === 0)
      ? null
      : chosen.map(({ logprob, top }) => logprob === null ? null : Object.fromEntries(top.map(entryOf))),
    text_offset: offsets
  }
}

/** A text has no tool calls. */
const finishOf = (reason: FinishReason): Choice["finish_reason"] => reason === "tool_calls" ? "stop" : reason

/** Usage of several choices: each prompt counts once. */
const sumOf = (usages: ReadonlyArray<TokenUsage>, n: number): Usage => {
  const prompts = Array.from(
    { length: Math.ceil(usages.length / n) },
    (_, index) => usageOf(usages.slice(index * n, (index + 1) * n))
  )
  const total = (of: (usage: Usage) => number) => prompts.reduce((sum, usage) => sum + of(usage), 0)
  return prompts.length === 1 ? prompts[0]! : {
    prompt_tokens: total((usage) => usage.prompt_tokens),
    completion_tokens: total((usage) => usage.completion_tokens),
    total_tokens: total((usage) => usage.total_tokens),
    prompt_tokens_details: { cached_tokens: total((usage) => usage.prompt_tokens_details.cached_tokens) }
  }
}

/** The provider's own choice at the caller's index; undefined if the provider has another dialect. */
const nativeChoice = (native: Native | undefined, index: number, echo = ""): Fields | undefined => {
  const choice = native !== undefined && isOpenAi(native) ? fieldsOf(listAt(native.body, "choices")[0]) : undefined
  return choice && { ...choice, index, text: echo + (textAt(choice, "text") ?? "") }
}

const choiceOf = ({ finishReason, logprobs, native, stop, text }: Answer, index: number, echo: string): Choice => {
  const own = nativeChoice(native?.length === 1 ? native[0] : undefined, index, echo)
  return own as Choice | undefined ?? {
    text: echo + text,
    index,
    logprobs: logprobs === undefined ? null : logprobsOf(logprobs, echo.length),
    finish_reason: finishOf(finishReason),
    ...(stop === undefined ? {} : { stop_reason: stop })
  }
}

/** The other fields of the only answer, as a provider of the dialect sent it. */
const nativeFields = ([only, ...others]: ReadonlyArray<Answer>): Fields => {
  const native = only?.native?.length === 1 && others.length === 0 ? only.native[0] : undefined
  return native !== undefined && isOpenAi(native) ? native.body : {}
}

/** @param answers one per choice */
export const encodeAnswers = (
  { created, echoes, id, model, n, servedModel }: Envelope,
  answers: ReadonlyArray<Answer>
): Completion => {
  const usage = sumOf(answers.map((answer) => answer.usage), n)
  const native = nativeFields(answers)
  return {
    ...native,
    id,
    object: "text_completion",
    created,
    model: (answers[0] && servedModel(answers[0].deployment)) ?? model,
    choices: answers.map((answer, index) => choiceOf(answer, index, echoes[index] ?? "")),
    usage: (fieldsOf(native["usage"]) ?? usage) as Usage
  }
}

const frame = (body: object): string => `data: ${JSON.stringify(body)}\n\n`

/** The state of one choice in a stream. */
interface ChoiceState {
  /** Characters of its text until now. */
  offset: number
  /** The provider's own events have the content. */
  isNative: boolean
}

/** Writes the frames of a stream. */
export class FrameEncoder {
  readonly #envelope: Envelope
  readonly #choices: Array<ChoiceState | undefined> = []
  readonly #usages: Array<TokenUsage> = []
  /** The model that answers. */
  #model: string

  constructor(envelope: Envelope) {
    this.#envelope = envelope
    this.#model = envelope.model
  }

  /** @param deployment that answers the next choice */
  begin(deployment: string): void {
    this.#model = this.#envelope.servedModel(deployment) ?? this.#model
  }

  /** Frames for events of one choice. */
  events(index: number, events: ReadonlyArray<Event>): string {
    let frames = ""
    const state = this.#choices[index] ??= { offset: 0, isNative: false }
    const echo = state.offset === 0 ? this.#envelope.echoes[index] ?? "" : ""
    if (echo !== "") frames += this.#text(state, index, echo)
    for (const event of events) frames += this.#frameOf(state, index, event)
    return frames
  }

  /** The last frames, after all choices have finished. */
  end(): string {
    const { includeUsage, n } = this.#envelope
    const usage = includeUsage ? frame({ ...this.#head([]), usage: sumOf(this.#usages, n) }) : ""
    return `${usage}data: [DONE]\n\n`
  }

  #head(choices: ReadonlyArray<Choice | Fields>) {
    const { created, id, includeUsage } = this.#envelope
    return {
      id,
      object: "text_completion",
      created,
      model: this.#model,
      choices,
      ...(includeUsage ? { usage: null } : {})
    }
  }

  #text(state: ChoiceState, index: number, text: string, logprobs: Choice["logprobs"] = null): string {
    state.offset += text.length
    return frame(this.#head([{ text, index, logprobs, finish_reason: null }]))
  }

  #frameOf(state: ChoiceState, index: number, event: Event): string {
    switch (event.type) {
      case "native":
        return this.#native(state, index, event.native)
      case "text": {
        if (state.isNative || event.text === "") return ""
        const logprobs = event.logprobs === undefined ? null : logprobsOf(event.logprobs, state.offset)
        return this.#text(state, index, event.text, logprobs)
      }
      case "finish": {
        this.#usages[index] = event.usage
        if (state.isNative) return ""
        const { reason, stop } = event
        const last = { text: "", index, logprobs: null, finish_reason: finishOf(reason) }
        return frame(this.#head([stop === undefined ? last : { ...last, stop_reason: stop }]))
      }
      case "handoff": {
        state.isNative = false
        this.begin(event.deployment)
        const none = { text: "", index, logprobs: null, finish_reason: null }
        return frame({ ...this.#head([none]), troupe: { handoff: { deployment: event.deployment } } })
      }
      default:
        return ""
    }
  }

  #native(state: ChoiceState, index: number, native: Native): string {
    const choice = nativeChoice(native, index)
    if (choice === undefined) return ""
    state.isNative = true
    const { usage: _, ...body } = native.body
    return frame({ ...body, ...this.#head([choice]) })
  }
}
