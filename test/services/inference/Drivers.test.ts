/**
 * The first attempt of a request without a fiber (`Engine.start`), and the driver of effects: whatever a provider does and
 * whenever the caller leaves, both give the same events and leave the same records, and neither leaves anything behind.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Redacted, Result, Stream } from "effect"
import * as fc from "fast-check"
import type { Dialect } from "../../../src/dialects/shared/ProviderDialect.ts"
import type { RemoteDeployment } from "../../../src/domain/Deployment.ts"
import type { AnswerSink, Event } from "../../../src/domain/Inference.ts"
import { EngineFailed, make } from "../../../src/domain/InferenceError.ts"
import type { Policy } from "../../../src/domain/RoutingPolicy.ts"
import type { Engine, EventReceiver } from "../../../src/services/engines/Engine.ts"
import { fixture, textOf } from "../../layers/providers/support.ts"
import { repetitions } from "../../support/Repetitions.ts"
import type { Observation, Scenario, Script, Way } from "../../support/ScriptedProviders.ts"
import { nothing, observe, step } from "../../support/ScriptedProviders.ts"

const { buffered, stream } = fixture("openai").text

const json = { "content-type": "application/json" }

/** What a provider sends, before it is cut into pieces. */
type Body = Omit<Script, "pieces"> & { readonly bytes: Uint8Array }

const textBody = (text: string, more: Partial<Script> = {}): Body => ({ bytes: Buffer.from(text), ...more })

const whole = stream.join("")
const late = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" and more\"},\"finish_reason\":null}]}\n\n"
const overloaded = "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\"}}\n\n"
const limited = "data: {\"error\":{\"message\":\"slow down\",\"code\":\"rate_limit_exceeded\"}}\n\n"
const error = JSON.stringify({ error: { message: "No." } })

const frames = fc.nat(stream.length - 1)
const ends = fc.constantFrom("end", "cut", "stall")

const withFrame = (at: number, frame: string): string => [...stream.slice(0, at), frame, ...stream.slice(at)].join("")

const body: fc.Arbitrary<Body> = fc.oneof(
  { weight: 3, arbitrary: fc.constant(textBody(whole)) },
  fc.record({ at: fc.nat(Buffer.byteLength(whole)), end: ends }).map(({ at, end }): Body => ({
    bytes: Buffer.from(whole).subarray(0, at),
    end
  })),
  fc.record({ at: frames, end: ends }).map(({ at, end }) => textBody(stream.slice(0, at).join(""), { end })),
  fc.record({ at: frames, frame: fc.constantFrom("data: {\"choices\":[\n\n", overloaded, limited, ": ping\n\n", late) })
    .map(({ at, frame }) => textBody(withFrame(at, frame))),
  ends.map((end) => textBody(`${whole}${late}`, { end, endMs: 20 })),
  ends.map((end) => textBody(stream.slice(0, -1).join(""), { end })),
  fc.constantFrom(400, 401, 403, 404, 429, 500, 503).map((status) => textBody(error, { status, headers: json })),
  fc.constant(textBody("<html>", { headers: { "content-type": "text/html" } })),
  fc.record({ text: fc.constantFrom(JSON.stringify(buffered), error, "{\"choices\":", "[]"), end: ends })
    .map(({ end, text }) => textBody(text, { headers: json, end })),
  fc.constant(textBody("", { end: "silent" }))
)

const waits = fc.constantFrom(0, 0, 0, 10, 50, 220)

/** Cuts a body into pieces at any byte, each after a wait. */
const script: fc.Arbitrary<Script> = fc.record({
  body,
  cuts: fc.array(fc.record({ at: fc.nat(Buffer.byteLength(whole)), ms: waits }), { maxLength: 8 }),
  first: waits,
  headMs: fc.constantFrom(0, 0, 10, 320)
}).map(({ body: { bytes, ...rest }, cuts, first, headMs }) => {
  const places = cuts.filter(({ at }) => at < bytes.length).sort((one, other) => one.at - other.at)
  const pieces = [{ at: 0, ms: first }, ...places].map(({ at, ms }, index) =>
    [ms, bytes.subarray(at, places[index]?.at)] as const
  )
  return { ...rest, headMs, pieces: pieces.filter(([, piece]) => piece.length > 0) }
})

