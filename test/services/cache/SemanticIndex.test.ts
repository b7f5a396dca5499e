/** The questions of kept answers: which one is found, and the bounds of all. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import type { Question } from "../../../src/services/cache/SemanticIndex.ts"
import { normalized, SemanticIndex } from "../../../src/services/cache/SemanticIndex.ts"

const megabyte = 1_000_000
const bounds = { entries: 100, bytes: megabyte }
const settings = { threshold: 0.9, margin: 0.02 }
const minute = 60_000
const nothing = { entries: 0, bytes: 0, hits: 0, questions: [] }

/** The cosine of two is that of the difference of their angles. */
const question = (angle: number, more: Partial<Question> = {}): Question => ({
  model: "chat",
  tenant: "one",
  scope: "scope",
  words: Uint32Array.of(1),
  vector: Float32Array.of(Math.cos(angle), Math.sin(angle)),
  ...more
})

/** The angle to a question of this similarity. */
const at = Math.acos

const withIndex = <A>(program: (index: SemanticIndex) => Effect.Effect<A> | A, totalBytes = megabyte) =>
  Effect.gen(function*() {
    const result = program(new SemanticIndex(yield* Clock.Clock, totalBytes))
    return Effect.isEffect(result) ? yield* result : result
  })

const found = (index: SemanticIndex, asked: Question) => index.find(asked, settings)?.key

describe("the nearest question", () => {
  it.effect("is the one with the greatest similarity, from the threshold on", () =>
    withIndex((index) => {
      index.add(question(at(0.95)), "far", "A", minute, bounds)
      index.add(question(-at(0.98)), "near", "B", minute, bounds)
      assert.strictEqual(found(index, question(0)), "near")
      assert.closeTo(index.find(question(0), settings)!.similarity, 0.98, 1e-6)
      assert.isUndefined(found(index, question(-at(0.98) - at(0.89))))
    }))

  it.effect("must be nearer by the margin than a question with another answer, and not than one with the same", () =>
    withIndex((index) => {
      index.add(question(at(0.96)), "a", "A", minute, bounds)
      index.add(question(-at(0.97)), "b", "B", minute, bounds)
      assert.isUndefined(found(index, question(0)))
      assert.strictEqual(index.find(question(0), { threshold: 0.9, margin: 0.005 })?.key, "b")
      index.add(question(at(0.96)), "a", "B", minute, bounds)
      assert.strictEqual(found(index, question(0)), "b")
    }))

  it.effect("must be nearer than one whose words do not let it have the answer", () =>
    withIndex((index) => {
      index.add(question(at(0.95), { words: Uint32Array.of(1, 2) }), "right", "A", minute, bounds)
      index.add(question(at(0.99), { words: Uint32Array.of(2, 1) }), "wrong", "B", minute, bounds)
      const asked = question(0, { words: Uint32Array.of(1, 2) })
      assert.isUndefined(found(index, asked))
      index.clear({ key: "wrong" })
      assert.strictEqual(found(index, asked), "right")
    }))

  it.effect("is of the same tenant, model and scope", () =>
    withIndex((index) => {
      index.add(question(0), "a", "A", minute, bounds)
      for (const other of [{ tenant: "two" }, { model: "other" }, { scope: "other" }]) {
        assert.isUndefined(found(index, question(0, other)))
      }
      assert.strictEqual(found(index, question(0)), "a")
    }))

  it.effect("ends with its answer", () =>
    withIndex((index) =>
      Effect.gen(function*() {
        index.add(question(0), "a", "A", minute, bounds)
        yield* TestClock.adjust(minute - 1)
        assert.strictEqual(found(index, question(0)), "a")
        yield* TestClock.adjust(1)
        assert.isUndefined(found(index, question(0)))
        assert.deepStrictEqual(index.contents, nothing)
      })
    ))
})

describe("the contents", () => {
  it.effect("are counted for each tenant of a model, most questions first, with the answers that were given", () =>
    withIndex((index) => {
      index.add(question(0, { tenant: "two" }), "a", "A", minute, bounds)
      index.add(question(0), "b", "B", minute, bounds)
      index.add(question(0, { scope: "other" }), "c", "C", minute, bounds)
      index.add(question(0, { model: "more" }), "d", "D", minute, bounds)
      for (const tenant of ["one", "one", "two", "none"]) index.count({ model: "chat", tenant })
      const one = { entries: 1, bytes: 524 }
      const rows = [
        { model: "chat", tenant: "one", entries: 2, bytes: 1_048, hits: 2 },
        { model: "chat", tenant: "two", ...one, hits: 1 },
        { model: "more", tenant: "one", ...one, hits: 0 }
      ]
      assert.deepStrictEqual(index.contents, { entries: 4, bytes: 2_096, hits: 3, questions: rows })
      index.clear({ tenant: "one", model: "chat" })
      assert.deepStrictEqual(index.contents, { entries: 2, bytes: 1_048, hits: 1, questions: rows.slice(1) })
      index.clear({ model: "chat" })
      assert.deepStrictEqual(index.contents.questions, rows.slice(2))
      index.clear({ tenant: "one" })
      assert.deepStrictEqual(index.contents, nothing)
    }))

  it.effect("list the 100 with most questions", () =>
    withIndex((index) => {
      for (let tenant = 0; tenant < 150; tenant++) {
        for (const scope of tenant === 120 ? ["a", "b"] : ["a"]) {
          index.add(question(0, { tenant: String(tenant), scope }), "a", "A", minute, bounds)
        }
      }
      const { entries, questions } = index.contents
      assert.deepStrictEqual([entries, questions.length, questions[0]?.tenant], [151, 100, "120"])
    }))
})

