import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import * as RoutingText from "../../src/cli/RoutingText.ts"
import { defaults } from "../../src/domain/RoutingPolicy.ts"
import type { Record as DecisionRecord } from "../../src/services/routing/DecisionRecord.ts"
import type { Explanation } from "../../src/services/routing/Explanation.ts"

const { backoff, maxAttempts, maxWaitMs, retries, shorterBy } = defaults

/** A model with this number of deployments, of which every third is excluded. */
const explanationOf = (count: number): Explanation => {
  const ids = Array.from({ length: count }, (_, index) => `chat#${index}`)
  const out = ids.filter((_, index) => index % 3 === 2)
  const candidates = ids.filter((id) => !out.includes(id)).map((deployment, index) => ({
    deployment,
    score: 1 / (index + 1),
    terms: { speed: Math.PI, quality: 1 / 3, cost: 0 },
    unknown: ["price", "speed"]
  }))
  return {
    model: "chat",
    policy: "default",
    decision: {
      model: "chat",
      strategy: "balanced",
      candidates,
      eligible: candidates.length,
      excluded: out.map((deployment) => ({ deployment, reason: "it does not support tool calls" }))
    },
    plan: {
      lists: { ordinary: candidates.map(({ deployment }) => deployment), context: [], content: [] },
      retries,
      maxAttempts,
      backoff,
      maxWaitMs,
      timeouts: {},
      shorterBy
    }
  }
}

describe("routing for a terminal", () => {
  it("names the selected deployment and the fallbacks", () => {
    assert.strictEqual(
      RoutingText.explained(explanationOf(3), false),
      "chat#0 would answer for chat (strategy balanced, policy default).\nFallbacks: chat#1"
    )
    assert.strictEqual(
      RoutingText.explained(explanationOf(1), false),
      "chat#0 would answer for chat (strategy balanced, policy default)."
    )
  })

  it("contains scores with their terms, unknown values, excluded deployments with reasons, and the plan", () => {
    const lines = RoutingText.explained(explanationOf(3), true).split("\n").map((line) =>
      line.trim().replaceAll(/ +/g, " ")
    )
    const expected = [
      "DEPLOYMENT SCORE SPEED QUALITY COST",
      "chat#1 0.5 3.142 0.3333 0",
      "price:",
      "it does not support tool calls:",
      "chat#2",
      "order chat#0, chat#1",
      "attempts at most 6, 3 per deployment",
      "hedge none"
    ]
    for (const line of expected) assert.include(lines, line)
  })

  it("lists keys in a cooldown, with the time to the next attempt", () => {
    const cooldowns = [{ deployment: "chat#1", retryAfterMs: 42_000 }]
    const lines = RoutingText.explained({ ...explanationOf(3), cooldowns }, true).split("\n").map((line) => line.trim())
    const index = lines.indexOf("the provider limited or rejected all keys; retry in 42 s:")
    assert.strictEqual(lines[index + 1], "chat#1")
  })

  it.each([
    [["chat#0"], "chat#1 would answer for chat", "All provider keys wait: chat#0"],
    [["chat#1"], "chat#0 would answer for chat", "All provider keys wait: chat#1"],
    [["chat#0", "chat#1"], "No deployment can answer this request for chat", "All provider keys wait: chat#0, chat#1"]
  ])("names the deployment that would answer where the keys of %s wait", (waiting, answer, keys) => {
    const cooldowns = waiting.map((deployment) => ({ deployment, retryAfterMs: 42_000 }))
    const text = RoutingText.explained({ ...explanationOf(3), cooldowns }, false)
    assert.isTrue(text.startsWith(answer), text)
    assert.include(text, keys)
    assert.strictEqual(text.includes("Retry in 42 s."), waiting.length === 2)
  })

  it("gives the reasons if no deployment can answer, with and without --explain", () => {
    const { decision, plan, ...rest } = explanationOf(3)
    const text = RoutingText.explained({
      ...rest,
      decision: { ...decision, candidates: [], eligible: 0, retryAfterMs: 30_000 },
      plan: { ...plan, lists: { ordinary: [], context: [], content: [] } }
    }, false)
    assert.include(text, "No deployment can answer")
    assert.include(text, "in 30 s")
    assert.include(text, "it does not support tool calls:\n    chat#2")
  })

  it("fits 80 columns and two screens, for one deployment and for many", () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 200 }), fc.boolean(), (count, everything) => {
      const lines = RoutingText.explained(explanationOf(count), everything).split("\n")
      assert.isAtMost(Math.max(...lines.map(({ length }) => length)), 80)
      assert.isBelow(lines.length, 60)
    }))
  })

  it("prints a recorded request with its attempts and errors", () => {
    const { decision, model, policy } = explanationOf(3)
    const record: DecisionRecord = {
      id: "dec-1-0",
      operation: "chat",
      model,
      policy,
      at: 0,
      decision,
      fallbacks: { ordinary: ["other#0"], context: [], content: [] },
      attempts: [
        {
          deployment: "chat#0",
          startedMs: 0,
          tookMs: 12,
          outcome: "failed",
          error: { reason: "EngineCrashed", message: "It crashed. ".repeat(12) }
        },
        { deployment: "chat#1", startedMs: 15, firstTokenMs: 20, tookMs: 2_500, hedge: true, outcome: "answered" }
      ],
      requestId: "chatcmpl-1",
      key: "app",
      inputTokens: 7,
      outputTokens: 9,
      usd: 0.00123,
      answeredBy: "chat#1",
      tookMs: 2_515,
      end: "success"
    }
    const text = RoutingText.recordText(record)
    assert.include(text, "dec-1-0: chat for chat at 1970-01-01T00:00:00Z.")
    assert.include(text, "Answered by chat#1 after 2.515 s. Strategy balanced, policy default.")
    assert.include(text, "7 input and 9 output tokens. Cost: $0.0012.")
    assert.include(text, "Longest part: 2.48 s from the first token of chat#1 to its end.")
    assert.include(text, "Caller: request chatcmpl-1, key app.")
    assert.match(text, /chat#1 +15 ms, hedge +20 ms +2\.5 s +answered/)
    assert.include(text, "chat#0: EngineCrashed: It crashed.")
    assert.include(text, "after any failure:\n    other#0")
    assert.isAtMost(Math.max(...text.split("\n").map(({ length }) => length)), 80)
    assert.match(RoutingText.recordTable([record]), /dec-1-0 +00:00:00Z +chat +chat#1 +2 +2\.515 s +answered/)
    const waited = RoutingText.recordText({ ...record, admissionMs: 4_000 })
    assert.include(waited, "Longest part: 4 s for limits and budgets.")
    assert.include(waited, "Waiting for limits and budgets: 4 s.")
  })
})
