/** When a process asks the shared memory for the makers of signed reasoning. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Logger } from "effect"
import { RedisError } from "effect/persistence/Redis"
import { TestClock } from "effect/testing"
import * as Defaults from "../../../src/domain/Defaults.ts"
import { makerOf } from "../../../src/domain/SignedReasoning.ts"
import type { Source } from "../../../src/domain/Source.ts"
import type { Made } from "../../../src/services/inference/ReasoningMakers.ts"
import { ReasoningMakers } from "../../../src/services/inference/ReasoningMakers.ts"
import { deployment } from "../../support/Deployments.ts"

const { options } = deployment("a", { options: { engine: "remote", provider: "anthropic", model: "up" } })
const maker = makerOf(options)

/** A request with these signatures in thinking blocks, as a dialect decodes it. */
const withMarks = (...marks: ReadonlyArray<string>): { readonly source: Source } => ({
  source: {
    dialect: "anthropic",
    body: {
      messages: [{
        role: "assistant",
        content: marks.map((signature) => ({ type: "thinking", thinking: "", signature }))
      }]
    },
    unknownFields: marks.map((_, index) => ({ path: ["messages", 0, "content", index] }))
  }
})

/** A memory in which `isLost` decides what an answer is. */
class Memory {
  readonly made = new Map<number, string>()
  readonly asked: Array<number> = []
  state: "answers" | "fails" | "hangs" = "answers"

  add([key, maker]: Made): void {
    this.made.set(key, maker)
  }

  find(keys: ReadonlyArray<number>): Effect.Effect<ReadonlyArray<Made>, RedisError> {
    return Effect.suspend(() => {
      this.asked.push(keys.length)
      if (this.state === "hangs") return Effect.never
      if (this.state === "fails") return Effect.fail(new RedisError({ cause: new Error("closed") }))
      return Effect.succeed(keys.flatMap((key): ReadonlyArray<Made> => {
        const maker = this.made.get(key)
        return maker === undefined ? [] : [[key, maker]]
      }))
    })
  }
}

const answers = (makers: ReasoningMakers, request: { readonly source?: Source }) =>
  makers.recall(request) ?? Effect.succeed("not asked")

describe("the makers of signed reasoning", () => {
  it.effect("are asked for once, and not where nothing is unknown", () =>
    Effect.gen(function*() {
      const memory = new Memory()
      const one = new ReasoningMakers(memory)
      const other = new ReasoningMakers(memory)
      one.note(["a", "b"], options)
      assert.strictEqual(memory.made.size, 2)
      assert.strictEqual(yield* answers(one, withMarks("a", "b")), "not asked")
      assert.strictEqual(yield* answers(other, {}), "not asked")
      assert.strictEqual(yield* answers(other, withMarks()), "not asked")
      assert.strictEqual(yield* answers(other, withMarks("troupe.x.id.content")), "not asked")
      assert.isUndefined(new ReasoningMakers().recall(withMarks("a")))
      assert.isTrue(yield* answers(other, withMarks("a", "none")))
      assert.deepStrictEqual([other.makerIn("a"), other.makerIn("none")], [maker, undefined])
      assert.strictEqual(yield* answers(other, withMarks("a")), "not asked")
      assert.deepStrictEqual(memory.asked, [2])
      const many = Array.from({ length: Defaults.reasoningMakers.asked + 1 }, (_, index) => `mark-${index}`)
      assert.isTrue(yield* answers(other, withMarks("b", ...many)))
      assert.deepStrictEqual([memory.asked[1], other.makerIn("b")], [Defaults.reasoningMakers.asked, undefined])
    }))

  it.effect("are written once", () =>
    Effect.sync(() => {
      const written: Array<Made> = []
      const makers = new ReasoningMakers({ add: (made) => void written.push(made), find: () => Effect.succeed([]) })
      makers.note(["a"], options)
      makers.note(["a", "b"], options)
      assert.lengthOf(written, 2)
    }))

  for (const state of ["fails", "hangs"] as const) {
    it.effect(`are not waited for for long where the memory ${state}, and asked for again later`, () => {
      const log: Array<string> = []
      return Effect.gen(function*() {
        const memory = new Memory()
        new ReasoningMakers(memory).note(["a"], options)
        const makers = new ReasoningMakers(memory)
        memory.state = state
        const first = yield* Effect.forkChild(answers(makers, withMarks("a")))
        yield* TestClock.adjust(Defaults.reasoningMakers.timeoutMs)
        assert.isFalse(yield* Fiber.join(first))
        memory.state = "answers"
        assert.isFalse(yield* answers(makers, withMarks("a")))
        assert.lengthOf(memory.asked, 1)
        yield* TestClock.adjust(Defaults.reasoningMakers.pauseMs)
        assert.isTrue(yield* answers(makers, withMarks("a")))
        assert.strictEqual(makers.makerIn("a"), maker)
        assert.deepStrictEqual(log.map((line) => line.split(":")[0]), [
          "The makers of signed reasoning cannot be read",
          "The makers of signed reasoning are read again."
        ])
      }).pipe(Effect.provide(Logger.layer([Logger.make(({ message }) => void log.push(String(message)))])))
    })
  }
})