/** One is used until the provider limits or rejects it; then the other is tried within the same attempt. */
const twoKeys = { keys: [{ key: Redacted.make("sk-first") }, { key: Redacted.make("sk-second") }] } as const

/** At no multiple of the times at which providers send. */
const policyTimeouts: fc.Arbitrary<Policy["timeouts"]> = fc.oneof(
  fc.constant({}),
  fc.record({
    firstTokenMs: fc.constantFrom(undefined, 34, 127),
    stallMs: fc.constantFrom(undefined, 33, 128),
    totalMs: fc.constantFrom(undefined, 177, 406)
  })
)

const scenario: fc.Arbitrary<Scenario> = fc.record({
  scripts: fc.array(fc.array(script, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 2 }),
  leavesMs: fc.option(fc.nat(60).map((tens) => tens * 10 + 5), { nil: undefined }),
  earlier: fc.nat(2),
  policy: fc.record({ retries: fc.nat(2), timeouts: policyTimeouts }),
  options: fc.constantFrom<Partial<RemoteDeployment>>({}, { stream: true }, { stream: false }, twoKeys)
})

const run = (given: Scenario, way: Way) =>
  Effect.map(observe(given, way), ({ observation, remains }) => {
    assert.deepStrictEqual(remains, nothing)
    return observation
  })

const ways = {
  direct: { operation: "deliver", starts: true },
  driver: { operation: "deliver", starts: false },
  opened: { operation: "open", starts: false },
  generated: { operation: "generate", starts: true },
  generatedByDriver: { operation: "generate", starts: false }
} as const satisfies Record<string, Way>

/** A fiber that waits for another one lags behind the test clock by some milliseconds. */
const lagMs = 8

/** Times in ms, and what the router derives from them. */
const timesOf = /^(?:at|startedMs|firstTokenMs|tookMs|seconds|score|speed|retryAfterMs)$/

/** The observation without times, and the times. */
const withoutTimes = (observation: unknown) => {
  const times: Array<number> = []
  const rest: unknown = JSON.parse(JSON.stringify(observation), (name, value: unknown) => {
    if (typeof value === "string") return value.replaceAll(/\bin \d+ s\b/g, "in some s")
    if (typeof value !== "number" || !timesOf.test(name)) return value
    times.push(name === "seconds" ? value * 1_000 : value)
    return 0
  })
  return { rest, times }
}

const assertSame = (actual: Observation, expected: Observation) => {
  const [one, other] = [withoutTimes(actual), withoutTimes(expected)]
  assert.deepStrictEqual(one.rest, other.rest)
  for (const [index, time] of one.times.entries()) assert.closeTo(time, other.times[index]!, lagMs)
}

/** `RUNS=2000 SEED=3 npx vitest run test/services/inference/Drivers.test.ts` runs more. */
const numRuns = Number(process.env["RUNS"] ?? repetitions(30, 100))
const seed = Number(process.env["SEED"] ?? 11)
const timeout = 60_000 + 500 * numRuns

/** Fails with a counterexample. */
const assertHolds = async (holds: (given: Scenario) => Effect.Effect<void>) => {
  const property = fc.asyncProperty(scenario, (given) => Effect.runPromise(holds(given)))
  const found = await fc.check(property, { numRuns, seed })
  assert.isFalse(found.failed, found.failed ? fc.defaultReportMessage(found) : "")
}

describe("A first attempt without a fiber", () => {
  it(
    "delivers what `open` and the driver of effects give, and leaves nothing behind",
    { timeout },
    () =>
      assertHolds(Effect.fnUntraced(function*(given) {
        const direct = yield* run(given, ways.direct)
        assertSame(direct, yield* run(given, ways.driver))
        assertSame(direct, yield* run(given, ways.opened))
        assert.strictEqual(direct.outcomes.length, 1 + given.earlier!)
      }))
  )

  it(
    "generates what the driver of effects generates, and leaves nothing behind",
    { timeout },
    () =>
      assertHolds(Effect.fnUntraced(function*(given) {
        const direct = yield* run(given, ways.generated)
        assertSame(direct, yield* run(given, ways.generatedByDriver))
        assert.strictEqual(direct.outcomes.length, 1 + given.earlier!)
      }))
  )
})

