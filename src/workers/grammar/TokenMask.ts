/**
 * Which tokens of a vocabulary can follow in a text of a grammar.
 *
 * **Details**
 *
 * A walk through the vocabulary's trie follows the grammar's automaton and leaves a subtree at the first byte that is not
 * allowed. A group of tokens (`TokenGroups`) is taken at once where any text of its characters can follow, as within a string.
 * Masks are kept by place: texts return to the same places.
 */
import type { Place } from "./ByteAutomaton.ts"
import { ByteAutomaton, dead, goesOn, isEnd } from "./ByteAutomaton.ts"
import type { Grammar } from "./Grammar.ts"
import { makeReader } from "./GrammarParses.ts"
import { groupCodes } from "./TokenGroups.ts"
import type { TokenTrie } from "./TokenTrie.ts"

/** A vocabulary for masks. */
export interface Vocabulary {
  /** Ids are below this. */
  readonly size: number
  readonly trie: TokenTrie
  /** The masks of the trie's groups. */
  readonly groups: ReadonlyArray<Uint32Array>
  /** Tokens that end an answer; the trie leaves them out. */
  readonly endTokens: ReadonlySet<number>
  /** The bytes of a token. */
  readonly bytesOf: (token: number) => Uint8Array
}

const wordsOf = (size: number): number => Math.ceil(size / 32)

const add = (mask: Uint32Array, tokens: Int32Array, from: number, to: number): void => {
  for (let at = from; at < to; at++) mask[tokens[at]! >>> 5]! |= 1 << (tokens[at]! & 31)
}

const unite = (mask: Uint32Array, other: Uint32Array): void => {
  for (let word = 0; word < mask.length; word++) mask[word]! |= other[word]!
}

/** A vocabulary of a trie. */
export const makeVocabulary = (given: Omit<Vocabulary, "groups">): Vocabulary => {
  const groups = given.trie.groups.map(({ byLength }) => {
    const mask = new Uint32Array(wordsOf(given.size))
    add(mask, byLength, 0, byLength.length)
    return mask
  })
  return { ...given, groups }
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
    const { endTokens, groups, size, trie } = this.#vocabulary
    const automaton = this.#automaton
    const mask = new Uint32Array(wordsOf(size))
    for (const [group, { byLength, counts, nodes: [from, to] }] of trie.groups.entries()) {
      if (from === to) continue
      if (automaton.isFull) this.#forget()
      const most = counts.length - 1
      const characters = group < groupCodes.length
        ? automaton.charactersAt(automaton.numberOf(place), group, most)
        : undefined
      if (characters === undefined) this.#walk(mask, place, from, to)
      else if (characters === most) unite(mask, groups[group]!)
      else add(mask, byLength, 0, counts[characters]!)
    }
    if (isEnd(place)) { for (const token of endTokens) if (token < size) mask[token >>> 5]! |= 1 << (token & 31) }
    return mask
  }

  #forget(): void {
    this.#wasFull = true
    this.#automaton.clear()
  }

  /** Adds the allowed tokens of some of the trie's nodes. */
  #walk(mask: Uint32Array, place: Place, from: number, to: number): void {
    const { bytes, depths, skip, starts, tokens } = this.#vocabulary.trie
    const automaton = this.#automaton
    const path = this.#path
    path[0] = automaton.numberOf(place)
    for (let node = from; node < to;) {
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
      add(mask, tokens, starts[node]!, starts[node + 1]!)
      node++
    }
  }
}
