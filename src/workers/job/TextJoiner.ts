/**
 * Decodes tokens whose bytes may split a character.
 *
 * **Details**
 *
 * A byte-level tokenizer splits characters anywhere, and an incomplete character decodes to U+FFFD. The joiner decodes the
 * tokens since the last character boundary together, and holds back only what a later token can change. Its output,
 * joined, equals decoding all tokens at once.
 */
export interface TextJoiner<Token> {
  /** The characters that this token completes; empty for part of a character. */
  readonly push: (token: Token) => string
  /** The rest, even if incomplete. */
  readonly flush: () => string
}

const replacement = "\uFFFD"

/** Tokens before the pending ones, by which some tokenizers decide on a leading space. */
const contextTokens = 4

/** A character has at most four bytes; this many tokens without a complete character are not text. */
const mostPending = 64

/**
 * @param decode text of `tokens`, given the tokens just before them
 * @param first tokens before the first one, whose text is not emitted
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

/**
 * The byte of each letter in byte-level vocabularies: as GPT-2 writes them, bytes that print stand for themselves, and the
 * others for letters from U+0100.
 */
export const byteOfLetter: ReadonlyMap<string, number> = (() => {
  const letters = new Map<string, number>()
  let others = 0x100
  for (let byte = 0; byte < 0x100; byte++) {
    const prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
    letters.set(String.fromCharCode(prints ? byte : others++), byte)
  }
  return letters
})()