const sound = (ms: number): Script => ({ pieces: stream.map((text) => [ms, Buffer.from(text)] as const) })

const refused: Script = { status: 401, headers: json, pieces: [[0, Buffer.from(error)]] }

const thrown = new Error("A defect of the test.")

const defect = (): never => {
  throw thrown
}

/** Defects of the dialect, which count against the deployment. */
const engineDefects: Readonly<Record<string, (own: Dialect) => Dialect>> = {
  "encoding the request": (own) => ({ ...own, generate: { ...own.generate, request: defect } }),
  "writing the request": (own) => ({
    ...own,
    generate: {
      ...own.generate,
      request: (...given) => Result.map(own.generate.request(...given), (call) => ({ ...call, body: { n: 1n } }))
    }
  }),
  "making the decoder": (own) => ({ ...own, generate: { ...own.generate, events: defect } }),
  "decoding a frame": (own) => ({
    ...own,
    generate: { ...own.generate, events: () => ({ push: defect, end: defect }) }
  }),
  "decoding the second frame": (own) => ({
    ...own,
    generate: {
      ...own.generate,
      events: (...given) => {
        const decoder = own.generate.events(...given)
        let count = 0
        return { push: (frame) => count++ > 1 ? defect() : decoder.push(frame), end: () => decoder.end() }
      }
    }
  }),
  "decoding the end": (own) => ({
    ...own,
    generate: {
      ...own.generate,
      events: (...given) => ({ ...own.generate.events(...given), end: defect })
    }
  }),
  "decoding a buffered answer": (own) => ({ ...own, generate: { ...own.generate, buffered: defect } }),
  "reading a refusal": (own) => ({ ...own, failure: defect })
}

/** An engine that sends these events at once, and then ends. */
const engineOf = (events: ReadonlyArray<Event>, ending: "end" | "died" | "failed") => (own: Engine): Engine => {
  const failure = make(new EngineFailed({ deployment: "m#0", detail: "It broke." }))
  const ends = {
    end: { stream: Stream.empty, call: (receiver: EventReceiver) => receiver.end() },
    died: { stream: Stream.die(thrown), call: (receiver: EventReceiver) => receiver.died(thrown) },
    failed: { stream: Stream.fail(failure), call: (receiver: EventReceiver) => receiver.failed(failure) }
  }
  return {
    ...own,
    generate: () => Stream.concat(Stream.fromIterable(events), ends[ending].stream),
    start: (_, __, receiver) => {
      let isClosed = false
      queueMicrotask(() => {
        if (!isClosed && events.length > 0) receiver.events(events)
        if (!isClosed) ends[ending].call(receiver)
      })
      return {
        pause: () => {},
        resume: () => {},
        close: () => {
          isClosed = true
        }
      }
    }
  }
}

const text: Event = { type: "text", text: "Hello", tokens: 1 }
const finish: Event = {
  type: "finish",
  reason: "stop",
  usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 }
}

describe("An engine that ends wrongly", () => {
  for (const ending of ["end", "died", "failed"] as const) {
    for (const [what, events] of [["nothing", []], ["text", [text]], ["an answer", [text, finish]]] as const) {
      it.live(`ends a request as with the driver of effects: \`${ending}\` after ${what}`, () =>
        Effect.gen(function*() {
          const given: Scenario = { scripts: [[sound(0)], [sound(0)]], engine: engineOf(events, ending) }
          const direct = yield* run(given, ways.direct)
          assertSame(direct, yield* run(given, ways.driver))
          assertSame(direct, yield* run(given, ways.opened))
          assertSame(yield* run(given, ways.generated), yield* run(given, ways.generatedByDriver))
          assert.strictEqual(direct.end === "success", events.length === 2 && ending !== "failed")
        }))
    }
  }
})

