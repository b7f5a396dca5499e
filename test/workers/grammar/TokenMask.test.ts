import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Vocabularies from "../../../bench/Vocabularies.ts"
import { goesOn, isEnd } from "../../../src/workers/grammar/ByteAutomaton.ts"
import type { CodeRange, Grammar, GrammarSymbol } from "../../../src/workers/grammar/Grammar.ts"
import { checkGrammar } from "../../../src/workers/grammar/GrammarCheck.ts"
import { grammarOf, makeMatcher } from "../../../src/workers/grammar/JsonGrammar.ts"
import { groupCodes } from "../../../src/workers/grammar/TokenGroups.ts"
import { makeVocabulary, TokenMasks } from "../../../src/workers/grammar/TokenMask.ts"
import { build } from "../../../src/workers/grammar/TokenTrie.ts"
import { byteOfLetter } from "../../../src/workers/job/TextJoiner.ts"
import { makeRandom } from "../../../src/workers/model/Sampler.ts"

type Tokens = ReadonlyArray<Uint8Array>

const endTokens = new Set([1])

const trieOf = (tokens: Tokens) => {
  const work = build(tokens.length, (token) => endTokens.has(token) ? new Uint8Array() : tokens[token]!)
  while (true) {
    const { done, value } = work.next()
    if (done === true) return value
  }
}

const vocabularyOf = (tokens: Tokens) =>
  makeVocabulary({
    size: tokens.length,
    trie: trieOf(tokens),
    endTokens,
    bytesOf: (token: number) => tokens[token]!
  })

const tokensOf = (mask: Uint32Array, size: number): ReadonlyArray<number> =>
  Array.from({ length: size }, (_, token) => token).filter((token) => (mask[token >>> 5]! >>> (token & 31) & 1) === 1)

/** Compares the mask with the matcher's answers for all tokens, after every token of a random text; returns its tokens. */
const compare = (
  grammar: Grammar,
  vocabulary: ReturnType<typeof vocabularyOf>,
  random: () => number,
  limits?: { readonly places: number; readonly masks: number }
): number => {
  const { bytesOf, size } = vocabulary
  const masks = new TokenMasks(grammar, vocabulary, limits)
  const matcher = makeMatcher(grammar)
  let place = masks.start
  let step = 0
  for (; step < 8; step++) {
    assert.deepStrictEqual([isEnd(place), goesOn(place)], [matcher.isComplete(), matcher.canContinue()])
    const expected = Array.from({ length: size }, (_, token) => token).filter((token) =>
      endTokens.has(token) ? matcher.isComplete() : bytesOf(token).length > 0 && matcher.allows(bytesOf(token))
    )
    const mask = masks.maskOf(place)
    assert.deepStrictEqual(tokensOf(mask, size), expected)
    assert.deepStrictEqual(
      tokensOf(masks.maskWithoutEnd(place), size),
      expected.filter((token) => !endTokens.has(token))
    )
    const asked = limits === undefined ? [] : Array.from({ length: 20 }, () => Math.floor(random() * size))
    for (const token of asked) assert.strictEqual(masks.allows(place, token), expected.includes(token))
    const texts = expected.filter((token) => !endTokens.has(token))
    const token = texts[Math.floor(random() * texts.length)]
    if (token === undefined) return step
    place = masks.after(place, token)
    matcher.push(bytesOf(token))
  }
  return step
}

const codes = [
  "a",
  "b",
  "z",
  "Z",
  "7",
  " ",
  "\"",
  "\\",
  "\n",
  "\x7f",
  "é",
  "ࠀ",
  "世",
  "\ud7ff",
  "\ue000",
  "😀",
  "\u{10ffff}"
]
  .map((char) => char.codePointAt(0)!)

const plain: ReadonlyArray<CodeRange> = [[0x20, 0x21], [0x23, 0x5b], [0x5d, 0xd7ff], [0xe000, 0x10ffff]]

const ranges: fc.Arbitrary<ReadonlyArray<CodeRange>> = fc.oneof(
  fc.array(
    fc.tuple(fc.constantFrom(...codes), fc.constantFrom(...codes)).map(([a, b]): CodeRange => [
      Math.min(a, b),
      Math.max(a, b)
    ]),
    { minLength: 1, maxLength: 3 }
  ),
  fc.constantFrom(plain, ...groupCodes)
)

const read: fc.Arbitrary<GrammarSymbol> = fc.oneof(
  ranges.map((chars) => ({ chars })),
  fc.constantFrom(...codes).map((code) => ({ text: String.fromCodePoint(code) }))
)

const rules = 4

/** Whether the product accepts a grammar: the parses of others multiply with each character, also for the matcher. */
const isLimited = (grammar: Grammar): boolean => {
  try {
    checkGrammar(grammar, "grammar")
    return true
  } catch {
    return false
  }
}

