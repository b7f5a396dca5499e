import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { lastWordsOf } from "../../../src/domain/Generation.ts"
import type { Reading } from "../../../src/services/inference/Continuation.ts"
import { Continuation, prefixOf } from "../../../src/services/inference/Continuation.ts"
import { repetitions } from "../../support/Repetitions.ts"

/** What the caller has in the end; undefined if the text diverges. */
const joined = (sent: string, said: ReadonlyArray<string>, reading: Reading): string | undefined => {
  const continuation = new Continuation(sent, reading)
  let text = sent
  for (const piece of said) text += continuation.push(piece)
  text += continuation.end()
  return continuation.hasDiverged ? undefined : text
}

describe("a text that continues what was sent", () => {
  const cases: ReadonlyArray<readonly [how: string, reading: Reading, sent: string, said: string, all?: string]> = [
    ["goes on", "exact", "The capital", " of Japan", "The capital of Japan"],
    ["goes on within a word", "exact", "The cap", "ital", "The capital"],
    ["generates the white space again", "exact", "One.\n\n", "\n\nTwo", "One.\n\nTwo"],
    ["completes half a character", "exact", "Hi \ud83d", " \ud83d\ude00!", "Hi \ud83d\ude00!"],
    ["leaves half a character alone", "exact", "Hi \ud83d", " there"],
    ["goes on within a word", "prefix", "The cap", "ital", "The capital"],
    [
      "starts over",
      "prefix",
      "The capital of Japan",
      "The capital of Japan is Tokyo.",
      "The capital of Japan is Tokyo."
    ],
    [
      "repeats a sentence after a space",
      "prefix",
      "All work and no play.",
      " All work and no play.",
      "All work and no play. All work and no play."
    ],
    ["may start over or repeat a short text", "prefix", "ha", "haha"],
    ["starts over and ends before the end", "prefix", "The capital of Japan is", "The capital of Japan"],
    ["starts over", "instructed", "The capital", "The capital of Japan is Tokyo.", "The capital of Japan is Tokyo."],
    [
      "starts over with other white space",
      "instructed",
      "The\ncapital ",
      "The capital  of Japan",
      "The\ncapital  of Japan"
    ],
    [
      "repeats the last words",
      "instructed",
      "It is known that the capital of Japan",
      "the capital of Japan is Tokyo.",
      "It is known that the capital of Japan is Tokyo."
    ],
    [
      "repeats them after a space was sent",
      "instructed",
      "It is known that the capital of ",
      "the capital of Japan",
      "It is known that the capital of Japan"
    ],
    [
      "repeats them and omits the space",
      "instructed",
      "It is known that the capital of ",
      "the capital ofJapan",
      "It is known that the capital of Japan"
    ],
    [
      "starts over after line breaks",
      "instructed",
      "The capital of Japan is a city",
      "\n\nThe capital of Japan is a city in the east.",
      "The capital of Japan is a city in the east."
    ],
    ["may start over or repeat a short text after line breaks", "instructed", "Hello", "\nHello world"],
    ["goes on after a space", "instructed", "The capital", " of Japan", "The capital of Japan"],
    ["goes on with a comma", "instructed", "Hello", ", world", "Hello, world"],
    ["repeats one word", "instructed", "The quick brown", "brown fox"],
    ["repeats one word after a space", "instructed", "The quick brown", " brown fox"],
    ["is another text", "instructed", "The capital of Japan", "Tokyo is the capital of Japan."],
    [
      "begins as what was sent, and differs",
      "instructed",
      "The capital of Japan is",
      "The capital of France is Paris."
    ],
    [
      "begins and ends as what was sent, and differs",
      "instructed",
      "the capital of Japan and the capital of Japan",
      "the capital of Japan is Tokyo."
    ],
    ["has nothing to add", "instructed", "The capital of Japan is Tokyo.", "", "The capital of Japan is Tokyo."],
    ["ends before it has repeated all", "instructed", "The capital of Japan is", "The capital of"]
  ]
  for (const [how, reading, sent, said, all] of cases) {
    it(`${all === undefined ? "diverges" : "is joined"} where it ${how} (${reading}): ${JSON.stringify(said)}`, () => {
      assert.strictEqual(joined(sent, [said], reading), all)
      assert.strictEqual(joined(sent, said.split(""), reading), all)
    })
  }

  it("is the same in any pieces where a period begins it", () => {
    for (
      const [said, all] of [[".a", undefined], [". It is", "Tokyo. It is"], [".", "Tokyo."], [
        ".\n",
        "Tokyo.\n"
      ]] as const
    ) {
      assert.strictEqual(joined("Tokyo", [said], "instructed"), all)
      assert.strictEqual(joined("Tokyo", said.split(""), "instructed"), all)
    }
  })

  it("tells whether it is the whole answer", () => {
    const continuation = new Continuation("The capital of Japan", "instructed")
    assert.strictEqual(continuation.push("The capital of"), "")
    assert.isTrue(continuation.isDeciding)
    assert.strictEqual(continuation.push(" Japan is"), " is")
    assert.isTrue(continuation.startsOver)
    assert.strictEqual(continuation.push(" Tokyo."), " Tokyo.")
  })
})

