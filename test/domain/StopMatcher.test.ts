import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { makeStopMatcher } from "../../src/domain/StopMatcher.ts"

interface Outcome {
  readonly text: string
  readonly stopped: boolean
}

/** The pieces up to the one that stops, and the flush where none does. */
const run = (pieces: ReadonlyArray<string>, stops: ReadonlyArray<string>): Outcome => {
  const matcher = makeStopMatcher(stops)
  let out = ""
  for (const piece of pieces) {
    const { stopped, text } = matcher.push(piece)
    out += text
    if (stopped) return { text: out, stopped }
  }
  return { text: out + matcher.flush(), stopped: false }
}

/** What each push gives, and at last what flush gives. */
const trace = (pieces: ReadonlyArray<string>, stops: ReadonlyArray<string>): ReadonlyArray<string> => {
  const matcher = makeStopMatcher(stops)
  return [...pieces.map((piece) => matcher.push(piece).text), matcher.flush()]
}

/** What the matcher promises, said in another way: the shortest beginning that ends with a stop, less the longest. */
const expected = (text: string, stops: ReadonlyArray<string>): Outcome => {
  const byLength = stops.filter((stop) => stop !== "").sort((a, b) => b.length - a.length)
  for (let end = 1; end <= text.length; end++) {
    const found = byLength.find((stop) => text.slice(0, end).endsWith(stop))
    if (found !== undefined) return { text: text.slice(0, end - found.length), stopped: true }
  }
  return { text, stopped: false }
}

const cut = (text: string, lengths: ReadonlyArray<number>): ReadonlyArray<string> => {
  const pieces: Array<string> = []
  for (let at = 0, index = 0; at < text.length; index++) {
    const length = lengths[index % lengths.length]!
    pieces.push(text.slice(at, at + length))
    at += Math.max(length, 0)
  }
  return pieces
}

const check = <A>(property: fc.IProperty<A>) => fc.assert(property, { numRuns: 1000 })

/** Few letters, so that stops are met, half met and overlap. */
const unit = fc.oneof({ weight: 5, arbitrary: fc.constantFrom("a", "b") }, fc.constantFrom("\n", "😀"))
const texts = fc.oneof(
  { weight: 5, arbitrary: fc.string({ unit, maxLength: 30 }) },
  fc.string({ unit: "binary" })
)
const stopLists = fc.array(
  fc.oneof({ weight: 5, arbitrary: fc.string({ unit, maxLength: 5 }) }, fc.string({ unit: "binary", maxLength: 3 })),
  { maxLength: 4 }
)
const lengths = fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1 })