/** Rules that are not left-recursive: each alternative reads first or begins with a later rule; some match nothing. */
const grammars: fc.Arbitrary<Grammar> = fc.tuple(...Array.from({ length: rules }, (_, index) => {
  const later = Array.from({ length: rules - 1 - index }, (_, after) => ({ rule: index + 1 + after }))
  const first = fc.oneof(read, ...later.map((symbol) => fc.constant(symbol)))
  const rest = fc.array(fc.oneof(read, fc.nat(rules - 1).map((rule) => ({ rule }))), { maxLength: 3 })
  const laterOnly = fc.array(fc.oneof(read, ...later.map((symbol) => fc.constant(symbol))), { maxLength: 3 })
  const sequence = fc.oneof(
    fc.tuple(read, rest).map(([one, others]) => [one, ...others]),
    fc.tuple(first, laterOnly).map(([one, others]) => [one, ...others]),
    fc.constant([])
  )
  return fc.array(sequence, { minLength: index === 0 ? 1 : 0, maxLength: 3 })
    .map((alternatives) => ({ name: `r${index}`, alternatives }))
})).map((rules) => ({ rules })).filter(isLimited)

/** Tokens that cut characters anywhere, and bytes that are not UTF-8. */
const vocabularies = fc.array(
  fc.oneof(
    fc.uint8Array({ maxLength: 3 }),
    fc.tuple(fc.array(fc.constantFrom(...codes), { minLength: 1, maxLength: 4 }), fc.nat(4), fc.nat(4))
      .map(([text, from, drop]) => {
        const bytes = Buffer.from(String.fromCodePoint(...text))
        return new Uint8Array(bytes.subarray(from % bytes.length, Math.max(1, bytes.length - drop)))
      })
  ),
  { minLength: 40, maxLength: 120 }
)

const schemas: ReadonlyArray<Readonly<Record<string, unknown>>> = [
  { type: "object", properties: { name: { type: "string" }, age: { type: "integer" } }, required: ["name"] },
  { type: "array", items: { type: "string", maxLength: 7 } },
  { type: "string", pattern: "^[a-z]{2,8}(ä|日本)?$" },
  { enum: ["the", "there", 12, 1.5, null] },
  {}
]

describe("TokenMasks", () => {
  it("allows the tokens that the matcher allows, at every step of any grammar and vocabulary", () => {
    fc.assert(
      fc.property(grammars, vocabularies, fc.nat(), fc.boolean(), (grammar, tokens, seed, isSmall) => {
        const limits = isSmall ? { places: 4, masks: 1 } : undefined
        assert.isAtLeast(compare(grammar, vocabularyOf(tokens), makeRandom(seed), limits), 0)
      }),
      { numRuns: 200 }
    )
  })

  it("allows the tokens that the matcher allows, in formats with a vocabulary of words", () => {
    const random = makeRandom(3)
    const words = Vocabularies.make(1_500, random).map((word) =>
      Uint8Array.from(word, (letter) => byteOfLetter.get(letter)!)
    )
    const vocabulary = vocabularyOf(words)
    for (const schema of schemas) {
      const grammar = grammarOf({ type: "json_schema", schema })
      for (let text = 0; text < 4; text++) assert.isAbove(compare(grammar, vocabulary, random), 1)
    }
  })

  it("remains within its limits, and reports it", () => {
    const tokens = Array.from({ length: 96 }, (_, at) => Uint8Array.of(at + 32))
    const grammar = grammarOf({ type: "json_schema", schema: { type: "string", minLength: 30, maxLength: 40 } })
    const masks = new TokenMasks(grammar, vocabularyOf(tokens), { places: 6, masks: 2 })
    const start = masks.start
    const first = masks.maskOf(start)
    assert.strictEqual(masks.maskOf(start), first)
    assert.isFalse(masks.wasFull)
    let place = masks.after(start, 2)
    for (let length = 0; length < 12; length++) {
      masks.maskOf(place)
      place = masks.after(place, 65)
    }
    assert.isTrue(masks.wasFull)
    assert.notStrictEqual(masks.maskOf(start), first)
    assert.deepStrictEqual(masks.maskOf(start), first)
  })
})

describe("build", () => {
  it("holds every token once, by its bytes, and skips subtrees", () => {
    fc.assert(
      fc.property(vocabularies, (tokens) => {
        const { bytes, depths, longest, skip, starts, tokens: ordered } = trieOf(tokens)
        const found = new Map<number, string>()
        const path: Array<number> = []
        for (const [node, byte] of bytes.entries()) {
          path.length = depths[node]!
          path.push(byte)
          for (let at = starts[node]!; at < starts[node + 1]!; at++) found.set(ordered[at]!, path.join())
          const end = depths.findIndex((depth, at) => at > node && depth <= depths[node]!)
          assert.strictEqual(skip[node], end < 0 ? bytes.length : end)
        }
        const expected = [...tokens.entries()].filter(([token, text]) => !endTokens.has(token) && text.length > 0)
        assert.deepStrictEqual(found, new Map(expected.map(([token, text]) => [token, text.join()])))
        assert.strictEqual(longest, Math.max(...expected.map(([, text]) => text.length)))
      }),
      { numRuns: 30 }
    )
  })
})
