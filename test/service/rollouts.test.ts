import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import type { RolloutService } from "../support/RolloutService.ts"
import { startRolloutService } from "../support/RolloutService.ts"

const withService = async (
  use: (service: RolloutService) => Promise<void>,
  options?: Parameters<typeof startRolloutService>[0]
) => {
  const service = await startRolloutService(options)
  try {
    await use(service)
  } finally {
    await service.stop()
  }
}

const start = { model: "chat", to: "chat#1" }

describe("a rollout", () => {
  it("gives a deployment that waits for it a growing share, and then all requests", () =>
    withService(async ({ admin, ask, askUntil, candidate, stable }) => {
      const before = await Promise.all(Array.from({ length: 20 }, () => ask()))
      assert.deepStrictEqual(new Set(before.map(({ by }) => by)), new Set(["old"]))
      assert.strictEqual(candidate.count, 0)
      const started = await admin("POST", "", start)
      assert.strictEqual(started.status, 201)
      const ended = await askUntil(({ phase }) => phase === "Ended")
      assert.strictEqual(ended.outcome?.result, "promoted")
      assert.strictEqual(ended.weight, 1)
      const asked = stable.count
      const after = await Promise.all(Array.from({ length: 20 }, () => ask()))
      assert.deepStrictEqual(new Set(after.map(({ by }) => by)), new Set(["new"]))
      assert.strictEqual(stable.count, asked)
    }))

  it("rolls a version back that fails, while no caller sees an error", () =>
    withService(async ({ admin, ask, askUntil, candidate }) => {
      candidate.behave = (index) => ({ status: index > 0 && index % 5 === 0 ? 500 : 200 })
      await admin("POST", "", start)
      const seen: Array<number> = []
      let isOver = false
      const callers = Array.from({ length: 100 }, async () => {
        while (!isOver) seen.push((await ask()).status)
      })
      const ended = await askUntil(({ phase }) => phase === "Ended")
      isOver = true
      await Promise.all(callers)
      assert.deepStrictEqual(new Set(seen), new Set([200]))
      assert.strictEqual(ended.outcome?.result, "rolledBack")
      const asked = candidate.count
      await ask()
      assert.strictEqual(candidate.count, asked)
    }))
})
