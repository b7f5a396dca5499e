/**
 * Prompts of text completions on the llama engine: a text or tokens without a chat template, and a prompt with a gap.
 *
 * **Details**
 *
 * A prompt with a gap is `<prefix> text <suffix> text <middle>`, the order that llama.cpp's server has for models with tokens
 * of these names. Control tokens in the text of a prompt are read as such, as llama.cpp's server and vLLM do: the caller
 * writes the whole prompt. Around a gap they are text.
 */
import type { LlamaModel, Token } from "node-llama-cpp"
import type { GenerateJob } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"
import type { Check } from "../model/TextLimits.ts"

/** What a prompt is made with. */
export type Vocabulary = Pick<LlamaModel, "tokenize"> & {
  readonly tokens: Pick<LlamaModel["tokens"], "bos" | "shouldPrependBosToken"> & {
    readonly infill: Pick<LlamaModel["tokens"]["infill"], "middle" | "prefix" | "suffix">
  }
}

/** The tokens with the begin-of-text token before them, if the vocabulary requires it and they do not have it. */
export const begin = ({ tokens: { bos, shouldPrependBosToken } }: Vocabulary, tokens: Array<Token>): Array<Token> =>
  shouldPrependBosToken && bos !== null && tokens[0] !== bos ? [bos, ...tokens] : tokens

const aroundGap = (model: Vocabulary, before: string, after: string): Array<Token> => {
  const { middle, prefix, suffix } = model.tokens.infill
  if (middle === null || prefix === null || suffix === null) {
    return refuse({
      kind: "not_supported",
      path: "suffix",
      message: "the model's file has no tokens for filling in the middle. Omit the suffix, or use a model that has them"
    })
  }
  const textOf = (text: string) => model.tokenize(text, false, "trimLeadingSpace")
  return begin(model, [prefix, ...textOf(before), suffix, ...textOf(after), middle])
}

const checked = (tokens: ReadonlyArray<number>, size: number): Array<Token> => {
  const index = tokens.findIndex((token) => token >= size)
  if (index >= 0) {
    refuse({
      kind: "invalid_request",
      path: `completion.tokens[${index}]`,
      message: `Expected a token id below ${size}, the size of the model's vocabulary, got ${tokens[index]}`
    })
  }
  return tokens as Array<Token>
}

/**
 * @param size of the vocabulary, tokens
 */
export const completionTokens = (
  model: Vocabulary,
  size: number,
  check: Check,
  { completion, messages: [prompt, suffix] }: Pick<GenerateJob, "completion" | "messages">
): Array<Token> => {
  if (completion?.tokens !== undefined) return checked(completion.tokens, size)
  const before = prompt?.content ?? ""
  check(before.length + (suffix?.content.length ?? 0))
  const tokens = suffix === undefined
    ? begin(model, model.tokenize(before, true))
    : aroundGap(model, before, suffix.content)
  return tokens.length > 0 ? tokens : refuse({
    kind: "invalid_request",
    path: "messages",
    message: "Expected a prompt that is not empty: the model has no token that begins a text"
  })
}
