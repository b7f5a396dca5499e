/** Stored responses and conversations, on each database and on Redis. */
import { assert } from "@effect/vitest"
import type { Scope } from "effect"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Result, Stream } from "effect"
import { Redis } from "effect/persistence/Redis"
import { SqlClient } from "effect/sql/SqlClient"
import { TestClock } from "effect/testing"
import type { Response } from "../../src/dialects/responses/Schema.ts"
import * as Migrations from "../../src/services/persistence/Migrations.ts"
import type { Dialogue } from "../../src/services/responses/Dialogues.ts"
import * as RedisTables from "../../src/services/responses/RedisTables.ts"
import type { Limits } from "../../src/services/responses/Responses.ts"
import { Responses } from "../../src/services/responses/Responses.ts"
import { migrations } from "../../src/services/responses/ResponseStore.ts"
import * as SqlTables from "../../src/services/responses/SqlTables.ts"
import type { Tables } from "../../src/services/responses/Tables.ts"
import type { RedisKeys } from "./databases.ts"
import { onEachDatabase, onRedis } from "./databases.ts"

const day = 86_400_000
const limits: Limits = { keptMs: 30 * day, mostBytes: 1e9, mostContextBytes: 1e6 }

/** What a test stores in. */
class Store extends Context.Service<Store, Tables>()("test/conformance/responses/Store") {}

const makeWith = (more: Partial<Limits> = {}) =>
  Effect.gen(function*() {
    return new Responses(yield* Store, { ...limits, ...more }, yield* Effect.scope)
  })

const idOf = (name: string): string => `resp_${name.padEnd(22, "0")}`

const user = (text: string) => ({ type: "message", role: "user", content: text })

/** A response that says its name. */
const responseOf = (name: string, more: object = {}): Response =>
  ({
    id: idOf(name),
    status: "completed",
    store: true,
    background: false,
    output: [{ id: `msg_${name.padEnd(22, "0")}0`, type: "message", role: "assistant", content: [] }],
    ...more
  }) as unknown as Response

const of = (previous?: string, conversation?: string, owner = "a") => ({
  owner,
  previous: previous === undefined ? undefined : idOf(previous),
  conversation
})

/** Answers a request with one item. */
const answer = Effect.fnUntraced(
  function*(responses: Responses, name: string, continued = of(), more: object = {}) {
    const dialogue: Dialogue = yield* responses.dialogues.of(continued, [user(name)], idOf(name))
    yield* responses.save(continued, dialogue, responseOf(name, more))
    return dialogue
  }
)

const problemOf = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.map(
    Effect.result(effect),
    (result) => Result.isFailure(result) ? (result.failure as { readonly problem?: string }).problem : "none"
  )

/** Lets time pass until a response has a status: a database takes time that is not the clock's. */
/** The clock moves slowly: a response whose process has written nothing for 60 s has failed, and a write takes real time. */
const untilStatus = (responses: Responses, name: string, status: string) =>
  Effect.repeat(Effect.andThen(TestClock.adjust(100), responses.response("a", idOf(name))), {
    until: (body) => body["status"] === status
  })

const idsOf = ({ before, input }: Dialogue) => [...before, ...input].map(({ id }) => id.replace(/0{3,}(i?\d)$/, "$1"))

type Declare = (name: string, run: Effect.Effect<unknown, unknown, Scope.Scope | Store>) => void

