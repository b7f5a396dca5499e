import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { AttemptEnd, Entry } from "../../../src/services/rollout/Split.ts"
import * as Split from "../../../src/services/rollout/Split.ts"
import type { Observation } from "../../../src/services/rollout/Tally.ts"
import * as Tally from "../../../src/services/rollout/Tally.ts"
import { Waiting } from "../../../src/services/rollout/Waiting.ts"

type Seen = Array<readonly [string | undefined, Observation]>

const entryOf = (weight: number, seen: Seen = [], more: Partial<Split.Weights> = {}): Entry =>
  Split.weighted({
    rollout: "rollout-1",
    candidate: "new",
    weight,
    withheld: [],
    sticky: true,
    observer: { observe: (version, observation) => void seen.push([version, observation]) },
    ...more
  })

const session = (name: string) => ({ route: { session: name } })
const open = () => true
const closed = () => false

const end = (more: Partial<AttemptEnd> = {}): AttemptEnd => ({
  verdict: "success",
  tokens: 11,
  finish: "stop",
  ...more
})

/** A request that one version takes; the first attempt begins at 0 and its slot is free at 100. */
const trial = (version: "new" | "old", first: AttemptEnd, later?: AttemptEnd): Seen => {
  const seen: Seen = []
  const entry = entryOf(version === "new" ? 1 : 0.5, seen)
  const split = version === "new"
    ? { withheld: new Set<string>(), first: "new" }
    : { withheld: new Set<string>(), last: "new" }
  const begun = Split.begin(entry, split, version, closed)!
  const attempt = begun.attempt(0)
  attempt.granted(100)
  if (first.verdict === "success") attempt.content(150)
  attempt.end(first, 1150)
  if (later !== undefined) begun.attempt(0).end(later, 2000)
  return seen
}

