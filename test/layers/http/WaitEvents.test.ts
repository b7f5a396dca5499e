import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Result, Stream } from "effect"
import type { HttpServerResponse } from "effect/http"
import { TestClock } from "effect/testing"
import * as ServerSentEvents from "../../../src/layers/http/ServerSentEvents.ts"
import * as WaitEvents from "../../../src/layers/http/WaitEvents.ts"
import type { WaitProgress } from "../../../src/services/models/Waits.ts"
import { progressHeader, progressIn, RequestWaits, Waits } from "../../../src/services/models/Waits.ts"

const progress: WaitProgress = {
  model: "m",
  deployment: "m#0",
  state: "queued",
  position: 3,
  progress: null,
  waitedMs: 12
}

const event = "event: troupe.progress\n" +
  `data: {"type":"troupe.progress","model":"m","deployment":"m#0","state":"queued","position":3,"progress":null,"waitedMs":12}\n\n`

const waiting = () => {
  const waits = new Waits()
  waits.add(() => progress)
  return waits
}

const seconds = (count: number) => TestClock.adjust(`${count} seconds`)

describe("the header", () => {
  it.each([[undefined, false], ["true", true], ["True ", true], ["false", false]])("%s", (value, asks) => {
    const waits = WaitEvents.ofHeaders(value === undefined ? {} : { [progressHeader]: value })
    assert.strictEqual(Result.getOrThrow(waits) !== undefined, asks)
  })

  it.each(["", "1", "yes"])("%j is refused", (value) => {
    const problem = WaitEvents.ofHeaders({ [progressHeader]: value })
    assert.include(
      Result.isFailure(problem) ? problem.failure.message : "",
      "x-troupe-progress: Expected true or false"
    )
  })
})

describe("the wait at another instance", () => {
  const names = { model: "own", deployment: "own#0" }

  it("has the names of this one, and is read only where it says where the request waits", () => {
    assert.deepStrictEqual(progressIn({ type: "troupe.progress", ...progress }, names), { ...progress, ...names })
    assert.strictEqual(progressIn({ ...progress, state: "loading", progress: 0.5 }, names)?.progress, 0.5)
    for (const other of [undefined, null, "text", {}, { ...progress, position: -1 }, { ...progress, state: "lost" }]) {
      assert.isUndefined(progressIn(other, names))
    }
  })

  it("is over when nothing more is said, and after the waits here", () => {
    const waits = new Waits()
    let here: WaitProgress | undefined = progress
    waits.add(() => here)
    const there = { ...progress, ...names }
    waits.tell(there)
    assert.strictEqual(waits.look(), progress)
    here = undefined
    assert.deepStrictEqual([1, 2, 3, 4].map(() => waits.look()), [there, there, there, undefined])
    waits.tell(there)
    assert.strictEqual(waits.look(), there)
    waits.end()
    assert.isUndefined(waits.look())
  })
})

describe("events while a request waits", () => {
  it.effect("come every second until the answer begins", () =>
    Effect.gen(function*() {
      const waits = waiting()
      const written: Array<string> = []
      const fiber = yield* Effect.forkChild(WaitEvents.during(waits, (text) => written.push(text), Effect.never))
      yield* TestClock.adjust(999)
      assert.deepStrictEqual(written, [])
      yield* seconds(2)
      assert.deepStrictEqual(written, [event, event])
      waits.end()
      yield* seconds(10)
      assert.deepStrictEqual(written, [event, event])
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("end with the request: a caller who leaves, a failure, an answer", () =>
    Effect.gen(function*() {
      for (const end of ["leaves", "fails", "answers"]) {
        const written: Array<string> = []
        let looks = 0
        const waits = new Waits()
        waits.add(() => {
          looks++
          return progress
        })
        const ended = yield* Deferred.make<void, string>()
        const answered = WaitEvents.during(waits, (text) => written.push(text), Deferred.await(ended))
        const fiber = yield* Effect.forkChild(answered)
        yield* seconds(1)
        if (end === "leaves") yield* Fiber.interrupt(fiber)
        if (end === "fails") yield* Deferred.fail(ended, "failed")
        if (end === "answers") yield* Deferred.succeed(ended, undefined)
        yield* Fiber.await(fiber)
        yield* seconds(10)
        assert.deepStrictEqual([written, looks], [[event], 1])
      }
    }))

  it.effect("come none while it waits nowhere, and again when it waits for another deployment", () =>
    Effect.gen(function*() {
      const waits = new Waits()
      const written: Array<string> = []
      const fiber = yield* Effect.forkChild(WaitEvents.during(waits, (text) => written.push(text), Effect.never))
      yield* seconds(2)
      assert.deepStrictEqual(written, [])
      waits.add(() => progress)
      yield* seconds(1)
      assert.deepStrictEqual(written, [event])
      yield* Fiber.interrupt(fiber)
    }))
})

describe("a response that is not Node's", () => {
  const failureFrames = { error: () => "error", defect: () => "defect" }

  /** The texts of its body so far. */
  const follow = Effect.fnUntraced(function*(waits: Waits | undefined, frames: Stream.Stream<string>) {
    const call = { id: "id", headers: {}, response: undefined, waits }
    const texts: Array<string> = []
    const reading = Effect.gen(function*() {
      const response = yield* ServerSentEvents.respond(
        call,
        failureFrames,
        (setHeaders) =>
          Stream.map(frames, (frame) => {
            setHeaders({})
            return frame
          })
      )
      const { stream } = response.body as HttpServerResponse.HttpServerResponse["body"] & { readonly _tag: "Stream" }
      yield* Stream.runForEach(stream, (bytes) => Effect.sync(() => texts.push(new TextDecoder().decode(bytes))))
    })
    yield* Effect.forkScoped(reading)
    return texts
  })

  it.effect("has events every second until its first content, and is kept alive after it", () =>
    Effect.gen(function*() {
      const content = yield* Deferred.make<string>()
      const waits = waiting()
      const seen: Array<Waits | undefined> = []
      const first = Stream.fromEffect(Effect.andThen(
        Effect.map(RequestWaits, (found) => seen.push(found)),
        Deferred.await(content)
      ))
      const texts = yield* follow(waits, Stream.concat(first, Stream.never))
      yield* seconds(2)
      assert.deepStrictEqual(texts, [event, event])
      yield* Deferred.succeed(content, "content")
      yield* seconds(14)
      assert.deepStrictEqual(texts, [event, event, "content"])
      yield* seconds(2)
      assert.deepStrictEqual(texts, [event, event, "content", ": keep-alive\n\n"])
      assert.deepStrictEqual(seen, [waits])
    }).pipe(Effect.scoped))

  it.effect("is kept alive where the request waits for no deployment", () =>
    Effect.gen(function*() {
      const texts = yield* follow(new Waits(), Stream.never)
      yield* seconds(14)
      assert.deepStrictEqual(texts, [])
      yield* seconds(1)
      assert.deepStrictEqual(texts, [": keep-alive\n\n"])
    }).pipe(Effect.scoped))

  it.effect("has none if nobody asks", () =>
    Effect.gen(function*() {
      const texts = yield* follow(undefined, Stream.never)
      yield* seconds(15)
      assert.deepStrictEqual(texts, [": keep-alive\n\n"])
    }).pipe(Effect.scoped))
})
