import { assert, describe, it } from "@effect/vitest"
import { Duration, Schema } from "effect"
import * as fc from "fast-check"
import { Draws } from "../../../bench/RolloutSimulation.ts"
import * as Shadow from "../../../src/services/rollout/Shadow.ts"
import { resolveShadow, shadowProblems, ShadowSettings } from "../../../src/services/rollout/ShadowSettings.ts"

const plan = resolveShadow({ candidate: "chat#1", percent: 20 })

const answer = (text: string, ...calls: ReadonlyArray<readonly [name: string, json: string]>): Shadow.Compared => ({
  text,
  toolCalls: calls.map(([name, json], index) => ({ id: `call_${index}_${text}`, name, arguments: json }))
})

const taken = (tookMs: number): Shadow.Taken => ({
  tookMs,
  firstTokenMs: undefined,
  promptTokens: 3,
  completionTokens: 5
})

const pair = (agreement: number | undefined, isExact = agreement === 1): Shadow.Pair => ({
  primary: taken(100),
  candidate: taken(400),
  isExact,
  agreement
})

describe("the choice of requests to copy", () => {
  const chosen = (share: number, seed = 7) =>
    Array.from({ length: 10_000 }, (_, index) => Shadow.isSampled({ share, sticky: true }, seed, index, undefined))

  it("copies the share, with one seed always the same requests", () => {
    assert.closeTo(chosen(0.2).filter(Boolean).length / 10_000, 0.2, 0.02)
    assert.deepStrictEqual(chosen(0.2), chosen(0.2))
    assert.notDeepEqual(chosen(0.2), chosen(0.2, 8))
    assert.isFalse(chosen(0).includes(true))
    assert.isFalse(chosen(1).includes(false))
  })

  it("copies all requests of a session or none, and the share of sessions", () => {
    const of = (session: number, index: number, sticky = true) =>
      Shadow.isSampled({ share: 0.2, sticky }, 7, index, session)
    const sessions = Array.from({ length: 2_000 }, (_, session) => session)
    assert.isTrue(sessions.every((session) => of(session, 1) === of(session, 2)))
    assert.closeTo(sessions.filter((session) => of(session, 0)).length / 2_000, 0.2, 0.04)
    assert.closeTo(sessions.filter((index) => of(1, index, false)).length / 2_000, 0.2, 0.04)
  })
})

describe("the text of an answer that is compared", () => {
  it("has no white space at its ends", () => {
    assert.strictEqual(Shadow.textOf(answer("Yes.\n")), Shadow.textOf(answer(" Yes.")))
    assert.notStrictEqual(Shadow.textOf(answer("Yes.")), Shadow.textOf(answer("yes.")))
  })

  it("has the calls of tools, by names and arguments and not by ids", () => {
    const one = answer("", ["find", `{"a":1,"b":[{"d":1,"c":2}]}`])
    assert.strictEqual(Shadow.textOf(one), Shadow.textOf(answer(" ", ["find", `{ "b": [{"c":2,"d":1}], "a": 1 }`])))
    assert.notStrictEqual(Shadow.textOf(one), Shadow.textOf(answer("", ["find", `{"a":2}`])))
    assert.notStrictEqual(Shadow.textOf(one), Shadow.textOf(answer("", ["seek", `{"a":1,"b":[{"d":1,"c":2}]}`])))
    assert.strictEqual(Shadow.textOf(answer("", ["find", "no json "])), "find(no json)")
  })
})

describe("the similarity of two embeddings", () => {
  it("is their cosine, at least 0", () => {
    assert.closeTo(Shadow.similarity([3, 4], [6, 8]), 1, 1e-12)
    assert.closeTo(Shadow.similarity([1, 0], [1, 1]), Math.SQRT1_2, 1e-12)
    assert.strictEqual(Shadow.similarity([1, 0], [-1, 0]), 0)
    assert.strictEqual(Shadow.similarity([1, 0], [1, 0, 0]), 0)
    assert.strictEqual(Shadow.similarity([0, 0], [1, 0]), 0)
  })

  it("is from 0 to 1 for all vectors, in either order", () => {
    const vector = fc.array(fc.double({ min: -1e3, max: 1e3, noNaN: true }), { minLength: 3, maxLength: 3 })
    fc.assert(fc.property(vector, vector, (one, other) => {
      const found = Shadow.similarity(one, other)
      assert.isTrue(found >= 0 && found <= 1)
      assert.closeTo(found, Shadow.similarity(other, one), 1e-9)
    }))
  })
})

describe("the pieces of a text that is embedded", () => {
  it("have all its words, and are no longer than a small window", () => {
    fc.assert(fc.property(fc.array(fc.string({ minLength: 1, maxLength: 40 })), (words) => {
      const text = words.join(" ").trim()
      const pieces = Shadow.piecesOf(text)
      assert.isTrue(pieces.every(({ length }) => length > 0 && length <= 256))
      assert.strictEqual(pieces.join("").replaceAll(/\s/g, ""), text.replaceAll(/\s/g, ""))
    }))
    assert.isTrue(Shadow.piecesOf("\u4e2d".repeat(1_000)).every(({ length }) => length === 64 || length === 40))
    assert.strictEqual(Shadow.piecesOf("word ".repeat(100_000)).length, 64)
    assert.deepStrictEqual(Shadow.piecesOf("Hello there"), ["Hello there"])
  })

  it("have the mean of their embeddings", () => {
    assert.deepStrictEqual(Shadow.meanVector([[1, 0], [0, 1]]), [0.5, 0.5])
    assert.deepStrictEqual(Shadow.meanVector([]), [])
  })
})