describe("The time limits of a policy", () => {
  const limits: Readonly<Record<string, Policy["timeouts"]>> = {
    "first token": { firstTokenMs: 127 },
    "between two pieces": { stallMs: 128 },
    "total": { totalMs: 406, byCaller: "total" },
    "all": { firstTokenMs: 127, stallMs: 33, totalMs: 406, byCaller: "all" }
  }
  const stalling = (count: number): Script => ({
    pieces: stream.slice(0, count).map((text) => [10, Buffer.from(text)] as const),
    end: "stall"
  })
  const slow: Readonly<Record<string, Script>> = {
    "no headers": { pieces: [], end: "silent" },
    "no content": stalling(1),
    "the first words": stalling(4),
    "all but the end": stalling(stream.length - 1),
    "all without the end of the connection": stalling(stream.length),
    "everything in time": sound(10),
    "everything, slowly": sound(100)
  }
  for (const [name, timeouts] of Object.entries(limits)) {
    for (const [what, play] of Object.entries(slow)) {
      it.live(`end an attempt as with the driver of effects: ${name}, the provider sends ${what}`, () =>
        Effect.gen(function*() {
          let starts = 0
          const given: Scenario = {
            scripts: [[play], [sound(0)]],
            policy: { retries: 0, timeouts },
            engine: (own) => ({
              ...own,
              start: (...given) => {
                starts++
                return own.start?.(...given)
              }
            })
          }
          const direct = yield* run(given, ways.direct)
          assert.isAbove(starts, 0)
          assertSame(direct, yield* run(given, ways.driver))
          assertSame(direct, yield* run(given, ways.opened))
          assertSame(yield* run(given, ways.generated), yield* run(given, ways.generatedByDriver))
        }))
    }
  }

  for (const policy of [{}, { continue: true }]) {
    for (const later of [0, 300]) {
      it.live(`end a request whose reader is slow by the total one: ${JSON.stringify(policy)}, ${later} ms between reads`, () =>
        Effect.gen(function*() {
          const seen: Array<Observation> = []
          for (const way of [ways.direct, ways.driver]) {
            const { slow, state } = makeSlowSink(1)
            const given: Scenario = {
              scripts: [[long(50, 10)]],
              policy: { retries: 0, timeouts: { stallMs: 128, totalMs: 406 }, ...policy },
              options: { timeouts: {} },
              sink: slow,
              each: (index) => {
                if (later > 0 && index % (later / step) === later / step - 1) state.drain?.()
              }
            }
            seen.push(yield* run(given, way))
          }
          for (const { end } of seen) {
            assert.deepInclude((end as { reason: object }).reason, { _tag: "UpstreamTimeout", phase: "total" })
          }
          // How much of a slow reader's answer was received until then differs, and so its cost.
          const [direct, driver] = seen.map(({ end, records }) => {
            const text = JSON.stringify(
              records,
              (name, value: unknown) => /^(?:outputTokens|usd)$/.test(name) ? undefined : value
            )
            return withoutTimes({ end, records: JSON.parse(text) as unknown }).rest
          })
          assert.deepStrictEqual(direct, driver)
        }))
    }
  }

  for (const way of [ways.direct, ways.driver]) {
    it.live(`are otherwise without the time of a slow reader: ${way.starts ? "direct" : "driver"}`, () =>
      Effect.gen(function*() {
        const { slow, state } = makeSlowSink(1)
        const given: Scenario = {
          scripts: [[long(20, 10)]],
          policy: { retries: 0, timeouts: { firstTokenMs: 127, stallMs: 128 } },
          options: { timeouts: {} },
          sink: slow,
          each: (index) => {
            if (index % 100 === 99) state.drain?.()
          }
        }
        const { end } = yield* run(given, way)
        assert.strictEqual(end, "success")
      }))
  }
})

/** The second request cannot be written. */
const unwritable = (own: Dialect): Dialect => {
  let count = 0
  return {
    ...own,
    generate: {
      ...own.generate,
      request: (...given) =>
        Result.map(own.generate.request(...given), (call) => count++ > 0 ? { ...call, body: { n: 1n } } : call)
    }
  }
}

