/** Log-probabilities of the llama engine's tokens, with the texts and bytes of the tokens. */
import type { LlamaModel, Token } from "node-llama-cpp"
import type { ChosenLogprob, TokenLogprob } from "../../domain/Job.ts"
import { byteOfLetter } from "../job/TextJoiner.ts"

/** As OpenAI's API reports a token whose probability is too small for a float. */
const never = -9999

/** The bytes of a token that is part of a character. */
const bytesOfPart = (written: string): Array<number> => {
  const byte = /^<0x([0-9A-F]{2})>$/.exec(written)
  return byte === null
    ? Array.from(written, (character) => byteOfLetter.get(character) ?? 0x3f)
    : [Number.parseInt(byte[1]!, 16)]
}

/** The text and bytes of a token, given the tokens before it. */
export const makeTokenTexts = (model: LlamaModel) => {
  const { tokens } = model.fileInfo.metadata.tokenizer.ggml
  return (token: Token, before: ReadonlyArray<Token>): Pick<TokenLogprob, "token" | "bytes"> => {
    const text = model.detokenize([token], true, before)
    return { token: text, bytes: text.includes("\uFFFD") ? bytesOfPart(tokens[token]!) : [...Buffer.from(text)] }
  }
}

const logOf = (probability: number): number => probability > 0 ? Math.log(probability) : never

/**
 * @param probabilities likeliest first, the chosen token among them
 * @param count how many of the likeliest to report
 */
export const logprobsOf = (
  textOf: ReturnType<typeof makeTokenTexts>,
  chosen: Token,
  before: ReadonlyArray<Token>,
  probabilities: ReadonlyMap<Token, number>,
  count: number
): ChosenLogprob => {
  const entryOf = (token: Token): TokenLogprob => ({
    ...textOf(token, before),
    logprob: logOf(probabilities.get(token) ?? 0)
  })
  return { ...entryOf(chosen), top: [...probabilities.keys()].slice(0, count).map(entryOf) }
}