describe("Split", () => {
  it("keeps a session at the new version while its share grows", () => {
    assert.strictEqual(entryOf(1).split(session("a"), 1).first, "new")
    fc.assert(
      fc.property(
        fc.string(),
        fc.nat(),
        fc.nat(),
        fc.float({ min: 0, max: 1, noNaN: true }),
        (name, one, other, share) => {
          const small = entryOf(share / 2).split(session(name), one).first
          if (small === "new") assert.strictEqual(entryOf(share).split(session(name), other).first, "new")
        }
      )
    )
  })

  it("gives the new version its share of sessions, and of requests without a session", () => {
    const shareOf = (requests: ReadonlyArray<string | undefined>) =>
      requests.filter((first) => first === "new").length / requests.length
    const entry = entryOf(0.3)
    const sessions = Array.from({ length: 4000 }, (_, index) => entry.split(session(`s${index}`), 7).first)
    const drawn = Array.from({ length: 4000 }, (_, index) => entry.split({}, index * 7919).first)
    assert.closeTo(shareOf(sessions), 0.3, 0.03)
    assert.closeTo(shareOf(drawn), 0.3, 0.03)
  })

  it("gives no embedding requests to a new version with other vectors", () => {
    const embedding = { capabilities: ["embed"] as const }
    const other = entryOf(1, [], { hasOtherVectors: true })
    assert.deepStrictEqual(other.split(embedding, 1), { withheld: new Set(["new"]) })
    assert.strictEqual(other.split({ capabilities: ["generate"] }, 1).first, "new")
    assert.strictEqual(entryOf(1).split(embedding, 1).first, "new")
  })

  it("draws also the requests of a session where sessions do not stay", () => {
    const entry = entryOf(0.5, [], { sticky: false })
    const versions = new Set(Array.from({ length: 50 }, (_, index) => entry.split(session("a"), index * 7919).first))
    assert.deepStrictEqual(versions, new Set([undefined, "new"]))
  })

  it("has no entry where no model is divided", () => {
    const table = new Split.SplitTable()
    const find = (model: string) => table.of?.(model)?.split({}, 1).withheld
    const isEmpty = () => table.of === undefined
    assert.isTrue(isEmpty())
    table.replace(new Map([["chat", Split.withholding({ withheld: ["new"] })]]))
    assert.deepStrictEqual(find("chat"), new Set(["new"]))
    assert.isUndefined(find("other"))
    table.replace(new Map())
    assert.isTrue(isEmpty())
  })

  it("observes the times of an answer from its slot on", () => {
    assert.deepStrictEqual(trial("new", end()), [
      ["new", { failed: false, refused: false, firstTokenMs: 50, tokensPerSecond: 10 }]
    ])
    assert.deepStrictEqual(trial("old", end())[0]![0], undefined)
  })

  it("observes failures and refusals, and not the callers that have left", () => {
    const detail = "No."
    const down = new InferenceError.EngineFailed({ deployment: "new", detail })
    const content = new InferenceError.ContentRefused({ deployment: "new", detail })
    const limited = new InferenceError.RateLimited({ deployment: "new" })
    assert.deepStrictEqual(trial("new", end({ verdict: "failure", reason: down })), [["new", {
      failed: true,
      refused: false
    }]])
    assert.deepStrictEqual(trial("old", end({ verdict: "left", reason: content })), [
      [undefined, { failed: false, refused: true }]
    ])
    assert.isTrue(trial("old", end({ finish: "content_filter" }))[0]![1].refused)
    assert.deepStrictEqual(trial("new", end({ verdict: "left" })), [])
    assert.deepStrictEqual(trial("new", end({ verdict: "left", reason: limited })), [])
  })

  it("counts a rejected request against the new version only where another one accepts it", () => {
    const rejected = end({ verdict: "left", reason: new InferenceError.InvalidRequest({ detail: "No." }) })
    const long = end({ verdict: "left", reason: new InferenceError.ContextLengthExceeded({ model: "m" }) })
    for (const first of [rejected, long]) {
      assert.deepStrictEqual(trial("new", first, end()), [["new", { failed: true, refused: false }]])
      assert.deepStrictEqual(trial("new", first, first), [])
      assert.deepStrictEqual(trial("old", first, end()), [])
    }
  })

  it("counts a rate limit of either version as a failure only where another one answers", () => {
    const limited = end({ verdict: "left", reason: new InferenceError.RateLimited({ deployment: "m" }) })
    const counted: Observation = { failed: true, refused: false, isRateLimited: true }
    assert.deepStrictEqual(trial("new", limited, end()), [["new", counted]])
    assert.deepStrictEqual(trial("old", limited, end()), [[undefined, counted]])
    assert.deepStrictEqual(trial("new", limited, limited), [])
  })

  it("counts an attempt that a later one overtakes by the time it had, in either order of their ends", () => {
    const overtaken = (firstToken: number | undefined, order: "winner first" | "loser first"): Seen => {
      const seen: Seen = []
      const begun = Split.begin(entryOf(1, seen), { withheld: new Set(), first: "new" }, "new", closed)!
      const [first, hedge] = [begun.attempt(0), begun.attempt(0)]
      first.granted(100)
      hedge.granted(200)
      if (firstToken !== undefined) hedge.content(firstToken)
      const ends = [() => first.end(end({ verdict: "left" }), 350), () => hedge.end(end(), 1200)]
      for (const each of order === "loser first" ? ends : ends.toReversed()) each()
      return seen
    }
    for (const order of ["winner first", "loser first"] as const) {
      assert.deepStrictEqual(overtaken(350, order), [["new", { failed: false, refused: false, firstTokenMs: 250 }]])
      // 11 tokens would have taken more than 250 ms.
      assert.deepStrictEqual(overtaken(undefined, order), [
        ["new", { failed: false, refused: false, tokensPerSecond: 44 }]
      ])
    }
    // It had no slot: its queue is not its speed.
    const seen: Seen = []
    const begun = Split.begin(entryOf(1, seen), { withheld: new Set(), first: "new" }, "new", closed)!
    begun.attempt(0).end(end({ verdict: "left" }), 350)
    begun.attempt(0).end(end(), 1200)
    assert.deepStrictEqual(seen, [])
  })

  it("knows how long the first attempt has waited from its slot on, while it runs", () => {
    const tallies = { new: Tally.empty(), old: Tally.empty() }
    const waiting = new Waiting((version) => version === undefined ? tallies.old : tallies.new)
    const entry = entryOf(1, [], { observer: { observe: () => {}, waiting } })
    const bucketOf = Tally.scales.hanging.bucketOf
    const begin = () => Split.begin(entry, { withheld: new Set(), first: "new" }, "new", closed)!
    const [hanging, answered, left] = [begin(), begin(), begin()].map((trial) => {
      const attempt = trial.attempt(0)
      attempt.granted(1_000)
      trial.attempt(0).granted(1_500)
      return attempt
    })
    waiting.report(1_500)
    assert.strictEqual(tallies.new.waiting[bucketOf(500)], 3)
    answered!.content(1_800)
    answered!.end(end({ verdict: "left" }), 60_000)
    left!.end(end({ verdict: "left" }), 3_000)
    waiting.report(9_000)
    assert.strictEqual(tallies.new.answered[bucketOf(800)], 1)
    assert.strictEqual(tallies.new.waiting[bucketOf(2_000)], 1)
    assert.strictEqual(tallies.new.waiting[bucketOf(8_000)], 1)
    // Not streamed.
    hanging!.end(end(), 11_000)
    assert.strictEqual(tallies.new.answered[bucketOf(10_000)], 1)
    assert.deepStrictEqual(tallies.old, Tally.empty())
  })

  it("counts requests that the open circuit of the new version gives to another, and no other replacement", () => {
    const seen: Seen = []
    const split = { withheld: new Set<string>(), first: "new" }
    assert.isUndefined(Split.begin(entryOf(0.5, seen), split, "old", closed))
    assert.deepStrictEqual(seen, [])
    assert.isUndefined(Split.begin(entryOf(0.5, seen), split, "old", open))
    assert.deepStrictEqual(seen, [["new", { failed: true, refused: false }]])
    assert.isUndefined(Split.begin(entryOf(0.5, seen), { withheld: new Set(), last: "new" }, "new", closed))
    assert.isUndefined(
      Split.begin(Split.withholding({ withheld: ["new"] }), { withheld: new Set(["new"]) }, "old", closed)
    )
  })

  it("passes on the session of a request that is compared", () => {
    const sessions: Array<number | undefined> = []
    const entry = Split.weighted({
      rollout: "r",
      candidate: "new",
      weight: 1,
      withheld: [],
      sticky: false,
      observer: { observe: (_, __, session) => void sessions.push(session) }
    })
    for (const request of [session("a"), {}]) {
      const begun = Split.begin(entry, entry.split(request, 1), "new", closed)!
      begun.attempt(0).end(end(), 1)
    }
    assert.deepStrictEqual(sessions, [Split.sessionOf(session("a")), undefined])
  })
})
