import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import * as Defaults from "../../../src/domain/Defaults.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import * as DecisionLog from "../../../src/services/routing/DecisionLog.ts"
import type { Route } from "../../../src/services/routing/Route.ts"
import { deployment } from "../../support/Deployments.ts"

const route: Route = {
  model: "a",
  deployments: [deployment("a#0")],
  fallbacks: { ordinary: [deployment("b#0")], context: [], content: [] },
  cached: false,
  decision: { model: "a", strategy: "balanced", candidates: [], eligible: 1, excluded: [] },
  policy: RoutingPolicy.defaults,
  slowestFirstTokenMs: undefined
}

describe("Decisions", () => {
  it.effect("finds a record by its id as soon as it is written", () =>
    Effect.gen(function*() {
      const { begin, find } = yield* DecisionLog.DecisionLog
      const draft = begin("chat", route, 5)
      draft.answeredBy = "b#0"
      assert.deepInclude(find(draft.id), { model: "a", at: 5, policy: "default", answeredBy: "b#0" })
      assert.deepStrictEqual(find(draft.id)?.fallbacks, { ordinary: ["b#0"], context: [], content: [] })
    }).pipe(Effect.provide(DecisionLog.layer)))

  it.effect("keeps the latest, newest first", () =>
    Effect.gen(function*() {
      const { begin, find, latest } = yield* DecisionLog.DecisionLog
      assert.deepStrictEqual(latest(3), [])
      const ids = Array.from({ length: Defaults.keptDecisions + 2 }, (_, at) => begin("chat", route, at).id)
      assert.isUndefined(find(ids[0]!))
      assert.isUndefined(find(ids[1]!))
      assert.strictEqual(find(ids[2]!)?.at, 2)
      assert.deepStrictEqual(latest(3).map(({ id }) => id), ids.slice(-3).toReversed())
      assert.lengthOf(latest(1_000_000), Defaults.keptDecisions)
    }).pipe(Effect.provide(DecisionLog.layer)))

  it.effect("keeps refused requests beside the others, and few of them go to listeners", () =>
    Effect.gen(function*() {
      const { begin, collect, ended, find, latest, refuse, subscribe } = yield* DecisionLog.DecisionLog
      const told: Array<string> = []
      const collected: Array<string> = []
      subscribe!(({ id }) => told.push(id))
      const { flush } = collect!((records) => collected.push(...records.map(({ id }) => id)))
      const kept = begin("chat", route, 500)
      ended!(kept)
      const refused = Array.from({ length: Defaults.keptRefusals + 50 }, (_, index) =>
        refuse!({
          operation: "chat",
          model: "other",
          at: 1_000 + index,
          caller: { requestId: `req-${index}`, dialect: undefined, tenant: undefined, key: "ci", replayOf: undefined },
          error: { reason: "LimitExceeded", message: "Too many." },
          isOfCaller: index > 0
        }))
      const last = refused.at(-1)!
      assert.deepInclude(find(last.requestId!), {
        id: last.id,
        refused: true,
        end: "failure",
        key: "ci",
        model: "other"
      })
      assert.deepStrictEqual(find(last.id)?.error, { reason: "LimitExceeded", message: "Too many." })
      assert.isUndefined(find(refused[49]!.id))
      const all = latest(1_000)
      assert.lengthOf(all, Defaults.keptRefusals + 1)
      assert.strictEqual(all[0]!.id, last.id)
      assert.strictEqual(all.at(-1)!.id, kept.id)
      assert.lengthOf(told, 1 + Defaults.toldRefusals)
      flush()
      assert.deepStrictEqual(collected, [kept.id, refused[0]!.id], "only what the service is the cause of")
    }).pipe(Effect.provide(DecisionLog.layer)))

  it.effect("keeps the first entries of long lists, and their number", () =>
    Effect.gen(function*() {
      const { begin, find } = yield* DecisionLog.DecisionLog
      const most = Defaults.listedInDecision
      const many = Array.from({ length: 5_000 }, (_, index) => deployment(`a#${index}`))
      const { id } = begin("chat", {
        ...route,
        fallbacks: { ordinary: many, context: many, content: many },
        decision: {
          ...route.decision,
          excluded: many.map(({ id }) => ({ deployment: id, reason: "its circuit is open" })),
          spilled: many.map(({ id }) => id)
        }
      }, 0)
      const { decision, fallbacks } = find(id)!
      assert.deepStrictEqual([decision.excluded.length, decision.excludedCount], [most, 5_000])
      for (const list of [decision.spilled!, ...Object.values(fallbacks)]) assert.lengthOf(list, most)
      assert.deepStrictEqual(decision.excluded[0], { deployment: "a#0", reason: "its circuit is open" })
    }).pipe(Effect.provide(DecisionLog.layer)))

  it.effect("finds nothing by an id of another run", () =>
    Effect.gen(function*() {
      const { begin, find } = yield* DecisionLog.DecisionLog
      const { id } = begin("chat", route, 0)
      for (
        const wrong of ["", "dec-", id.slice(0, -1), `${id}0`, `${id} `, id.toUpperCase(), "dec-000000-0", "__proto__"]
      ) {
        assert.isUndefined(find(wrong), wrong)
      }
    }).pipe(Effect.provide(DecisionLog.layer), Random.withSeed("decisions")))
})
