/**
 * Text from tokens whose bytes may split a character.
 *
 * **Details**
 *
 * A byte-level tokenizer cuts characters anywhere, and an incomplete one decodes to U+FFFD. The joiner decodes the
 * tokens since the last clean boundary together and holds back only what a later token can still change. What it has
 * emitted, joined, is what decoding all tokens at once gives.
 */
export interface TextJoiner<Token> {
  /** The characters that this token completes; often empty for part of a character. */
  readonly push: (token: Token) => string
  /** What is still held back, incomplete as it is. */
  readonly flush: () => string
}

const replacement = "\uFFFD"

/** Tokens before the pending ones that a decoder may look at, as some tokenizers tell a leading space by them. */
const contextTokens = 4

/** A character has four bytes at most; so many tokens without one whole character are not text at all. */
const mostPending = 64

/**
 * @param decode text of `tokens`, given the tokens just before them
 * @param first tokens before all, whose text is told already
 */
export const makeTextJoiner = <Token>(
  decode: (tokens: Array<Token>, before: ReadonlyArray<Token>) => string,
  first: ReadonlyArray<Token> = []
): TextJoiner<Token> => {
  let before: ReadonlyArray<Token> = first.slice(-contextTokens)
  let pending: Array<Token> = []
  let emitted = 0

  return {
    push(token) {
      pending.push(token)
      const text = decode(pending, before)
      // An incomplete character at the end decodes to one U+FFFD; everything before it is settled.
      const incomplete = text.endsWith(replacement) && pending.length < mostPending
      const settled = incomplete ? text.length - 1 : text.length
      const out = text.slice(emitted, settled)
      if (incomplete) {
        emitted = settled
      } else {
        before = [...before, ...pending].slice(-contextTokens)
        pending = []
        emitted = 0
      }
      return out
    },
    flush() {
      const out = pending.length === 0 ? "" : decode(pending, before).slice(emitted)
      pending = []
      emitted = 0
      return out
    }
  }
}