describe("what copies have shown", () => {
  it("is counted for each pair", () => {
    const totals = Shadow.empty()
    const similar = resolveShadow({ candidate: "chat#1", percent: 20, compare: "similarity" })
    for (const agreement of [1, 1, 0.95, 0.4, undefined]) Shadow.record(totals, similar, pair(agreement))
    const report = Shadow.report(totals)
    assert.deepStrictEqual([report.answered, report.compared, report.agreed, report.incomparable], [5, 4, 3, 1])
    assert.strictEqual(report.exact?.value, 0.4)
    assert.closeTo(report.agreement!.value, 3.35 / 4, 1e-9)
    assert.closeTo(report.primary.medianMs!, 100, 10)
    assert.closeTo(report.candidate.medianMs!, 400, 40)
    assert.strictEqual(report.candidate.medianFirstTokenMs, null)
    assert.deepStrictEqual([report.candidate.promptTokens, report.candidate.completionTokens], [15, 25])
  })

  it("has intervals that contain the value, within 0 and 1, and shrink", () => {
    const agreements = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 2, maxLength: 50 })
    fc.assert(fc.property(agreements, (values) => {
      const widthOf = (times: number) => {
        const totals = Shadow.empty()
        for (let time = 0; time < times; time++) {
          for (const value of values) Shadow.record(totals, plan, pair(value))
        }
        const { agreement, exact } = Shadow.report(totals)
        for (const found of [agreement!, exact!]) {
          assert.isTrue(0 <= found.low && found.low <= found.value + 1e-9)
          assert.isTrue(found.value <= found.high + 1e-9 && found.high <= 1)
        }
        return agreement!.high - agreement!.low
      }
      assert.isAtMost(widthOf(4), widthOf(1) + 1e-6)
    }))
  })

  it("has intervals that contain the true mean in 95 of 100 cases, and none without pairs", () => {
    const draws = new Draws(3)
    let contained = 0
    for (let run = 0; run < 2_000; run++) {
      const totals = Shadow.empty()
      for (let index = 0; index < 8; index++) Shadow.record(totals, plan, pair(draws.next()))
      const { high, low } = Shadow.report(totals).agreement!
      if (low <= 0.5 && high >= 0.5) contained++
    }
    assert.closeTo(contained / 2_000, 0.95, 0.02)
    const { agreement, exact } = Shadow.report(Shadow.empty())
    assert.deepStrictEqual([agreement, exact], [null, null])
  })
})

describe("the settings of a shadow", () => {
  const chat = { name: "chat", deployments: [{ id: "chat#0" }, { id: "chat#1" }] }
  const problemsOf = (own: Partial<ShadowSettings>, model = chat, variants: ReadonlyArray<string> = []) =>
    shadowProblems(
      [model, { name: "vectors", deployments: [{ id: "vectors#0" }] }],
      new Map([["chat", { candidate: "chat#1", percent: 5, ...own }]]),
      () => variants.map((deployment) => ({ deployment }))
    ).map(({ expected, path }) => `${path.slice(3).join(".")}: ${expected}`)

  it("name another deployment of the model, a model that embeds, and an amount", () => {
    assert.deepStrictEqual(problemsOf({}), [])
    assert.deepStrictEqual(problemsOf({ compare: "similarity", embeddings: "vectors" }), [])
    assert.deepStrictEqual(problemsOf({ candidate: "chat#2" }), [
      "candidate: Expected the id of one of the model's deployments: chat#0, chat#1"
    ])
    assert.deepStrictEqual(problemsOf({}, { name: "chat", deployments: [{ id: "chat#1" }] }), [
      "candidate: Expected another deployment beside it, which answers the callers"
    ])
    assert.deepStrictEqual(problemsOf({}, chat, ["chat#0", "chat#1"]), [
      "candidate: Expected a deployment that is no variant of the model's experiment"
    ])
    assert.deepStrictEqual(problemsOf({ compare: "similarity", budget: { period: "day" } }), [
      "embeddings: Expected the name of a model that embeds. Available models: chat, vectors",
      "budget: Expected usd, tokens or both"
    ])
  })

  const decode = Schema.decodeUnknownSync(ShadowSettings)

  it("have a default for every field but the deployment and its percentage", () => {
    assert.deepStrictEqual(resolveShadow({ candidate: "chat#1", percent: 5 }), {
      candidate: "chat#1",
      share: 0.05,
      sticky: true,
      seed: undefined,
      compare: "exact",
      embeddings: "tiny-embed",
      agreesFrom: 1,
      maxConcurrent: 4,
      timeoutMs: 60_000,
      exceptTenants: [],
      budget: undefined,
      keepDiffering: 0
    })
    assert.deepStrictEqual(decode({ candidate: "chat#1", percent: 5, timeout: "5 s" }).timeout, Duration.seconds(5))
    assert.throws(() => decode({ percent: 0.1 }))
    assert.throws(() => decode({ candidate: "chat#1", percent: 101 }))
    assert.throws(() => decode({ candidate: "chat#1", percent: 5, maxConcurrent: 0 }))
  })
})
