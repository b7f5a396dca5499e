/**
 * Process entry: prints the CPU time of the tokens that a format allows, with a vocabulary of 151,000 tokens.
 *
 * **Details**
 *
 * Rows compare, in turns and in one process, the question for every token to the matcher with the walk through the vocabulary's
 * trie: at a place that is new to the grammar's masks, and over texts of a format as an `onnx` answer meets it when the model's
 * likeliest token never fits, with masks of earlier answers and without.
 */
import { grammarOf, makeMatcher } from "../src/workers/grammar/JsonGrammar.ts"
import { makeVocabulary, TokenMasks } from "../src/workers/grammar/TokenMask.ts"
import type { TokenTrie } from "../src/workers/grammar/TokenTrie.ts"
import { build } from "../src/workers/grammar/TokenTrie.ts"
import { byteOfLetter } from "../src/workers/job/TextJoiner.ts"
import { makeRandom } from "../src/workers/model/Sampler.ts"
import { median } from "./Statistics.ts"
import * as Vocabularies from "./Vocabularies.ts"

const size = 151_000
const rounds = 3

const tokens = Vocabularies.make(size, makeRandom(size)).map((word) =>
  Uint8Array.from(word, (letter) => byteOfLetter.get(letter)!)
)
const bytesOf = (token: number): Uint8Array => tokens[token]!

const cpuOf = (work: () => unknown): number => {
  const began = process.cpuUsage()
  work()
  const { system, user } = process.cpuUsage(began)
  return (system + user) / 1_000
}

const buildTrie = (): { readonly slices: ReadonlyArray<number>; readonly trie: TokenTrie } => {
  const work = build(size, bytesOf)
  const slices: Array<number> = []
  let trie: TokenTrie | undefined
  while (trie === undefined) {
    slices.push(cpuOf(() => {
      const { done, value } = work.next()
      if (done === true) trie = value
    }))
  }
  return { slices, trie }
}

const builds = Array.from({ length: 5 }, buildTrie)
const { trie } = builds[0]!
const bytesIn = (parts: object): number =>
  Object.values(parts).reduce((total, part) => total + (ArrayBuffer.isView(part) ? part.byteLength : 0), 0)
const memory = [trie, ...trie.groups].reduce((total, parts) => total + bytesIn(parts), 0)
const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((total, one) => total + one, 0)
console.log(
  `trie: ${(memory / 1e6).toFixed(1)} MB; build ${median(builds.map(({ slices }) => sum(slices))).toFixed(0)} ms, ` +
    `longest slice ${median(builds.map(({ slices }) => Math.max(...slices))).toFixed(0)} ms`
)

const vocabulary = makeVocabulary({ size, trie, endTokens: new Set<number>(), bytesOf })

/** Formats with a text, in pieces as long as tokens. */
const formats: ReadonlyArray<readonly [what: string, schema: Readonly<Record<string, unknown>>, text: string]> = [
  [
    "object",
    { type: "object", properties: { name: { type: "string" }, age: { type: "integer" } }, required: ["name", "age"] },
    "{\"name\": \"The old man and the sea, a novel\", \"age\": 127}"
  ],
  ["string of at most 40", { type: "string", maxLength: 40 }, "\"The old man and the sea, a novel\""],
  ["list of numbers", { type: "array", items: { type: "number" } }, "[1.25, 3e10, -17, 0, 12, 99999, 0.001]"],
  [
    "pattern",
    { type: "string", pattern: "^[a-z]{2,20}@[a-z]{2,10}\\.(com|org)$" },
    "\"hemingway@example.com\""
  ]
]

const piecesOf = (text: string): ReadonlyArray<Uint8Array> =>
  (text.match(/.{1,3}/g) ?? []).map((piece) => Buffer.from(piece))

for (const [what, schema, text] of formats) {
  const grammar = grammarOf({ type: "json_schema", schema })
  const pieces = piecesOf(text)
  const asked = () => {
    const matcher = makeMatcher(grammar)
    for (const piece of pieces) {
      for (const token of tokens) matcher.allows(token)
      matcher.push(piece)
    }
  }
  const walked = (masks: TokenMasks) => {
    let place = masks.start
    for (const piece of pieces) {
      masks.maskOf(place)
      place = masks.afterBytes(place, piece)
    }
  }
  const kept = new TokenMasks(grammar, vocabulary)
  walked(kept)
  const costs = Array.from({ length: rounds }, () => [
    cpuOf(asked),
    cpuOf(() => walked(new TokenMasks(grammar, vocabulary))),
    cpuOf(() => walked(kept))
  ])
  const of = (index: number): string => (median(costs.map((row) => row[index]!)) / pieces.length).toFixed(3).padStart(9)
  console.log(`${what.padEnd(22)} all tokens asked ${of(0)}, new format ${of(1)}, kept masks ${of(2)} ms/token`)
}