describe("StopMatcher", () => {
  it("gives the same for every way of cutting the text", () => {
    check(fc.property(texts, stopLists, lengths, (text, stops, lengths) => {
      const pieces = cut(text, lengths)
      assert.deepStrictEqual(run(pieces, stops), run(text.split(""), stops))
      assert.deepStrictEqual(run(pieces, stops), run([text], stops))
    }))
  })

  it("ends the text before the sequence that is complete first", () => {
    check(fc.property(texts, stopLists, lengths, (text, stops, lengths) => {
      assert.deepStrictEqual(run(cut(text, lengths), stops), expected(text, stops))
    }))
  })

  it("never gives a text that contains a stop sequence", () => {
    check(fc.property(texts, stopLists, lengths, (text, stops, lengths) => {
      const out = run(cut(text, lengths), stops).text
      assert.deepStrictEqual(stops.filter((stop) => stop !== "" && out.includes(stop)), [])
    }))
  })

  it("without a match, gives the whole text", () => {
    const stops = stopLists.map((stops) => stops.map((stop) => `${stop}|`))
    check(fc.property(texts.filter((text) => !text.includes("|")), stops, lengths, (text, stops, lengths) => {
      assert.deepStrictEqual(run(cut(text, lengths), stops), { text, stopped: false })
    }))
  })

  it("holds back the beginning of a stop sequence and nothing else", () => {
    const cases = fc.tuple(texts, stopLists).filter(([text, stops]) => !expected(text, stops).stopped)
    check(fc.property(cases, lengths, ([text, stops], lengths) => {
      const matcher = makeStopMatcher(stops)
      let given = ""
      let taken = ""
      for (const piece of cut(text, lengths)) {
        given += matcher.push(piece).text
        taken += piece
        const endings = taken.split("").map((_, at) => taken.slice(at))
        const longest = endings.find((ending) => stops.some((stop) => stop.startsWith(ending))) ?? ""
        assert.strictEqual(taken.slice(given.length), longest)
      }
    }))
  })

  it("continues an earlier text as if it had emitted that text itself", () => {
    const cutAt = fc.tuple(texts, stopLists, fc.nat(), lengths)
    check(fc.property(cutAt, ([text, stops, at, lengths]) => {
      const whole = run([text], stops).text
      // An emitted text contains no stop sequence.
      const earlier = whole.slice(0, at % (whole.length + 1))
      const matcher = makeStopMatcher(stops, earlier)
      let out = earlier
      let stopped = false
      for (const piece of cut(text.slice(earlier.length), lengths)) {
        const next = matcher.push(piece)
        out += next.text
        stopped = next.stopped
        if (stopped) break
      }
      assert.strictEqual(stopped ? out : out + matcher.flush(), whole)
    }))
  })

  it("removes nothing of an earlier text in which a sequence begins", () => {
    const matcher = makeStopMatcher(["<|end|>"], "a <|e")
    assert.deepStrictEqual(matcher.push("nd"), { text: "", stopped: false })
    assert.deepStrictEqual(matcher.push("|> more"), { text: "", stopped: true, sequence: "<|end|>" })
    assert.strictEqual(makeStopMatcher(["<|end|>"], "a <|e").push("xit").text, "xit")
  })

  it("ignores a sequence that is complete in an earlier text", () => {
    assert.deepStrictEqual(makeStopMatcher(["\n", "END"], "one\n").push("two"), { text: "two", stopped: false })
    check(fc.property(texts, texts, stopLists, lengths, (earlier, text, stops, lengths) => {
      const ends = (stop: string) => {
        const at = `${earlier}${text}`.indexOf(stop, earlier.length + 1 - stop.length)
        return at < 0 ? [] : [{ at, end: at + stop.length }]
      }
      const [first] = stops.filter((stop) => stop !== "").flatMap(ends).sort((a, b) => a.end - b.end || a.at - b.at)
      const matcher = makeStopMatcher(stops, earlier)
      const found = cut(text, lengths).map((piece) => matcher.push(piece))
      const said = found.slice(0, found.findIndex(({ stopped }) => stopped) + 1 || found.length)
      const rest = first === undefined ? matcher.flush() : ""
      assert.strictEqual(
        said.map(({ text }) => text).join("") + rest,
        text.slice(0, first === undefined ? text.length : Math.max(0, first.at - earlier.length))
      )
    }))
  })

  it("finds a stop sequence that spans pieces", () => {
    assert.deepStrictEqual(run(["Hello <", "|en", "d|> and more"], ["<|end|>"]), { text: "Hello ", stopped: true })
  })

  it("releases a prefix that becomes nothing", () => {
    assert.deepStrictEqual(trace(["a <|", "en", "ough", "!"], ["<|end|>"]), ["a ", "", "<|enough", "!", ""])
  })

  it("flushes a prefix that the text ends with", () => {
    assert.deepStrictEqual(trace(["a <|", "end"], ["<|end|>"]), ["a ", "", "<|end"])
  })

  it("flushes nothing twice", () => {
    const matcher = makeStopMatcher(["ab"])
    matcher.push("a")
    assert.strictEqual(matcher.flush(), "a")
    assert.strictEqual(matcher.flush(), "")
  })

  it("says which stop sequence it was", () => {
    check(fc.property(texts, stopLists, (text, stops) => {
      const { sequence, stopped, text: before } = makeStopMatcher(stops).push(text)
      assert.strictEqual(sequence !== undefined, stopped)
      if (sequence !== undefined) assert.isTrue(stops.includes(sequence) && text.startsWith(before + sequence))
    }))
  })

  it("finds a stop sequence that begins within a beginning of itself", () => {
    assert.deepStrictEqual(run(["aa", "a", "ab"], ["aab"]), { text: "aa", stopped: true })
  })

  it("of two sequences, the one that is complete first decides", () => {
    assert.deepStrictEqual(run(["abcd"], ["abcd", "bc"]), { text: "a", stopped: true })
    assert.deepStrictEqual(run(["a", "b", "c", "d"], ["abcd", "bc"]), { text: "a", stopped: true })
  })

  it("of two sequences complete at once, the one that began first decides", () => {
    assert.deepStrictEqual(run(["xabc"], ["bc", "abc"]), { text: "x", stopped: true })
    assert.deepStrictEqual(run(["x", "a", "b", "c"], ["bc", "abc"]), { text: "x", stopped: true })
  })

  it("ends before the first of several occurrences", () => {
    assert.deepStrictEqual(run(["one\ntwo\nthree"], ["\n"]), { text: "one", stopped: true })
  })

  it("emits an empty text if a stop sequence comes first", () => {
    assert.deepStrictEqual(run(["\n", "text"], ["\n"]), { text: "", stopped: true })
  })

  it("emits every piece at once without stop sequences", () => {
    assert.deepStrictEqual(trace(["a", "", "b"], []), ["a", "", "b", ""])
  })

  it("ignores empty stop sequences", () => {
    assert.deepStrictEqual(trace(["a", "b"], ["", ""]), ["a", "b", ""])
    assert.deepStrictEqual(run(["a", "bc"], ["", "b"]), { text: "a", stopped: true })
  })
})