describe("the bounds", () => {
  it.effect("of each tenant and model are entries and bytes, oldest use first out", () =>
    withIndex((index) => {
      const three = { entries: 3, bytes: megabyte }
      index.add(question(0, { tenant: "two" }), "other", "A", minute, three)
      for (const [place, key] of ["a", "b", "c"].entries()) {
        index.add(question(0, { scope: key }), key, String(place), minute, three)
      }
      assert.strictEqual(found(index, question(0, { scope: "a" })), "a")
      index.add(question(0, { scope: "d" }), "d", "D", minute, three)
      const kept = ["a", "b", "c", "d"].filter((scope) => found(index, question(0, { scope })) !== undefined)
      assert.deepStrictEqual(kept, ["a", "c", "d"])
      assert.strictEqual(found(index, question(0, { tenant: "two" })), "other")
      index.add(question(0, { scope: "e" }), "e", "E", minute, { entries: 100, bytes: 1_200 })
      assert.isAtMost(index.contents.entries, 3)
    }))

  it.effect("of all are bytes: the tenant that was not used for the longest time loses entries", () =>
    withIndex((index) => {
      for (const tenant of ["one", "two", "three"]) index.add(question(0, { tenant }), tenant, "A", minute, bounds)
      assert.strictEqual(found(index, question(0)), "one")
      index.add(question(0, { tenant: "four" }), "four", "A", minute, bounds)
      const kept = ["one", "two", "three", "four"].filter((tenant) => found(index, question(0, { tenant })))
      assert.deepStrictEqual(kept, ["one", "three", "four"])
    }, 1_600))

  it.effect("hold, and no question is found by another tenant, whatever is done", () =>
    withIndex(() =>
      Effect.gen(function*() {
        const clock = yield* Clock.Clock
        const name = fc.constantFrom("x", "y", "z")
        const step = fc.record({
          action: fc.constantFrom("add", "add", "add", "find", "clear", "off"),
          tenant: name,
          model: name,
          scope: name,
          key: fc.nat(20),
          angle: fc.double({ min: 0, max: 0.3, noNaN: true })
        })
        fc.assert(fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
          const index = new SemanticIndex(clock, 6_000)
          for (const { action, angle, key, model, scope, tenant } of steps) {
            const asked = question(angle, { tenant, model, scope })
            if (action === "add") {
              index.add(asked, `${tenant} ${model} ${key}`, String(key), minute, { entries: 4, bytes: 4_000 })
            }
            if (action === "find") {
              const given = found(index, asked)
              assert.isTrue(given === undefined || given.startsWith(`${tenant} ${model} `))
            }
            if (action === "clear") {
              index.clear(key < 10 ? { tenant } : { model, key: `${tenant} ${model} ${key}` })
            }
            if (action === "off") {
              index.turnOff(true)
              assert.deepStrictEqual(index.contents, nothing)
              index.add(asked, "off", "A", minute, bounds)
              assert.isUndefined(found(index, asked))
              index.turnOff(false)
            }
            assert.isAtMost(index.contents.bytes, 6_000)
            assert.isAtMost(index.contents.entries, 36)
          }
          index.clear({})
          assert.deepStrictEqual(index.contents, nothing)
        }))
      })
    ))
})

describe("clearing", () => {
  it.effect.each(
    [
      [{ key: "a" }, "bc"],
      [{ model: "chat" }, "c"],
      [{ tenant: "one" }, "b"],
      [{ model: "chat", tenant: "two" }, "ac"],
      [{ model: "other", key: "a" }, "abc"],
      [{}, ""]
    ] as const
  )("of %o leaves %s", ([which, left]) =>
    withIndex((index) => {
      const all = { a: question(0), b: question(0, { tenant: "two" }), c: question(0, { model: "other" }) }
      for (const [key, asked] of Object.entries(all)) index.add(asked, key, "A", minute, bounds)
      index.clear(which)
      assert.strictEqual(Object.values(all).map((asked) => found(index, asked) ?? "").join(""), left)
    }))
})

describe("a vector", () => {
  it("has length 1, or no direction", () => {
    assert.deepStrictEqual(normalized([3, 4]), Float32Array.of(0.6, 0.8))
    for (const vector of [[], [0, 0], [Number.NaN], [Number.POSITIVE_INFINITY]]) assert.isUndefined(normalized(vector))
  })
})
