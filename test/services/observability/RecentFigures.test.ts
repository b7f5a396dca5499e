import { assert, describe, it } from "@effect/vitest"
import type { Figures } from "../../../src/services/observability/RecentFigures.ts"
import { RecentFigures, sumOf } from "../../../src/services/observability/RecentFigures.ts"
import type { AttemptDraft, Draft } from "../../../src/services/routing/DecisionLog.ts"
import { addAttempt, makeDraft } from "../../../src/services/routing/DecisionLog.ts"
import type { Route } from "../../../src/services/routing/Route.ts"

const route = {
  model: "chat",
  policy: { name: "default" },
  decision: { candidates: [], excluded: [] },
  cached: false,
  fallbacks: { ordinary: [], context: [], content: [] }
} as unknown as Route

interface Tried extends Partial<AttemptDraft> {
  readonly deployment: string
}

const record = (end: Draft["end"], tried: ReadonlyArray<Tried>, more: Partial<Draft> = {}): Draft => {
  const draft = makeDraft("dec-1", "chat", route, 0)
  for (const { deployment, ...attempt } of tried) Object.assign(addAttempt(draft, deployment, 0), attempt)
  return Object.assign(draft, { end, ...more })
}

const answered = (tookMs: number, firstTokenMs?: number): Draft =>
  record("success", [{ deployment: "chat#0", outcome: "answered", tookMs, firstTokenMs, usd: 0.5 }], {
    answeredBy: "chat#0",
    tookMs,
    outputTokens: 11,
    usd: 0.5
  })

const windowOf = (figures: ReadonlyArray<Figures>, name: string) => figures.find(({ window }) => window === name)!

describe("RecentFigures", () => {
  it("counts attempts of deployments and requests of models", () => {
    const figures = new RecentFigures(0)
    figures.add(
      record("success", [
        { deployment: "chat#0", outcome: "failed", tookMs: 5 },
        { deployment: "chat#1", outcome: "answered", tookMs: 20, usd: 0.25 }
      ], { answeredBy: "chat#1", tookMs: 25, usd: 0.25, outputTokens: 3 }),
      1_000
    )
    figures.add(record("failure", [{ deployment: "chat#0", outcome: "failed", tookMs: 5 }], { tookMs: 5 }), 1_000)
    figures.add(record("interruption", [{ deployment: "chat#1", outcome: "left", tookMs: 5 }]), 1_000)
    const of = (deployment: string) => windowOf(figures.ofDeployment(deployment, 1_000), "1m")
    assert.deepInclude(of("chat#0"), { requests: 2, failed: 2, left: 0, outputTokens: 0 })
    assert.deepInclude(of("chat#1"), { requests: 2, failed: 0, left: 1, usd: 0.25, outputTokens: 3 })
    const model = windowOf(figures.ofModel("chat", 1_000), "1m")
    assert.deepInclude(model, { requests: 3, failed: 1, left: 1, usd: 0.25 })
    assert.notProperty(of("chat#0"), "usd")
    assert.deepStrictEqual(windowOf(figures.ofAll(1_000), "5m").requests, 3)
  })

  it("has a cost only where an attempt with a known one has answered, or has used tokens", () => {
    const figures = new RecentFigures(0)
    const failed = { deployment: "dead#0", outcome: "failed" as const, tookMs: 5 }
    figures.add(record("failure", [failed], { tookMs: 5, usd: 0, model: "dead" }), 0)
    assert.notProperty(windowOf(figures.ofDeployment("dead#0", 0), "1m"), "usd")
    assert.notProperty(windowOf(figures.ofModel("dead", 0), "1m"), "usd")
    const answer = { deployment: "chat#0", outcome: "answered" as const, tookMs: 5, usd: 0 }
    figures.add(record("success", [answer], { answeredBy: "chat#0", tookMs: 5, usd: 0 }), 0)
    assert.propertyVal(windowOf(figures.ofDeployment("chat#0", 0), "1m"), "usd", 0)
    figures.add(record("failure", [{ ...failed, usd: 0.5 }], { tookMs: 5, usd: 0.5, model: "dead" }), 0)
    assert.propertyVal(windowOf(figures.ofDeployment("dead#0", 0), "1m"), "usd", 0.5)
  })

  it("has each attempt's cost at its deployment, and counts the unknown ones", () => {
    const figures = new RecentFigures(0)
    const answers = [
      { deployment: "mixed#1", outcome: "failed" as const, tookMs: 5, isUnpriced: true },
      { deployment: "mixed#2", outcome: "failed" as const, tookMs: 5, usd: 0.25 },
      { deployment: "mixed#0", outcome: "answered" as const, tookMs: 5, usd: 0.5 }
    ]
    const request = { answeredBy: "mixed#0", tookMs: 15, usd: 0.75, unpriced: 1, model: "mixed" }
    figures.add(record("success", answers, request), 0)
    const of = (deployment: string) => windowOf(figures.ofDeployment(deployment, 0), "1m")
    assert.notProperty(of("mixed#1"), "usd")
    assert.propertyVal(of("mixed#1"), "unpriced", 1)
    assert.deepInclude(of("mixed#2"), { usd: 0.25 })
    assert.deepInclude(of("mixed#0"), { usd: 0.5 })
    assert.notProperty(of("mixed#0"), "unpriced")
    const twice = windowOf(sumOf(figures.ofModel("mixed", 0), figures.ofModel("mixed", 0)), "1m")
    assert.deepInclude(twice, { usd: 1.5, unpriced: 2 })
  })

  it("forgets what is older than the window", () => {
    const figures = new RecentFigures(0)
    figures.add(answered(10), 0)
    figures.add(answered(10), 200_000)
    const counts = (now: number) => figures.ofModel("chat", now).map(({ requests, seconds }) => [requests, seconds])
    assert.deepStrictEqual(counts(200_000), [[1, 60], [2, 200], [2, 200]])
    assert.deepStrictEqual(counts(700_000), [[0, 60], [0, 300], [2, 700]])
    assert.deepStrictEqual(counts(3_700_000), [[0, 60], [0, 300], [1, 3600]])
  })

  it("has quantiles that are at most 9 % off, and the speed after the first token", () => {
    const figures = new RecentFigures(0)
    for (let ms = 1; ms <= 1_000; ms++) figures.add(answered(ms + 1_000, ms), 1_000)
    const { durationMs, firstTokenMs, tokensPerSecond } = windowOf(figures.ofModel("chat", 1_000), "1m")
    assert.approximately(firstTokenMs.p50!, 500, 45)
    assert.approximately(firstTokenMs.p95!, 950, 86)
    assert.approximately(durationMs.p50!, 1_500, 135)
    assert.strictEqual(firstTokenMs.count, 1_000)
    assert.strictEqual(tokensPerSecond, 10)
  })

  it("adds figures of two processes as if one had counted them", () => {
    const [one, other, both] = [new RecentFigures(0), new RecentFigures(0), new RecentFigures(0)]
    for (let ms = 1; ms <= 400; ms++) {
      const draft = answered(ms + 500, ms)
      ;(ms % 3 === 0 ? one : other).add(draft, 1_000)
      both.add(draft, 1_000)
    }
    const of = (figures: RecentFigures) => figures.ofDeployment("chat#0", 1_000)
    assert.deepStrictEqual(sumOf(of(one), of(other)), of(both))
  })
})
