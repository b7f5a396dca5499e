/** One call and its readers, in random orders of joining, leaving, pausing, events and the end. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import * as fc from "fast-check"
import * as Defaults from "../../../src/domain/Defaults.ts"
import type { AnsweredBy, Event } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { Ending, Reader } from "../../../src/services/cache/Flight.ts"
import { Flight } from "../../../src/services/cache/Flight.ts"
import type { Passenger } from "../../../src/services/cache/FlightReaders.ts"
import { SinkReader, WholeReader } from "../../../src/services/cache/FlightReaders.ts"
import { makeAnswer } from "../../../src/services/inference/DirectAnswer.ts"

const by: AnsweredBy = { deployment: "a#0", attempts: 1, decision: "dec-1" }
const passenger: Passenger = { answeredBy: () => by, endOf: (ending) => ending }
const usage = { promptTokens: 1, completionTokens: 1, cachedTokens: 0 }
const finish: Event = { type: "finish", reason: "stop", usage }
const failure = Exit.fail(InferenceError.make(new InferenceError.EngineFailed({ deployment: "a#0", detail: "broken" })))

/** What one request has received. */
class Request {
  readonly reader: Reader
  begun = 0
  text = ""
  readonly ends: Array<Effect.Effect<unknown, unknown>> = []
  hasLeft = false
  isSlow = false
  #drained: (() => void) | undefined

  constructor(flight: Flight, isWhole: boolean) {
    const resume = (end: Effect.Effect<unknown, unknown>) => void this.ends.push(end)
    this.reader = isWhole ?
      new WholeReader(flight, passenger, makeAnswer(), resume) :
      new SinkReader(flight, passenger, {
        begin: () => void this.begun++,
        events: (events) => {
          assert.strictEqual(this.begun, 1)
          assert.isFalse(this.#drained !== undefined, "events while it is slow")
          for (const event of events) if (event.type === "text") this.text += event.text
          return !this.isSlow
        },
        whenDrained: (callback) => {
          this.#drained = callback
        }
      }, resume)
  }

  drain(): void {
    this.isSlow = false
    const drained = this.#drained
    this.#drained = undefined
    drained?.()
  }

  /** The whole text, once it has ended. */
  get received(): string {
    if (!(this.reader instanceof WholeReader)) return this.text
    const exit = Effect.runSyncExit(this.ends[0]!)
    return Exit.isSuccess(exit) ? (exit.value as { readonly text: string }).text : ""
  }
}

/** A call: it stops while the flight has no room. */
class Call {
  readonly requests: Array<Request> = []
  readonly flight: Flight
  sent = ""
  isPaused = false
  isClosed = false
  ending: Ending | undefined

  constructor() {
    this.flight = new Flight(() => {
      this.isClosed = true
    })
  }

  join(isWhole: boolean): void {
    if (this.isClosed || this.ending !== undefined) return
    const request = new Request(this.flight, isWhole)
    this.requests.push(request)
    this.flight.join(request.reader)
  }

  leave(index: number): void {
    const request = this.at(index)
    if (request === undefined || request.ends.length > 0) return
    request.hasLeft = true
    this.flight.leave(request.reader)
    // The call is ended when all have left.
    if (this.flight.readers === 0) this.isClosed = true
  }

  at(index: number): Request | undefined {
    const here = this.requests.filter(({ hasLeft }) => !hasLeft)
    return here[index % Math.max(1, here.length)]
  }

  send(text: string): void {
    if (this.isPaused || this.ending !== undefined) return
    if (this.sent === "") this.flight.begin(by)
    this.sent += text
    this.#give([{ type: "text", text, tokens: 1 }])
  }

  #give(events: ReadonlyArray<Event>): void {
    if (this.flight.events(events)) return
    this.isPaused = true
    this.flight.whenDrained(() => {
      this.isPaused = false
    })
  }

  end(ending: Ending): void {
    if (this.ending !== undefined || this.sent === "" || this.isPaused) return
    if (Exit.isSuccess(ending)) this.#give([finish])
    this.ending = ending
    this.flight.end(ending)
  }
}

const small = fc.string({ minLength: 1, maxLength: 5 })

const step = fc.oneof(
  fc.boolean().map((isWhole) => (call: Call) => call.join(isWhole)),
  fc.nat(5).map((index) => (call: Call) => call.leave(index)),
  fc.nat(5).map((index) => (call: Call) => {
    const request = call.at(index)
    if (request !== undefined) request.isSlow = true
  }),
  fc.nat(5).map((index) => (call: Call) => call.at(index)?.drain()),
  { arbitrary: small.map((text) => (call: Call) => call.send(text)), weight: 4 },
  fc.constant((call: Call) => call.send("x".repeat(Defaults.cache.largestBytes / 3)))
)

const play = (steps: ReadonlyArray<(call: Call) => void>): Call => {
  const call = new Call()
  call.join(false)
  for (const next of steps) next(call)
  return call
}

const steps = fc.array(step, { maxLength: 40 })

describe("a flight", () => {
  it("gives every request that stays the whole answer, and one end", () => {
    fc.assert(
      fc.property(steps, fc.boolean(), (taken, succeeds) => {
        const call = play(taken)
        for (const request of call.requests) request.drain()
        call.send(".")
        call.end(succeeds ? Exit.void : failure)
        for (const request of call.requests) request.drain()
        for (const request of call.requests.filter(({ hasLeft }) => !hasLeft)) {
          assert.lengthOf(request.ends, 1)
          assert.strictEqual(Exit.isSuccess(Effect.runSyncExit(request.ends[0]!)), succeeds)
          if (succeeds || request.begun > 0) assert.isTrue(request.received === call.sent)
        }
      }),
      { numRuns: 500, interruptAfterTimeLimit: 4000, endOnFailure: true }
    )
  })

  it("pauses its call only if every request is slow, or one is too far behind", () => {
    fc.assert(
      fc.property(steps, (taken) => {
        const call = play(taken)
        const here = call.requests.filter(({ hasLeft }) => !hasLeft)
        if (call.isPaused && here.length > 0) {
          assert.isTrue(here.every(({ reader }) => reader.isPaused) || !call.flight.isWhole)
        }
        for (const request of here) request.drain()
        assert.isTrue(here.length === 0 || !call.isPaused)
      }),
      { numRuns: 500, interruptAfterTimeLimit: 4000, endOnFailure: true }
    )
  })

  it("gives a request that left nothing more when it is no longer slow", () => {
    const call = new Call()
    call.join(false)
    call.join(true)
    call.send("x".repeat(Defaults.cache.largestBytes))
    const [left] = call.requests
    left!.isSlow = true
    call.send("a")
    call.leave(0)
    call.send("b")
    left!.drain()
    assert.lengthOf(left!.text, Defaults.cache.largestBytes + 1)
  })

  it("keeps nothing that every request has taken, once it is too large to be joined", () => {
    const call = new Call()
    call.join(false)
    for (let index = 0; index < 12; index++) call.send("x".repeat(Defaults.cache.largestBytes / 3))
    assert.isFalse(call.flight.isWhole)
    assert.isTrue(call.isClosed)
    assert.lengthOf(call.flight.from(call.flight.length), 0)
    assert.strictEqual(call.requests[0]!.text.length, call.sent.length)
    assert.isFalse(call.isPaused)
    call.end(Exit.void)
    assert.deepStrictEqual(call.flight.last, finish)
  })
})