const suite = (test: Declare) => {
  test(
    "continue the conversation of the responses before, of the same owner only",
    Effect.gen(function*() {
      const responses = yield* makeWith()
      yield* answer(responses, "one")
      yield* answer(responses, "two", of("one"))
      const three = yield* answer(responses, "three", of("two"))
      assert.deepStrictEqual(idsOf(three), ["msg_onei0", "msg_one0", "msg_twoi0", "msg_two0", "msg_threei0"])
      const fork = yield* answer(responses, "fork", of("one"))
      assert.deepStrictEqual(idsOf(fork), ["msg_onei0", "msg_one0", "msg_forki0"])
      assert.strictEqual(yield* problemOf(answer(responses, "theirs", of("two", undefined, "b"))), "previous-missing")
      assert.strictEqual(yield* problemOf(responses.response("b", idOf("one"))), "response-missing")
      assert.strictEqual(yield* problemOf(responses.remove("b", idOf("one"))), "response-missing")
      assert.strictEqual((yield* responses.inputOf("a", idOf("two"))).length, 3)
    })
  )

  test(
    "are deleted, and end the conversations that continue them",
    Effect.gen(function*() {
      const responses = yield* makeWith()
      yield* answer(responses, "one")
      yield* answer(responses, "two", of("one"))
      yield* responses.remove("a", idOf("one"))
      assert.strictEqual(yield* problemOf(responses.response("a", idOf("one"))), "response-missing")
      assert.strictEqual(yield* problemOf(answer(responses, "three", of("two"))), "previous-missing")
      assert.strictEqual(
        yield* problemOf(responses.response("a", "resp_'; DROP TABLE troupe_responses")),
        "response-missing"
      )
    })
  )

  test(
    "are kept for their time after the last use of their conversation",
    Effect.gen(function*() {
      const responses = yield* makeWith()
      yield* answer(responses, "one")
      yield* answer(responses, "alone")
      yield* TestClock.adjust(20 * day)
      yield* answer(responses, "two", of("one"))
      yield* TestClock.adjust(20 * day)
      assert.strictEqual(yield* problemOf(responses.response("a", idOf("alone"))), "response-missing")
      assert.strictEqual((yield* answer(responses, "three", of("two"))).before.length, 4)
    })
  )

  test(
    "are at most as large as the bound, without those that end first",
    Effect.gen(function*() {
      const responses = yield* makeWith({ mostBytes: 4_000 })
      for (const name of ["one", "two", "three", "four", "five", "six"]) {
        yield* answer(responses, name, of(), { metadata: { long: "x".repeat(1_000) } })
        yield* TestClock.adjust(1)
      }
      const found = yield* Effect.forEach(
        ["one", "two", "five", "six"],
        (name) => problemOf(responses.response("a", idOf(name)))
      )
      assert.deepStrictEqual(found, ["response-missing", "response-missing", "none", "none"])
    })
  )

  test(
    "are not continued beyond the largest conversation",
    Effect.gen(function*() {
      const responses = yield* makeWith({ mostContextBytes: 1_000 })
      yield* answer(responses, "one", of(), { metadata: { long: "x".repeat(1_000) } })
      assert.strictEqual(yield* problemOf(answer(responses, "two", of("one"))), "too-large")
    })
  )

  test(
    "give their items to requests that refer to them",
    Effect.gen(function*() {
      const responses = yield* makeWith()
      yield* answer(responses, "one")
      const reference = (id: string) => [{ type: "item_reference", id }]
      const found = yield* responses.dialogues.of(of(), reference(`msg_${"one".padEnd(22, "0")}0`), idOf("two"))
      assert.strictEqual(found.input[0]?.["role"], "assistant")
      const other = responses.dialogues.of(
        of(undefined, undefined, "b"),
        reference(`msg_${"one".padEnd(22, "0")}0`),
        idOf("two")
      )
      assert.strictEqual(yield* problemOf(other), "item-missing")
      assert.strictEqual(
        yield* problemOf(responses.dialogues.of(of(), reference("msg_1"), idOf("two"))),
        "item-missing"
      )
    })
  )

  test(
    "are generated in the background until they are complete or cancelled",
    Effect.gen(function*() {
      const responses = yield* makeWith()
      const background = { background: true, status: "queued", output: [] }
      const dialogue = yield* answer(responses, "one", of(), background)
      assert.strictEqual(yield* problemOf(answer(responses, "next", of("one"))), "previous-unfinished")
      const isGenerated = yield* Deferred.make<void>()
      yield* responses.background.start(
        of(),
        dialogue,
        idOf("one"),
        Effect.as(Deferred.await(isGenerated), responseOf("one", { background: true }))
      )
      yield* untilStatus(responses, "one", "in_progress")
      const idle = yield* Effect.forkScoped(responses.background.idle)
      assert.isUndefined(idle.pollUnsafe())
      yield* Deferred.succeed(isGenerated, undefined)
      yield* Fiber.join(idle)
      assert.strictEqual((yield* responses.response("a", idOf("one")))["status"], "completed")
      yield* untilStatus(responses, "one", "completed")
      yield* answer(responses, "two", of(), background)
      const interrupted = yield* Deferred.make<void>()
      const generated = Effect.onInterrupt(Effect.never, () => Deferred.done(interrupted, Exit.void))
      yield* responses.background.start(of(), dialogue, idOf("two"), generated)
      yield* untilStatus(responses, "two", "in_progress")
      assert.strictEqual((yield* responses.background.cancel("a", idOf("two")))["status"], "cancelled")
      yield* Effect.repeat(Effect.andThen(untilStatus(responses, "two", "cancelled"), Deferred.isDone(interrupted)), {
        until: (isDone) => isDone
      })
      assert.strictEqual((yield* responses.background.cancel("a", idOf("one")))["status"], "completed")
      yield* answer(responses, "three")
      assert.strictEqual(yield* problemOf(responses.background.cancel("a", idOf("three"))), "not-in-background")
    })
  )

  test(
    "keep the events of a stream, for their owner, until they are deleted",
    Effect.gen(function*() {
      const responses = yield* makeWith()
      const dialogue = yield* answer(responses, "one", of(), { background: true, status: "queued", output: [] })
      const [first, second, third] = [1, 2, 3].map((number) => `event: e${number}\ndata: ${number}\n\n`)
      yield* responses.background.begin(idOf("one"), first!, 0)
      yield* responses.background.startStream(of(), dialogue, idOf("one"), (frames) =>
        Effect.sync(() => {
          frames.add(second!, 1)
          frames.add(third!, 2)
          return responseOf("one", { background: true })
        }))
      yield* untilStatus(responses, "one", "completed")
      const eventsOf = (after: number, name = "one", owner = "a") =>
        Effect.flatMap(responses.background.events(owner, idOf(name), after), (events) => Stream.mkString(events))
      assert.strictEqual(yield* eventsOf(-1), `${first}${second}${third}`)
      assert.strictEqual(yield* eventsOf(0), `${second}${third}`)
      assert.strictEqual(yield* eventsOf(1), third)
      assert.strictEqual(yield* eventsOf(2), "")
      assert.strictEqual(yield* problemOf(eventsOf(-1, "one", "b")), "response-missing")
      yield* answer(responses, "two")
      assert.strictEqual(yield* problemOf(eventsOf(-1, "two")), "not-streamed")
      yield* responses.remove("a", idOf("one"))
      assert.strictEqual(yield* problemOf(eventsOf(-1)), "response-missing")
    })
  )

  test(
    "end the events of a stream whose process is gone",
    Effect.gen(function*() {
      const responses = yield* makeWith()
      yield* answer(responses, "one", of(), { background: true, status: "queued", output: [] })
      yield* responses.background.begin(idOf("one"), "event: e\ndata: 1\n\n", 0)
      yield* TestClock.adjust(120_000)
      const text = yield* Stream.mkString(yield* responses.background.events("a", idOf("one"), 0))
      assert.match(text, /^event: response\.failed\ndata: \{"type":"response\.failed","sequence_number":1,/)
    })
  )

  test(
    "have failed if the process that generates them is gone",
    Effect.gen(function*() {
      const responses = yield* makeWith()
      yield* answer(responses, "one", of(), { background: true, status: "queued", output: [] })
      yield* TestClock.adjust(120_000)
      const found = yield* responses.response("a", idOf("one"))
      assert.strictEqual(found["status"], "failed")
      assert.deepInclude(found["error"], { code: "server_error" })
    })
  )

  test(
    "are added to their conversation, which belongs to its owner",
    Effect.gen(function*() {
      const responses = yield* makeWith()
      const id = `conv_${"c".padEnd(22, "0")}`
      yield* responses.newConversation(id, "a", { topic: "x" }, [])
      yield* answer(responses, "one", of(undefined, id))
      yield* answer(responses, "two", of(undefined, id), { store: false })
      const items = yield* responses.dialogues.itemsOf("a", id)
      assert.strictEqual(items.length, 4)
      assert.strictEqual(yield* problemOf(responses.response("a", idOf("two"))), "response-missing")
      assert.strictEqual(yield* problemOf(responses.dialogues.itemsOf("b", id)), "conversation-missing")
      assert.strictEqual(yield* problemOf(answer(responses, "three", of(undefined, id, "b"))), "conversation-missing")
      assert.isTrue(yield* responses.conversations.removeItem(id, items[0]!.id))
      yield* TestClock.adjust(29 * day)
      yield* answer(responses, "four", of(undefined, id))
      yield* TestClock.adjust(29 * day)
      assert.strictEqual((yield* responses.dialogues.itemsOf("a", id)).length, 5)
      yield* responses.conversations.remove([id])
      assert.strictEqual(yield* problemOf(responses.dialogues.itemsOf("a", id)), "conversation-missing")
    })
  )
}

const inDatabase = Layer.effect(
  Store,
  Effect.andThen(Migrations.apply(migrations), Effect.map(SqlClient, SqlTables.make))
)

onEachDatabase(
  "stored responses",
  (declare) =>
    suite((name, run) =>
      declare(
        name,
        (database) =>
          Effect.provide(Effect.scoped(run), [Layer.provide(inDatabase, database.layer()), TestClock.layer()])
      )
    )
)

onRedis("stored responses", (declare) => {
  const inRedis = ({ layer, location }: RedisKeys) =>
    Layer.provideMerge(Layer.effect(Store, RedisTables.make(location.prefix, limits.keptMs)), layer())

  suite((name, run) =>
    declare(name, (redis) => Effect.provide(Effect.scoped(run), [inRedis(redis), TestClock.layer()]))
  )

  declare("are shared by all clients, and survive each of them", (redis) =>
    Effect.gen(function*() {
      const on = <A, E>(run: Effect.Effect<A, E, Scope.Scope | Store | Redis>) =>
        Effect.provide(Effect.scoped(run), [inRedis(redis)])
      yield* on(Effect.flatMap(makeWith(), (responses) => answer(responses, "one")))
      const two = yield* on(Effect.flatMap(makeWith(), (responses) => answer(responses, "two", of("one"))))
      assert.deepStrictEqual(idsOf(two), ["msg_onei0", "msg_one0", "msg_twoi0"])
    }))

  declare("have keys that Redis deletes, and are taken off the sum when they are deleted", (redis) =>
    Effect.provide(
      Effect.scoped(Effect.gen(function*() {
        const responses = yield* makeWith()
        const id = `conv_${"c".padEnd(22, "0")}`
        yield* responses.newConversation(id, "a", {}, [])
        yield* answer(responses, "one", of(undefined, id), { background: true, status: "queued" })
        yield* responses.background.begin(idOf("one"), "event: e\ndata: 1\n\n", 0)
        yield* responses.conversations.add(id, [{ id: "msg_1\n\"", type: "message" }], limits.keptMs)
        const { send } = yield* Redis
        const keys = yield* send<ReadonlyArray<string>>("KEYS", `${redis.location.prefix}responses:*`)
        assert.strictEqual(keys.length, 10)
        for (const key of keys) {
          const left = yield* send<number>("PTTL", key)
          assert.isAbove(left, 29 * day, key)
          assert.isAtMost(left, 31 * day, key)
        }
        yield* responses.remove("a", idOf("one"))
        yield* responses.conversations.remove([id])
        const { kept } = yield* Store
        assert.deepStrictEqual(yield* Effect.forEach(kept, ({ bytes }) => bytes), [0, 0])
        assert.deepStrictEqual(
          (yield* send<ReadonlyArray<string>>("KEYS", `${redis.location.prefix}responses:*`)).toSorted(),
          [`${redis.location.prefix}responses:conversations:bytes`, `${redis.location.prefix}responses:responses:bytes`]
        )
      })),
      [inRedis(redis), TestClock.layer()]
    ))
})
