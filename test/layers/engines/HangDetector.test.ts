import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { TestClock } from "effect/testing"
import type { EngineHost, SendCommand } from "../../../src/domain/EngineProtocol.ts"
import type { EngineFailure, Job, JobEvent } from "../../../src/domain/Job.ts"
import * as HangDetector from "../../../src/layers/engines/HangDetector.ts"

const generate: Job = {
  kind: "generate",
  messages: [{ role: "user", content: "Hello" }],
  sampling: { temperature: 0, topP: 1, seed: 1 },
  stop: [],
  window: 10
}

const tokens = (count: number): JobEvent => ({ type: "tokens", text: "x", count })

/** A scripted host with hang detection, one of its jobs, and the number of detected hangs. */
const watched = Effect.fnUntraced(function*(stallAfter: Duration.Duration = Duration.seconds(10), job: Job = generate) {
  const given: Array<EngineFailure> = []
  const heard: Array<JobEvent> = []
  const listeners: Array<(events: ReadonlyArray<JobEvent>) => void> = []
  const host: EngineHost = {
    ready: new Promise(() => {}),
    exited: new Promise(() => {}),
    isOver: () => false,
    memoryBytes: () => 0,
    abandon(failure) {
      given.push(failure)
      for (const listen of listeners.splice(0)) listen([{ type: "failed", failure }])
    },
    close: () => Promise.resolve(),
    start(_, onEvents) {
      listeners.push(onEvents)
      return () => {}
    }
  }
  const guarded = yield* HangDetector.watch(host, stallAfter)
  const send: SendCommand = guarded.start(job, (events) => heard.push(...events))
  return {
    given,
    heard,
    send,
    start: () => guarded.start(job, () => {}),
    emit: (event: JobEvent) => listeners[0]?.([event])
  }
})

const hung: Array<EngineFailure> = [{ kind: "hung", afterMs: 10_000 }]

describe("HangDetector", () => {
  it.effect("detects a silent engine with a waiting job, within 125 % of the limit", () =>
    Effect.gen(function*() {
      const { given, heard } = yield* watched()
      yield* TestClock.adjust("9999 millis")
      assert.deepStrictEqual(given, [])
      yield* TestClock.adjust("2501 millis")
      assert.deepStrictEqual(given, hung)
      assert.deepStrictEqual(heard.map(({ type }) => type), ["failed"])
      // Once: the job has ended.
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(given, hung)
    }))

  it.effect("counts every event, including progress of a prompt", () =>
    Effect.gen(function*() {
      const { emit, given } = yield* watched()
      for (let count = 0; count < 20; count++) {
        yield* TestClock.adjust("9 seconds")
        emit({ type: "progress" })
      }
      assert.deepStrictEqual(given, [])
      yield* TestClock.adjust("13 seconds")
      assert.deepStrictEqual(given, hung)
    }))

  it.effect("allows silence if the consumer does not read", () =>
    Effect.gen(function*() {
      const { emit, given } = yield* watched()
      emit(tokens(10))
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(given, [])
    }))

  it.effect("measures silence from the consumer's next grant", () =>
    Effect.gen(function*() {
      const { emit, given, send } = yield* watched()
      emit(tokens(12))
      yield* TestClock.adjust("1 hour")
      send({ type: "grant", tokens: 2 })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(given, [])
      send({ type: "grant", tokens: 1 })
      yield* TestClock.adjust("9 seconds")
      assert.deepStrictEqual(given, [])
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual(given, hung)
    }))

  it.effect("does not count reads of earlier events as a sign of the engine", () =>
    Effect.gen(function*() {
      const { emit, given, send } = yield* watched()
      emit(tokens(5))
      for (let count = 0; count < 5; count++) {
        yield* TestClock.adjust("2500 millis")
        send({ type: "grant", tokens: 1 })
      }
      assert.deepStrictEqual(given, hung)
    }))

  it.effect("also expects events of a cancelled job, which holds its slot", () =>
    Effect.gen(function*() {
      const { given, send } = yield* watched()
      send({ type: "cancel" })
      yield* TestClock.adjust("13 seconds")
      assert.deepStrictEqual(given, hung)
    }))

  it.effect("expects nothing of an ended job, or of an engine without jobs", () =>
    Effect.gen(function*() {
      const { emit, given } = yield* watched()
      emit({ type: "finished", reason: "stop", usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 } })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(given, [])
    }))

  it.effect("expects events of each job separately", () =>
    Effect.gen(function*() {
      const { given, start, emit } = yield* watched()
      start()
      for (let count = 0; count < 4; count++) {
        yield* TestClock.adjust("3 seconds")
        emit({ type: "progress" })
      }
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(given, hung)
    }))

  it.effect("expects events of a buffered job", () =>
    Effect.gen(function*() {
      const { given } = yield* watched(Duration.seconds(10), { kind: "embed", inputs: ["Hello"] })
      yield* TestClock.adjust("13 seconds")
      assert.deepStrictEqual(given, hung)
    }))

  it.effect("is off with an infinite limit", () =>
    Effect.gen(function*() {
      const { given } = yield* watched(Duration.infinity)
      yield* TestClock.adjust("1000 days")
      assert.deepStrictEqual(given, [])
    }))

  it.effect("ends with its scope", () =>
    Effect.gen(function*() {
      const { given } = yield* Effect.scoped(watched())
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(given, [])
    }))
})