describe("the last words of a text", () => {
  it("are the whole of a short text, and begin with a word in a long one", () => {
    assert.strictEqual(lastWordsOf("The capital"), "The capital")
    assert.strictEqual(
      lastWordsOf("It has been known for a long time that the capital of Japan is the city of Tokyo"),
      "that the capital of Japan is the city of Tokyo"
    )
    assert.strictEqual(lastWordsOf("あ".repeat(100)), "あ".repeat(48))
  })
})

const word = fc.oneof(
  fc.constantFrom(
    "a",
    "b",
    "ha",
    "the",
    "The",
    "capital",
    "of",
    "Japan",
    "is",
    "Tokyo.",
    "東京",
    "😀",
    "👩‍👩‍👧",
    "1",
    "11"
  ),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 8 })
)
const space = fc.constantFrom(" ", " ", " ", "\n", "\n\n", "  ", "")
const answer = fc.array(fc.tuple(word, space), { minLength: 1, maxLength: 40 })
  .map((parts) => parts.flat().join("").trim()).filter((text) => text !== "")

/** A text in pieces of any length, also within a character. */
const pieces = fc.array(fc.nat(9), { minLength: 1, maxLength: 20 })
const cutBy = (text: string, lengths: ReadonlyArray<number>): ReadonlyArray<string> => {
  const out: Array<string> = []
  let from = 0
  for (let index = 0; from < text.length; index++) {
    const length = 1 + lengths[index % lengths.length]!
    out.push(text.slice(from, from + length))
    from += length
  }
  return out
}

/** An answer that was cut anywhere. */
const cutAnswer = fc.tuple(answer, fc.double({ min: 0, max: 1, noNaN: true })).map(([text, share]) => {
  const sent = text.slice(0, Math.max(1, Math.round(share * text.length)))
  return { text, sent }
})

const solidOf = (text: string): string => text.replaceAll(/\s+/gu, "")
const runs = { numRuns: repetitions(400, 2_000) }

const check = (
  how: string,
  reading: Reading,
  saidOf: (text: string, sent: string) => string,
  isTrue: (found: string, text: string, sent: string, said: string) => boolean
) =>
  it(`${how} (${reading}): is a true answer or diverges, in any pieces`, () => {
    let joins = 0
    fc.assert(
      fc.property(cutAnswer, pieces, ({ sent, text }, lengths) => {
        const said = saidOf(text, sent)
        const found = joined(sent, cutBy(said, lengths), reading)
        assert.strictEqual(found, joined(sent, [said], reading))
        if (found === undefined) return
        joins++
        assert.isTrue(isTrue(found, text, sent, said), JSON.stringify({ sent, said, found }))
      }),
      runs
    )
    assert.isAbove(joins, 0)
  })

const isAnswer = (found: string, text: string): boolean => found === text
const isAnswerButForSpace = (found: string, text: string, sent: string): boolean =>
  found.startsWith(sent) && solidOf(found) === solidOf(text)

/** Whether a text begins as an answer does: a continuation may begin with a comma. */
const isBegin = (text: string): boolean => /^[\p{L}\p{N}"*#]/u.test(text)

describe("any answer that was cut anywhere", () => {
  const rest = (text: string, sent: string): string => text.slice(prefixOf(sent).length)
  check("goes on", "exact", rest, isAnswer)
  check("goes on", "prefix", rest, isAnswer)
  // A model that repeats nothing, though it was asked to, and whose text begins as the answer does, seems to start over.
  check(
    "goes on",
    "instructed",
    rest,
    (found, text, sent, said) => found === text || (found === said && said.startsWith(sent))
  )
  check("starts over", "prefix", (text) => text, isAnswer)
  check("starts over", "instructed", (text) => text, isAnswer)
  check("repeats the last words", "instructed", (text, sent) => {
    const prefix = prefixOf(sent)
    return lastWordsOf(prefix) + text.slice(prefix.length)
  }, isAnswer)
  check(
    "starts over with other white space",
    "instructed",
    (text) => text.replaceAll(/\s+/gu, "\n "),
    isAnswerButForSpace
  )

  it("goes on exactly where the engine reads its own text", () => {
    fc.assert(
      fc.property(cutAnswer, pieces, ({ sent, text }, lengths) => {
        assert.strictEqual(joined(sent, cutBy(rest(text, sent), lengths), "exact"), text)
      }),
      runs
    )
  })

  it("is never mixed with another answer of an instructed model", () => {
    let mixed: string | undefined
    fc.assert(
      fc.property(cutAnswer, answer.filter(isBegin), pieces, ({ sent }, other, lengths) => {
        const found = joined(sent, cutBy(other, lengths), "instructed")
        if (found !== undefined && solidOf(found) !== solidOf(other)) mixed = JSON.stringify({ sent, other, found })
        return mixed === undefined
      }),
      runs
    )
    assert.isUndefined(mixed)
  })
})
