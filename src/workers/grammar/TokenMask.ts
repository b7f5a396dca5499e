/**
 * Which tokens of a vocabulary can follow in a text of a grammar.
 *
 * **Details**
 *
 * A walk through the vocabulary's trie follows the grammar's automaton and leaves a subtree at the first byte that is not
 * allowed, or where all its tokens are. Masks are kept by place: texts return to the same places, as within a string.
 */
import type { Place } from "./ByteAutomaton.ts"
import { ByteAutomaton, dead, goesOn, isEnd } from "./ByteAutomaton.ts"
import type { Grammar } from "./Grammar.ts"
import { makeReader } from "./GrammarParses.ts"
import type { TokenTrie } from "./TokenTrie.ts"

/** A vocabulary for masks. */
export interface Vocabulary {
  /** Ids are below this. */
  readonly size: number
  readonly trie: TokenTrie
  /** The mask of all tokens of the trie. */
  readonly all: Uint32Array
  /** Tokens that end an answer; the trie leaves them out. */
  readonly endTokens: ReadonlySet<number>
  /** The bytes of a token. */
  readonly bytesOf: (token: number) => Uint8Array
}

const wordsOf = (size: number): number => Math.ceil(size / 32)

/** Sets or clears the bits of the tokens in some ranges of them. */
const fill = (mask: Uint32Array, tokens: Int32Array, ranges: ReadonlyArray<number>, isAllowed: boolean): void => {
  for (let range = 0; range < ranges.length; range += 2) {
    for (let at = ranges[range]!; at < ranges[range + 1]!; at++) {
      const token = tokens[at]!
      if (isAllowed) mask[token >>> 5]! |= 1 << (token & 31)
      else mask[token >>> 5]! &= ~(1 << (token & 31))
    }
  }
}

/** A vocabulary of a trie. */
export const makeVocabulary = (given: Omit<Vocabulary, "all">): Vocabulary => {
  const all = new Uint32Array(wordsOf(given.size))
  fill(all, given.trie.tokens, [0, given.trie.tokens.length], true)
  return { ...given, all }
}

/** Bytes of one grammar's masks. */
const mostMaskBytes = 4 * 1024 ** 2

/** The masks of one grammar, for any number of texts. */
export class TokenMasks {
  readonly #automaton: ByteAutomaton
  readonly #vocabulary: Vocabulary
  readonly #mostMasks: number
  /** Least recently used first. */
  readonly #masks = new Map<string, Uint32Array>()
  readonly #path: Int32Array
  #wasFull = false

  constructor(
    grammar: Grammar,
    vocabulary: Vocabulary,
    limits: { readonly places?: number; readonly masks?: number } = {}
  ) {
    this.#automaton = new ByteAutomaton(makeReader(grammar), limits.places)
    this.#vocabulary = vocabulary
    this.#mostMasks = limits.masks ?? Math.max(1, Math.floor(mostMaskBytes / (4 * wordsOf(vocabulary.size))))
    this.#path = new Int32Array(vocabulary.trie.longest + 1)
  }

  get start(): Place {
    return this.#automaton.start
  }

  /** Whether it reached its limit of memory, so that new texts should begin with another. */
  get wasFull(): boolean {
    return this.#wasFull
  }

  /** The place after a token. */
  after(place: Place, token: number): Place {
    return this.afterBytes(place, this.#vocabulary.bytesOf(token))
  }

  /** The place after a part of a text. */
  afterBytes(place: Place, bytes: Uint8Array): Place {
    this.#wasFull ||= this.#automaton.isFull
    return this.#automaton.after(place, bytes)
  }

  /** Whether a token can follow. */
  allows(place: Place, token: number): boolean {
    const { bytesOf, endTokens } = this.#vocabulary
    if (endTokens.has(token)) return isEnd(place)
    if (bytesOf(token).length === 0) return false
    const after = this.after(place, token)
    return goesOn(after) || isEnd(after)
  }

  /** Bit `token % 32` of number `floor(token / 32)` is 1 if the token can follow. Do not change it. */
  maskOf(place: Place): Uint32Array {
    const known = this.#masks.get(place.key)
    if (known !== undefined) {
      this.#masks.delete(place.key)
      this.#masks.set(place.key, known)
      return known
    }
    const mask = this.#compute(place)
    if (this.#masks.size >= this.#mostMasks) this.#masks.delete(this.#masks.keys().next().value!)
    this.#masks.set(place.key, mask)
    return mask
  }

  /** As `maskOf`, without the tokens that end an answer. */
  maskWithoutEnd(place: Place): Uint32Array {
    const mask = this.maskOf(place).slice()
    const { endTokens, size } = this.#vocabulary
    for (const token of endTokens) if (token < size) mask[token >>> 5]! &= ~(1 << (token & 31))
    return mask
  }

  #compute(place: Place): Uint32Array {
    const { all, endTokens, size, trie: { tokens } } = this.#vocabulary
    const ranges = this.#rangesAt(place)
    const count = ranges.reduce((sum, bound, at) => at % 2 === 0 ? sum - bound : sum + bound, 0)
    // Within a string, nearly all tokens are allowed: fewer bits are cleared than set.
    const isMost = count > tokens.length / 2
    const mask = isMost ? all.slice() : new Uint32Array(wordsOf(size))
    if (isMost) fill(mask, tokens, [0, ...ranges, tokens.length], false)
    else fill(mask, tokens, ranges, true)
    if (isEnd(place)) { for (const token of endTokens) if (token < size) mask[token >>> 5]! |= 1 << (token & 31) }
    return mask
  }

  /** The parts of the trie's tokens that are allowed: where each begins and ends, in order. */
  #rangesAt(place: Place): Array<number> {
    const { bytes, depths, heights, skip, starts } = this.#vocabulary.trie
    const automaton = this.#automaton
    const path = this.#path
    const ranges: Array<number> = []
    path[0] = automaton.numberOf(place)
    for (let node = 0; node < bytes.length;) {
      const depth = depths[node]!
      const next = automaton.step(path[depth]!, bytes[node]!)
      if (next === dead) {
        node = skip[node]!
        continue
      }
      path[depth + 1] = next
      if (next >= automaton.mostPlaces) {
        this.#wasFull = true
        automaton.clear(path.subarray(0, depth + 2))
      }
      const after = automaton.allowsPlain(path[depth + 1]!, heights[node]!) ? skip[node]! : node + 1
      if (ranges.at(-1) === starts[node]!) ranges.pop()
      else ranges.push(starts[node]!)
      ranges.push(starts[after]!)
      node = after
    }
    return ranges
  }
}
