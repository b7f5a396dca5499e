import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { NoService } from "../../src/cli/Client.ts"
import { CommandFailed } from "../../src/cli/Flags.ts"
import { ConnectionLost, stay } from "../../src/cli/LiveClient.ts"

const lost = new ConnectionLost({ message: "It ended." })
const gone = new NoService({ message: "Nothing listens." })

/** What happens at each connection; the last one repeats. */
type Session = (connected: Effect.Effect<void>) => Effect.Effect<void, CommandFailed | ConnectionLost | NoService>

const cut: Session = (connected) => Effect.andThen(connected, Effect.fail(lost))
const refused: Session = () => Effect.fail(gone)

const run = (sessions: ReadonlyArray<Session>) =>
  Effect.gen(function*() {
    const said: Array<string> = []
    let count = 0
    const watched = stay((connected) => sessions[Math.min(count++, sessions.length - 1)]!(connected), {
      lost: (message) => Effect.sync(() => void said.push(message)),
      again: Effect.sync(() => void said.push("again"))
    })
    const fiber = yield* Effect.forkChild(watched)
    return { said, count: () => count, fiber }
  })

describe("a connection that stays", () => {
  it.effect("connects again when the service ends it, and says so", () =>
    Effect.gen(function*() {
      const stays: Session = (connected) => Effect.andThen(connected, Effect.never)
      const { count, fiber, said } = yield* run([cut, refused, refused, cut, stays])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(said, ["It ended.", "again", "It ended.", "again"])
      assert.strictEqual(count(), 5)
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(count(), 5)
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("ends when the service has been gone for two minutes", () =>
    Effect.gen(function*() {
      const { fiber, said } = yield* run([cut, refused])
      yield* TestClock.adjust("110 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("20 seconds")
      const error = Exit.findErrorOption(yield* Fiber.await(fiber))
      assert.include(JSON.stringify(error), "did not come back within 2 minutes. Nothing listens.")
      assert.deepStrictEqual(said, ["It ended."])
    }))

  it.effect("fails at once where the first connection fails, or the service refuses a later one", () =>
    Effect.gen(function*() {
      const first = yield* run([refused])
      assert.include(JSON.stringify(yield* Fiber.await(first.fiber)), "Nothing listens.")
      const denied = new CommandFailed({ message: "The key was revoked." })
      const later = yield* run([cut, () => Effect.fail(denied)])
      yield* TestClock.adjust("2 seconds")
      assert.include(JSON.stringify(yield* Fiber.await(later.fiber)), "The key was revoked.")
    }))
})