describe("The probe of a rejected key", () => {
  const probing: Readonly<Record<string, Partial<Scenario>>> = {
    "its caller leaves": { leavesMs: 100 },
    "no headers come": {},
    "its request cannot be written": { dialect: unwritable }
  }
  for (const [when, more] of Object.entries(probing)) {
    it.live(`is released if ${when}`, () =>
      Effect.gen(function*() {
        const silent: Script = { pieces: [], end: "silent" }
        // The other key answers, so that the circuit has no failures.
        const scripts = [[refused, sound(0), silent]]
        const given: Scenario = { scripts, options: twoKeys, policy: { retries: 0 }, earlier: 1, ...more }
        const { observation, probes } = yield* observe(given, ways.direct)
        assert.isAbove(probes, 0)
        assertSame(observation, yield* run(given, ways.driver))
        yield* run(given, ways.direct)
      }))
  }
})

/** Defects of a sink, which count against nobody. */
const sinkDefects: Readonly<Record<string, (sink: AnswerSink) => AnswerSink>> = {
  "begin": (sink) => ({ ...sink, begin: defect }),
  "the first events": (sink) => ({ ...sink, events: defect }),
  "later events": (sink) => {
    let count = 0
    return { ...sink, events: (events) => count++ > 0 ? defect() : sink.events(events) }
  },
  "whenDrained": (sink) => ({ ...sink, events: () => false, whenDrained: defect })
}

const plays: Readonly<Record<string, Script>> = {
  "a slow answer": sound(10),
  "an answer at once": sound(0),
  "an answer without a mark of its end": { pieces: stream.slice(0, -1).map((text) => [10, Buffer.from(text)]) },
  "a buffered answer": { headers: json, pieces: [[10, Buffer.from(JSON.stringify(buffered))]] },
  "a refusal": { status: 500, headers: json, pieces: [[10, Buffer.from(error)]] }
}

describe("Defects end a request as with the driver of effects", () => {
  for (const [where, dialect] of Object.entries(engineDefects)) {
    for (const [what, play] of Object.entries(plays)) {
      it.live(`an engine's, ${where} of ${what}`, () =>
        Effect.gen(function*() {
          const given: Scenario = { scripts: [[play], [play]], dialect, policy: { retries: 1 } }
          assertSame(yield* run(given, ways.direct), yield* run(given, ways.driver))
          assertSame(yield* run(given, ways.generated), yield* run(given, ways.generatedByDriver))
          const rejected: Scenario = { ...given, scripts: [[refused, play], [refused, play]], earlier: 2 }
          assertSame(yield* run(rejected, ways.direct), yield* run(rejected, ways.driver))
        }))
    }
  }

  for (const [where, sink] of Object.entries(sinkDefects)) {
    for (const [what, play] of Object.entries(plays)) {
      it.live(`a sink's, in ${where}, with ${what}`, () =>
        Effect.gen(function*() {
          const given: Scenario = { scripts: [[play], [play]], sink, policy: { retries: 1 } }
          const direct = yield* run(given, ways.direct)
          assertSame(direct, yield* run(given, ways.driver))
          if (play.status === undefined) assert.deepStrictEqual(direct.exchanges, [1, 0])
        }))
    }
  }
})

/** A sink whose reader takes no more until `drain`. */
const makeSlowSink = (readsFirst: number) => {
  let left = readsFirst
  const state = { passed: 0, beyond: 0, drain: undefined as (() => void) | undefined }
  const slow = (sink: AnswerSink): AnswerSink => ({
    begin: sink.begin,
    events: (events) => {
      if (state.drain !== undefined) state.beyond++
      state.passed += events.length
      sink.events(events)
      return left-- > 0
    },
    whenDrained: (callback) => {
      state.drain = () => {
        state.drain = undefined
        callback()
      }
    }
  })
  return { state, slow }
}

const contentFrame = (text: string) =>
  Buffer.from(`data: {"choices":[{"index":0,"delta":{"content":"${text}"},"finish_reason":null}]}\n\n`)

const long = (count: number, ms: number): Script => ({
  pieces: [
    ...Array.from({ length: count }, (_, index) => [ms, contentFrame(`${index} `)] as const),
    ...stream.slice(-3).map((text) => [ms, Buffer.from(text)] as const)
  ]
})

