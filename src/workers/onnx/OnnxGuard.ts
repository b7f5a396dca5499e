/**
 * The tokens that a format or tools allow in an answer of an ONNX decoder.
 *
 * **Details**
 *
 * The vocabulary's trie is built when the first answer needs it, between other work of the thread. The masks of the last few
 * grammars are kept: callers repeat their formats.
 */
import { setImmediate } from "node:timers/promises"
import { goesOn, isEnd } from "../grammar/ByteAutomaton.ts"
import type { Grammar } from "../grammar/JsonGrammar.ts"
import { makeVocabulary, TokenMasks } from "../grammar/TokenMask.ts"
import type { Vocabulary } from "../grammar/TokenMask.ts"
import { build } from "../grammar/TokenTrie.ts"
import type { OnnxTokenizer } from "./OnnxTokenizer.ts"

/** Which tokens can come next in one answer. */
export interface Guard {
  readonly allows: (token: number) => boolean
  /** The bits of all tokens, as `TokenMasks.maskOf`. */
  readonly mask: () => Uint32Array
  /** The same, without the tokens that end an answer. */
  readonly maskWithoutEnd: () => Uint32Array
  readonly accept: (token: number) => void
  /** Only the end can follow, so the model does not need to compute. */
  readonly isOver: () => boolean
}

/** Makes the guards of a model's answers. */
export interface Guards {
  /**
   * @param key equal for equal grammars
   * @param grammar called for a key that is not kept; what it throws rejects
   */
  readonly guardFor: (key: string, grammar: () => Grammar) => Promise<Guard>
}

/** Grammars whose masks are kept: up to some 10 MB each. */
const mostGrammars = 4

const guardOf = (masks: TokenMasks): Guard => {
  let place = masks.start
  return {
    allows: (token) => masks.allows(place, token),
    mask: () => masks.maskOf(place),
    maskWithoutEnd: () => masks.maskWithoutEnd(place),
    accept(token) {
      place = masks.after(place, token)
    },
    isOver: () => isEnd(place) && !goesOn(place)
  }
}

/** @param size number of the model's logits */
export const makeGuards = (
  { readBytes, bytesOf }: Pick<OnnxTokenizer, "bytesOf" | "readBytes">,
  size: number,
  endTokens: ReadonlySet<number>
): Guards => {
  const none = new Uint8Array()
  const read = async (): Promise<Vocabulary> => {
    const work = build(size, (token) => endTokens.has(token) ? none : readBytes(token))
    while (true) {
      const { done, value } = work.next()
      if (done === true) return makeVocabulary({ size, trie: value, endTokens, bytesOf })
      await setImmediate()
    }
  }
  let vocabulary: Promise<Vocabulary> | undefined
  /** Least recently used first. */
  const kept = new Map<string, TokenMasks>()
  return {
    async guardFor(key, grammar) {
      const known = kept.get(key)
      kept.delete(key)
      const masks = known === undefined || known.wasFull
        ? new TokenMasks(grammar(), await (vocabulary ??= read()))
        : known
      kept.set(key, masks)
      if (kept.size > mostGrammars) kept.delete(kept.keys().next().value!)
      return guardOf(masks)
    }
  }
}
