import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Defaults from "../../../src/domain/Defaults.ts"
import type { OperatorEvent } from "../../../src/services/observability/OperatorEvents.ts"
import * as OperatorEvents from "../../../src/services/observability/OperatorEvents.ts"
import type { Member, ToProcess, ToSupervisor } from "../../../src/services/processes/ProcessGroup.ts"
import { ProcessGroup } from "../../../src/services/processes/ProcessGroup.ts"

const { OperatorEvents: Events } = OperatorEvents

const loaded: OperatorEvents.NewEvent = { kind: "model", severity: "info", message: "Loaded chat#0." }
const opened: OperatorEvents.NewEvent = { kind: "circuit", severity: "warning", message: "Opened.", deployment: "a#0" }

const messagesOf = (events: ReadonlyArray<OperatorEvent>) => events.map(({ message }) => message)

describe("OperatorEvents", () => {
  it.effect("lists events by kind, time and number, the latest first", () =>
    Effect.gen(function*() {
      const events = yield* Events
      events.publish(loaded)
      yield* TestClock.adjust(10)
      events.publish(opened)
      events.publish({ ...loaded, message: "Loaded b#0." })
      assert.deepStrictEqual(messagesOf(events.latest()), ["Loaded b#0.", "Opened.", "Loaded chat#0."])
      assert.deepStrictEqual(messagesOf(events.latest({ since: 10 })), ["Loaded b#0.", "Opened."])
      assert.deepStrictEqual(messagesOf(events.latest({ kind: "model" })), ["Loaded b#0.", "Loaded chat#0."])
      assert.deepStrictEqual(messagesOf(events.latest({ kind: "model", limit: 1 })), ["Loaded b#0."])
      assert.strictEqual(new Set(events.latest().map(({ id }) => id)).size, 3)
    }).pipe(Effect.provide(OperatorEvents.layer)))

  it.effect("keeps the latest ones only", () =>
    Effect.gen(function*() {
      const events = yield* Events
      for (let index = 0; index <= Defaults.keptEvents; index++) events.publish({ ...loaded, message: `${index}` })
      const kept = messagesOf(events.latest())
      assert.strictEqual(kept.length, Defaults.keptEvents)
      assert.deepStrictEqual([kept[0], kept.at(-1)], [`${Defaults.keptEvents}`, "1"])
    }).pipe(Effect.provide(OperatorEvents.layer)))

  it.effect("calls listeners at once, until they end their subscription", () =>
    Effect.gen(function*() {
      const events = yield* Events
      const received: Array<OperatorEvent> = []
      const end = events.subscribe((event) => received.push(event))
      events.publish(loaded)
      assert.deepStrictEqual(messagesOf(received), ["Loaded chat#0."])
      end()
      events.publish(opened)
      assert.strictEqual(received.length, 1)
    }).pipe(Effect.provide(OperatorEvents.layer)))

  it.effect("has the events of the other processes, which it does not send on", () => {
    const sent: Array<ToSupervisor> = []
    let receive: (message: ToProcess) => void = () => {}
    const member: Partial<Member> = {
      index: 2,
      send: (message) => sent.push(message),
      listen: (listener) => {
        receive = listener
      }
    }
    const other: OperatorEvent = { ...opened, id: "evt-other-0", at: 5, process: 1 }
    return Effect.gen(function*() {
      const events = yield* Events
      events.publish(loaded)
      receive({ type: "news", news: { type: "event", event: other } })
      const [latest, own] = events.latest()
      assert.deepStrictEqual([latest, own?.process], [other, 2])
      assert.deepStrictEqual(sent, [{ type: "news", news: { type: "event", event: own! } }])
    }).pipe(
      Effect.provide(Layer.provide(OperatorEvents.layer, Layer.succeed(ProcessGroup, member as Member)))
    )
  })
})