describe("A sink that is slow", () => {
  it(
    "gets nothing more until it has drained, whatever the provider does",
    { timeout },
    () =>
      assertHolds(Effect.fnUntraced(function*(given) {
        const seen: Array<Observation> = []
        for (const way of [ways.direct, ways.driver]) {
          let state: ReturnType<typeof makeSlowSink>["state"] | undefined
          const slow: Scenario = {
            ...given,
            sink: (sink) => {
              const made = makeSlowSink(0)
              state = made.state
              return made.slow(sink)
            },
            each: (index) => {
              if (index % 7 === 6) state?.drain?.()
            }
          }
          seen.push(yield* run(slow, way))
          assert.strictEqual(state?.beyond ?? 0, 0)
        }
        const [direct, driver] = seen
        assert.notStrictEqual(direct!.end, "never")
        if (direct!.end === "success" && driver!.end === "success") {
          assert.strictEqual(textOf(direct!.events), textOf(driver!.events))
        }
      }))
  )

  const watching = { timeouts: { stall: Duration.millis(203), firstToken: Duration.millis(503) } }
  for (const [name, ms, way] of [["direct", 10, ways.direct], ["driver", 10, ways.driver]] as const) {
    it.live(`gets nothing more until it has drained, and its pause is no stall: ${name}`, () =>
      Effect.gen(function*() {
        const { slow, state } = makeSlowSink(1)
        const drained: Array<number> = []
        const given: Scenario = {
          scripts: [[long(20, ms)]],
          options: watching,
          sink: slow,
          // Each time after a pause that is longer than the limit of a stall.
          each: (index) => {
            if (index % 100 !== 99 || state.drain === undefined) return
            drained.push(state.passed)
            state.drain()
          }
        }
        const { end, events } = yield* run(given, way)
        assert.strictEqual(end, "success")
        assert.strictEqual(state.beyond, 0)
        assert.strictEqual(textOf(events), Array.from({ length: 20 }, (_, index) => `${index} `).join(""))
        assert.isAbove(drained.length, 0)
      }))

    it.live(`ends the exchange if the caller leaves in a pause: ${name}`, () =>
      Effect.gen(function*() {
        const { slow, state } = makeSlowSink(1)
        const { end, events, exchanges } = yield* run({
          scripts: [[long(20, ms)]],
          options: watching,
          sink: slow,
          leavesMs: 1_000
        }, way)
        assert.strictEqual(end, "left")
        assert.strictEqual(state.beyond, 0)
        assert.isBelow(events.length, 5)
        assert.deepStrictEqual(exchanges, [1])
        // The reader has drained after its caller left.
        state.drain?.()
      }))
  }

  it.live("does not read from the provider meanwhile", () =>
    Effect.gen(function*() {
      const { slow } = makeSlowSink(1)
      const given: Scenario = { scripts: [[long(50, 10)]], options: watching, sink: slow, leavesMs: 1_000 }
      const { providers } = yield* observe(given, ways.direct)
      assert.isBelow(providers[0]!.sent, 6)
    }))

  it.live("gets the failure after the events before it", () =>
    Effect.gen(function*() {
      const { slow, state } = makeSlowSink(0)
      const given: Scenario = {
        scripts: [[{ pieces: [[10, contentFrame("a")], [10, contentFrame("b")]], end: "cut" }]],
        policy: { retries: 0 },
        sink: slow,
        each: (index) => {
          if (index % 20 === 19) state.drain?.()
        }
      }
      for (const way of [ways.direct, ways.driver]) {
        const { end, events } = yield* run(given, way)
        assert.strictEqual(textOf(events), "ab")
        assert.deepInclude((end as { readonly reason: object }).reason, { _tag: "UpstreamFailed", kind: "cut" })
        assert.strictEqual(state.beyond, 0)
      }
    }))
})

describe("A caller who leaves within its sink", () => {
  for (const [what, play] of Object.entries(plays)) {
    for (const at of [0, 1, 2]) {
      it.live(`ends the exchange, at the events ${at} of ${what}`, () =>
        Effect.gen(function*() {
          let count = 0
          const given: Scenario = {
            scripts: [[play], [play]],
            policy: { retries: 0 },
            sink: (sink, leave) => ({
              ...sink,
              events: (events) => {
                const ready = sink.events(events)
                if (count++ === at) leave()
                return ready
              }
            })
          }
          const { outcomes } = yield* run(given, ways.direct)
          assert.strictEqual(outcomes.length, 1)
        }))
    }
  }
})
