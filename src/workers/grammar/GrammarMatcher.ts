/**
 * Checks, piece by piece, whether a text can become a text of a grammar.
 *
 * **Details**
 *
 * The matcher follows all parses of the text at once (`GrammarParses`). Text may arrive as bytes, split anywhere: for an incomplete character, the matcher checks whether any of its possible
 * completions is allowed.
 *
 * **Gotchas**
 *
 * A matcher keeps the stacks of its text: make one for each text.
 */
import type { Grammar } from "./Grammar.ts"
import type { State } from "./GrammarParses.ts"
import { isPossible, makeReader, readByte } from "./GrammarParses.ts"

/** Follows one text. */
export interface Matcher {
  /** Whether the text so far can continue with this piece. */
  readonly allows: (piece: string | Uint8Array) => boolean
  /** Appends a piece. After a piece that is not allowed, nothing can follow. */
  readonly push: (piece: string | Uint8Array) => void
  /** Whether the text so far is complete, so that it can end here. */
  readonly isComplete: () => boolean
  /** Whether any character can follow. */
  readonly canContinue: () => boolean
}

/** @param grammar without left-recursive rules */
export const makeMatcher = (grammar: Grammar): Matcher => {
  const reader = makeReader(grammar)
  let state = reader.start

  const walk = (piece: string | Uint8Array): State => {
    let walked = state
    if (typeof piece === "string") { for (const char of piece) walked = reader.read(walked, char.codePointAt(0)!) }
    else for (const byte of piece) walked = readByte(reader, walked, byte)
    return walked
  }

  return {
    allows: (piece) => isPossible(walk(piece)),
    push(piece) {
      state = walk(piece)
    },
    isComplete: () => state.isEnd,
    canContinue: () => state.readers.size > 0
  }
}
