import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Latch, Random, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import { Breaker } from "../../../src/services/health/Breaker.ts"
import { endingOf } from "../../../src/services/health/Circuit.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import { DecisionLog } from "../../../src/services/routing/DecisionLog.ts"
import { Router } from "../../../src/services/routing/Router.ts"
import { world } from "../../support/Routing.ts"

const messages = [{ role: "user", content: "Hello" }] as const
const broke = (id: string) => new InferenceError.EngineFailed({ deployment: id, detail: "It broke." })

/** In the order of the configuration. */
const inOrder: Partial<RoutingPolicy.Policy> = {
  selection: { ...RoutingPolicy.defaults.selection, strategy: "cost", keep: 9 }
}

const generate = (more: Partial<Request> = {}) =>
  Inference.use((inference) => inference.generate({ model: "a", messages, ...more }))

const texts = (more: Partial<Request> = {}) =>
  Inference.use((inference) =>
    Effect.scoped(
      Effect.flatMap(inference.open({ model: "a", messages, ...more }), ({ events, ...by }) =>
        Effect.map(Stream.runCollect(events), (all) => ({
          ...by,
          text: all.map((event) => event.type === "text" ? event.text : "").join("")
        })))
    )
  )

const recordOf = (id: string) => DecisionLog.use(({ find }) => Effect.succeed(find(id)!))

/** The result, and as much time as it takes. */
const after = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect)
    yield* TestClock.adjust("1 minute")
    return yield* Fiber.join(fiber)
  })

describe("routing", () => {
  describe("a record of each request", () => {
    it.effect("has every attempt with its time and error, and the deployment that answered", () => {
      const { layer } = world({
        policy: inOrder,
        models: { a: [{ firstMs: 40, fails: { reason: broke("a#0") } }, { firstMs: 30, gapMs: 5, pieces: ["x", "y"] }] }
      })
      return Effect.gen(function*() {
        const { attempts, decision, deployment } = yield* after(generate())
        assert.deepStrictEqual({ attempts, deployment }, { attempts: 2, deployment: "a#1" })
        const record = yield* recordOf(decision)
        assert.deepInclude(record, { operation: "chat", model: "a", answeredBy: "a#1", end: "success", tookMs: 75 })
        assert.deepStrictEqual(record.attempts, [
          {
            deployment: "a#0",
            startedMs: 0,
            grantedMs: 0,
            outcome: "failed",
            tookMs: 40,
            error: { reason: "EngineFailed", message: "The engine of \"a#0\" failed: It broke." }
          },
          { deployment: "a#1", startedMs: 40, grantedMs: 0, outcome: "answered", firstTokenMs: 30, tookMs: 35, usd: 0 }
        ])
      }).pipe(Effect.provide(layer))
    })

    it.effect("is named by the error if all have failed", () => {
      const { layer } = world({ models: { a: [{ fails: { reason: broke("a#0") } }] } })
      return Effect.gen(function*() {
        const { decision } = yield* after(Effect.flip(generate()))
        const record = yield* recordOf(decision!)
        assert.strictEqual(record.end, "failure")
        assert.isUndefined(record.answeredBy)
      }).pipe(Effect.provide(layer))
    })

    it.effect("is kept for a request that no deployment can take", () => {
      const { layer } = world({ models: { a: [{ options: { abilities: ["generate"] } }] } })
      return Effect.gen(function*() {
        const { attempts, decision, reason } = yield* Effect.flip(generate({ tools: [{ name: "f" }] }))
        assert.strictEqual(reason._tag, "InvalidRequest")
        assert.deepStrictEqual(attempts, [])
        const record = yield* recordOf(decision!)
        assert.deepInclude(record, { end: "failure", attempts: [] })
        assert.lengthOf(record.decision.excluded, 1)
      }).pipe(Effect.provide(layer))
    })

    it.effect("shows that the caller disconnected", () => {
      const { jobs, layer } = world({ models: { a: [{ firstMs: 1_000 }] } })
      return Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(generate())
        yield* TestClock.adjust(400)
        yield* Fiber.interrupt(fiber)
        const [record] = yield* DecisionLog.use(({ latest }) => Effect.succeed(latest(1)))
        assert.deepInclude(record, { end: "interruption", tookMs: 400 })
        assert.deepInclude(record!.attempts[0], { outcome: "left", tookMs: 400 })
        assert.isTrue(jobs[0]!.left)
      }).pipe(Effect.provide(layer))
    })
  })

  describe("a prompt that is too long", () => {
    it.effect("goes to the deployment whose loaded engine has a larger window, whatever is configured", () => {
      const loaded = (deployment: string, contextWindow: number) =>
        ({ deployment, state: "ready", capabilities: ["generate"], contextWindow, at: 0 }) as const
      const reason = new InferenceError.ContextLengthExceeded({ model: "a", promptTokens: 300, contextWindow: 200 })
      const { layer } = world({
        policy: inOrder,
        events: [loaded("a#1", 100), loaded("a#2", 400)],
        models: {
          a: [
            { fails: { reason } },
            { options: { contextSize: 4_096 } },
            { options: { contextSize: 100 } }
          ]
        }
      })
      return Effect.gen(function*() {
        yield* Effect.repeat(Effect.yieldNow, { times: 9 })
        const { attempts, deployment } = yield* after(generate())
        assert.deepStrictEqual({ attempts, deployment }, { attempts: 2, deployment: "a#2" })
      }).pipe(Effect.provide(layer))
    })
  })

  describe("a limit that the request itself sets", () => {
    const short: RoutingPolicy.Policy = { ...RoutingPolicy.defaults, name: "short", timeouts: { firstTokenMs: 5 } }
    const asked: Readonly<Record<string, Request["route"]>> = {
      "its time as a whole": { timeoutMs: 5 },
      "a policy with a shorter one": { policy: "short" },
      "a policy, and a time": { policy: "short", timeoutMs: 3 }
    }
    const timeout = (route: Request["route"]) => after(Effect.flip(generate({ route: { retries: 0, ...route } })))
    const phaseOf = Breaker.use(({ states }) => Effect.map(states, ([state]) => state?.phase))

    for (const [name, route] of Object.entries(asked)) {
      it.effect(`does not count against the deployment: ${name}`, () => {
        const { layer } = world({ policies: [short], models: { a: [{ firstMs: 50 }] } })
        return Effect.gen(function*() {
          for (let call = 0; call < 6; call++) {
            assert.strictEqual((yield* timeout(route)).reason._tag, "UpstreamTimeout")
          }
          assert.strictEqual(yield* phaseOf, "closed")
          yield* after(generate())
        }).pipe(Effect.provide(layer))
      })
    }

    it.effect("differs from the policy's own, which counts even if the request sets the same value", () => {
      const { layer } = world({ policy: { timeouts: { totalMs: 5 } }, models: { a: [{ firstMs: 50 }] } })
      return Effect.gen(function*() {
        for (let call = 0; call < 5; call++) yield* timeout(call % 2 === 0 ? {} : { timeoutMs: 1_000 })
        assert.strictEqual(yield* phaseOf, "open")
      }).pipe(Effect.provide(layer))
    })
  })

  describe("a second attempt beside a slow one", () => {
    const hedged = { ...inOrder, hedge: { afterMs: 50, share: 1 } }

    it.effect("answers if it is faster, and the slow one is cancelled", () => {
      const { jobs, layer } = world({ policy: hedged, models: { a: [{ firstMs: 500 }, { firstMs: 20 }] } })
      return Effect.gen(function*() {
        const { decision, text } = yield* after(texts())
        assert.strictEqual(text, "a#1")
        const record = yield* recordOf(decision)
        assert.deepStrictEqual(
          record.attempts.map(({ deployment, hedge, outcome, startedMs, tookMs }) => ({
            deployment,
            hedge,
            outcome,
            startedMs,
            tookMs
          })),
          [
            { deployment: "a#0", hedge: undefined, outcome: "left", startedMs: 0, tookMs: 70 },
            { deployment: "a#1", hedge: true, outcome: "answered", startedMs: 50, tookMs: 20 }
          ]
        )
        assert.deepStrictEqual(jobs.map(({ left }) => left), [true, false])
      }).pipe(Effect.provide(layer))
    })

    it.effect("is counted in the error of a request that the slow one ends", () => {
      const reason = new InferenceError.InvalidRequest({ detail: "It is invalid." })
      const { layer } = world({
        policy: hedged,
        models: { a: [{ firstMs: 70, fails: { reason } }, { firstMs: 500 }] }
      })
      return Effect.gen(function*() {
        for (const request of [Effect.asVoid(generate()), Effect.asVoid(texts())]) {
          const error = yield* after(Effect.flip(request))
          assert.strictEqual(error.reason, reason)
          assert.strictEqual(error.started, 2)
          const { attempts } = yield* recordOf(error.decision!)
          assert.lengthOf(attempts, 2)
        }
      }).pipe(Effect.provide(layer))
    })

    it.effect("is not made beside one with content if the caller waits for a buffered answer", () => {
      const { jobs, layer } = world({
        policy: hedged,
        models: { a: [{ firstMs: 40, gapMs: 500, pieces: ["x", "y"] }, {}] }
      })
      return Effect.gen(function*() {
        assert.deepInclude(yield* after(generate()), { text: "xy", deployment: "a#0", attempts: 1 })
        assert.deepStrictEqual(jobs.map(({ deployment }) => deployment), ["a#0"])
      }).pipe(Effect.provide(layer))
    })

    it.effect("is made beside one without content if the caller waits for a buffered answer", () => {
      const { layer } = world({
        policy: hedged,
        models: { a: [{ firstMs: 60, gapMs: 500, pieces: ["x", "y"] }, { firstMs: 20 }] }
      })
      return Effect.gen(function*() {
        assert.deepInclude(yield* after(generate()), { text: "a#1", deployment: "a#1", attempts: 2 })
      }).pipe(Effect.provide(layer))
    })

    it.effect("is not made if the first is fast enough, nor beside one with content", () => {
      const { jobs, layer } = world({
        policy: hedged,
        models: { a: [{ firstMs: 40, gapMs: 500, pieces: ["x", "y"] }, {}] }
      })
      return Effect.gen(function*() {
        assert.strictEqual((yield* after(texts())).text, "xy")
        assert.deepStrictEqual(jobs.map(({ deployment }) => deployment), ["a#0"])
      }).pipe(Effect.provide(layer))
    })

    it.effect("is made for at most the share of requests", () => {
      const { jobs, layer } = world({
        policy: { ...inOrder, hedge: { afterMs: 50, share: 0.25 } },
        models: { a: [{ firstMs: 500 }, { firstMs: 20 }] }
      })
      return Effect.gen(function*() {
        for (let request = 0; request < 20; request++) yield* after(texts())
        assert.lengthOf(jobs.filter(({ deployment }) => deployment === "a#1"), 5)
      }).pipe(Effect.provide(layer))
    })

    it.effect("is charged to the budget only if it is made", () => {
      const { jobs, layer } = world({
        policy: { ...inOrder, hedge: { afterMs: 50, share: 0.25 } },
        models: { a: [{ firstMs: 500 }, { gapMs: 200, pieces: ["x", "y"] }] }
      })
      return Effect.gen(function*() {
        // Answers that begin in time and last longer, and a slow one without another deployment.
        for (let request = 0; request < 3; request++) yield* after(texts({ route: { deployments: ["a#1"] } }))
        yield* after(texts({ route: { deployments: ["a#0"] } }))
        assert.lengthOf(jobs, 4)
        assert.strictEqual((yield* after(texts())).deployment, "a#1")
        assert.deepStrictEqual(jobs.map(({ left }) => left), [false, false, false, false, true, false])
      }).pipe(Effect.provide(layer))
    })

    it.effect("counts only the tokens of the answer", () => {
      const { layer } = world({
        policy: hedged,
        models: { a: [{ firstMs: 70, pieces: ["slow", "er"] }, { firstMs: 20 }] }
      })
      return Effect.gen(function*() {
        const answer = yield* after(generate())
        assert.strictEqual(answer.usage.completionTokens, answer.text === "a#1" ? 1 : 2)
      }).pipe(Effect.provide(layer))
    })
  })

  describe("time", () => {
    const limited = (timeouts: RoutingPolicy.Policy["timeouts"]): Partial<RoutingPolicy.Policy> => ({
      ...inOrder,
      timeouts
    })

    it.effect("to the first content runs out, and the next deployment answers", () => {
      const { layer } = world({
        policy: limited({ firstTokenMs: 100 }),
        models: { a: [{ firstMs: 101 }, { firstMs: 99 }] }
      })
      return Effect.gen(function*() {
        const { decision, text } = yield* after(texts())
        assert.strictEqual(text, "a#1")
        assert.strictEqual((yield* recordOf(decision)).attempts[0]!.error!.reason, "UpstreamTimeout")
        assert.strictEqual((yield* after(generate())).text, "a#1")
      }).pipe(Effect.provide(layer))
    })

    it.effect("between two pieces runs out: a stream fails, the next deployment gives a buffered answer", () => {
      const { layer } = world({
        policy: limited({ stallMs: 100 }),
        models: { a: [{ firstMs: 500, gapMs: 101, pieces: ["x", "y"] }, {}] }
      })
      return Effect.gen(function*() {
        const { reason } = yield* after(Effect.flip(texts()))
        assert.deepInclude(reason, { _tag: "UpstreamTimeout", phase: "stall", afterMs: 100 })
        assert.strictEqual((yield* after(generate())).text, "a#1")
      }).pipe(Effect.provide(layer))
    })

    it.effect("does not count while the consumer does not read", () => {
      const { layer } = world({
        policy: limited({ stallMs: 100 }),
        models: { a: [{ gapMs: 50, pieces: ["x", "y", "z"] }] }
      })
      return Effect.gen(function*() {
        const { stream } = yield* Inference
        const read = stream({ model: "a", messages }).pipe(Stream.tap(() => Effect.sleep(1_000)), Stream.runCount)
        assert.strictEqual(yield* after(read), 4)
      }).pipe(Effect.provide(layer))
    })

    for (
      const [what, part] of [["before", { firstMs: 60 }], ["after", {
        firstMs: 0,
        gapMs: 200,
        pieces: ["x", "y"]
      }]] as const
    ) {
      it.effect(`of the whole request runs out ${what} the first content`, () => {
        const { jobs, layer } = world({
          policy: limited({ totalMs: 100 }),
          models: { a: [what === "before" ? { firstMs: 60, fails: { reason: broke("a#0") } } : part, { firstMs: 60 }] }
        })
        return Effect.gen(function*() {
          const { reason } = yield* after(Effect.flip(texts()))
          assert.deepInclude(reason, { _tag: "UpstreamTimeout", phase: "total", afterMs: 100 })
          assert.isTrue(jobs.at(-1)!.left)
        }).pipe(Effect.provide(layer))
      })
    }
  })

  describe("a request's own routing options", () => {
    const two = () =>
      world({
        policies: [{ ...RoutingPolicy.defaults, name: "patient", retries: 2 }],
        policy: inOrder,
        models: { a: [{}, {}], b: [{}] },
        fallbacks: { a: ["b"] }
      })

    it.effect("name its deployments", () => {
      const { layer } = two()
      return Effect.gen(function*() {
        assert.strictEqual((yield* generate({ route: { deployments: ["a#1"] } })).deployment, "a#1")
        assert.strictEqual((yield* generate({ route: { except: ["a#0"] } })).deployment, "a#1")
      }).pipe(Effect.provide(layer))
    })

    it.effect("set the fallback models, or none", () => {
      const failing = () =>
        world({
          policy: inOrder,
          models: { a: [{ fails: { reason: broke("a#0") } }], b: [{}], c: [{}] },
          fallbacks: { a: ["b"] }
        })
      const { layer } = failing()
      return Effect.gen(function*() {
        assert.strictEqual((yield* after(generate())).deployment, "b#0")
        assert.strictEqual((yield* after(generate({ route: { fallbacks: ["c"] } }))).deployment, "c#0")
        assert.strictEqual(
          (yield* after(Effect.flip(generate({ route: { fallbacks: [] } })))).reason._tag,
          "EngineFailed"
        )
      }).pipe(Effect.provide(layer))
    })

    it.effect("take another policy by its name, and fewer or more retries", () => {
      const once = new InferenceError.EngineCrashed({ deployment: "a#0", detail: "Gone." })
      const { jobs, layer } = world({
        policies: [{ ...RoutingPolicy.defaults, name: "patient", retries: 2 }],
        models: { a: [{ fails: { reason: once }, failures: 2 }] }
      })
      return Effect.gen(function*() {
        assert.strictEqual((yield* after(generate({ route: { policy: "patient" } }))).attempts, 3)
        const { policy } = yield* recordOf(
          (yield* after(generate({ route: { policy: "patient", retries: 0 } }))).decision
        )
        assert.strictEqual(policy, "patient")
        assert.lengthOf(jobs, 4)
      }).pipe(Effect.provide(layer))
    })

    it.effect("limit its time", () => {
      const { layer } = world({ models: { a: [{ firstMs: 500 }] } })
      return Effect.gen(function*() {
        const { reason } = yield* after(Effect.flip(generate({ route: { timeoutMs: 100 } })))
        assert.deepInclude(reason, { _tag: "UpstreamTimeout", phase: "total", afterMs: 100 })
        assert.strictEqual((yield* after(generate({ route: { timeoutMs: 501 } }))).text, "a#0")
      }).pipe(Effect.provide(layer))
    })

    for (
      const [options, path, detail] of [
        [{ policy: "none" }, "route.policy", "default, patient"],
        [{ deployments: ["a#0", "b#0"] }, "route.deployments[1]", "a#0, a#1"],
        [{ except: ["a#7"] }, "route.except[0]", "a#0, a#1"],
        [{ fallbacks: ["b", "z"] }, "route.fallbacks[1]", "The model \"z\" does not exist. Available models: a, b."]
      ] as const
    ) {
      it.effect(`with unknown names are refused: ${path}`, () => {
        const { jobs, layer } = two()
        return Effect.gen(function*() {
          const { reason } = yield* Effect.flip(generate({ route: options }))
          assert.deepInclude(reason, { _tag: "InvalidRequest", path })
          assert.include(reason.message, detail)
          assert.lengthOf(jobs, 0)
        }).pipe(Effect.provide(layer))
      })
    }

    for (
      const [options, path] of [
        [{ except: ["a#0", "a#1"] }, "route.except"],
        [{ deployments: ["a#1"], except: ["a#1"] }, "route.except"],
        [{ deployments: [] }, "route.deployments"]
      ] as const
    ) {
      it.effect(`that exclude every deployment are rejected, unless there is a fallback model: ${JSON.stringify(options)}`, () => {
        const { layer } = two()
        return Effect.gen(function*() {
          const { reason } = yield* Effect.flip(generate({ route: { ...options, fallbacks: [] } }))
          assert.deepInclude(reason, { _tag: "InvalidRequest", path })
          assert.strictEqual((yield* generate({ route: options })).deployment, "b#0")
        }).pipe(Effect.provide(layer))
      })
    }
  })

  describe("affinity", () => {
    const four = (strategy: "session" | "prefix") =>
      world({
        policy: { selection: { ...RoutingPolicy.defaults.selection, strategy } },
        models: { a: [{}, {}, {}, {}] }
      })

    it.effect("keeps a session, or else a tenant, with one deployment, and spreads them", () => {
      const { layer } = four("session")
      return Effect.gen(function*() {
        const by = (more: Partial<Request>) => Effect.map(generate(more), ({ deployment }) => deployment)
        const found = new Set<string>()
        for (let session = 0; session < 20; session++) {
          const route = { session: `s${session}` }
          const first = yield* by({ route })
          for (let again = 0; again < 3; again++) assert.strictEqual(yield* by({ route, tenant: `t${again}` }), first)
          found.add(first)
        }
        assert.isAbove(found.size, 2)
        const tenant = yield* by({ tenant: "t" })
        for (let again = 0; again < 3; again++) assert.strictEqual(yield* by({ tenant: "t" }), tenant)
      }).pipe(Effect.provide(layer), Random.withSeed("sessions"))
    })

    it.effect("sends a conversation to the deployment that has its beginning", () => {
      const { layer } = four("prefix")
      const opening = "In the beginning there was a long and winding text. ".repeat(20)
      const turns = (count: number, start = opening): Request["messages"] =>
        Array.from({ length: count }, (_, index) => ({ role: "user", content: index === 0 ? start : `And ${index}?` }))
      return Effect.gen(function*() {
        const by = (messages: Request["messages"]) => Effect.map(generate({ messages }), ({ deployment }) => deployment)
        const first = yield* by(turns(1))
        for (let count = 2; count < 8; count++) assert.strictEqual(yield* by(turns(count)), first)
        const others = new Set<string>()
        for (let at = 0; at < 20; at++) others.add(yield* by(turns(1, `${at} ${opening}`)))
        assert.isAbove(others.size, 1)
      }).pipe(Effect.provide(layer), Random.withSeed("prefixes"))
    })
  })

  it.effect("round-robin gives each model turns of its own, regardless of requests for other models in between", () => {
    const { layer } = world({
      policy: { selection: { ...RoutingPolicy.defaults.selection, strategy: "round-robin" } },
      models: { a: [{}, {}], b: [{}, {}, {}], c: [{}] }
    })
    return Effect.gen(function*() {
      const served: Record<string, Array<string>> = { a: [], b: [], c: [] }
      for (const model of "abacbaabcab") served[model]!.push((yield* generate({ model })).deployment)
      assert.deepStrictEqual(served, {
        a: ["a#0", "a#1", "a#0", "a#1", "a#0"],
        b: ["b#0", "b#1", "b#2", "b#0"],
        c: ["c#0", "c#0"]
      })
    }).pipe(Effect.provide(layer))
  })

  it.effect("embeddings fail over to the next deployment too", () => {
    const { layer } = world({ policy: inOrder, models: { a: [{ fails: { reason: broke("a#0") } }, {}] } })
    return Effect.gen(function*() {
      const { embed } = yield* Inference
      const { attempts, deployment, vectors } = yield* after(embed({ model: "a", inputs: ["x", "y"] }))
      assert.deepStrictEqual({ attempts, deployment, count: vectors.length }, {
        attempts: 2,
        deployment: "a#1",
        count: 2
      })
    }).pipe(Effect.provide(layer))
  })

  it.effect("a fallback model answers if no deployment of the model can take the request", () => {
    const { layer } = world({
      policy: inOrder,
      models: { a: [{ options: { abilities: ["generate"] } }], b: [{}] },
      fallbacks: { a: ["b"] }
    })
    return Effect.gen(function*() {
      const { deployment } = yield* generate({ tools: [{ name: "f" }] })
      assert.strictEqual(deployment, "b#0")
      const { fallbacks } = yield* Router.use(({ route }) =>
        Effect.fromResult(route({ model: "a", capabilities: ["generate"] }))
      )
      assert.deepStrictEqual(fallbacks.ordinary.map(({ id }) => id), ["b#0"])
    }).pipe(Effect.provide(layer))
  })
})

describe("a half-open circuit", () => {
  const part = (id: string) => ({
    firstMs: 5_000,
    gapMs: 60_000,
    pieces: ["one", "two"],
    fails: { reason: broke(id) },
    failures: 5
  })

  /** Opens the circuits of all deployments of the model. */
  const opened = (requests: number) =>
    Effect.gen(function*() {
      for (let request = 0; request < requests; request++) yield* Effect.exit(after(generate()))
      const { states } = yield* Breaker
      assert.isTrue((yield* states).every(({ phase }) => phase !== "closed"))
      yield* TestClock.adjust("1 minute")
    })

  for (const count of [1, 2]) {
    it.effect(`allows several concurrent requests if no other can answer them: ${count} deployments`, () => {
      const { jobs, layer } = world({
        policy: { ...inOrder, retries: 0 },
        models: { a: Array.from({ length: count }, (_, index) => part(`a#${index}`)) }
      })
      return Effect.gen(function*() {
        yield* opened(5)
        const before = jobs.length
        for (let request = 0; request < 4; request++) yield* Effect.forkChild(texts(), { startImmediately: true })
        yield* TestClock.adjust(1)
        assert.strictEqual(jobs.length, before + 4)
      }).pipe(Effect.provide(layer))
    })
  }

  it.effect("closes while its probes still stream", () => {
    const { layer } = world({ policy: { ...inOrder, retries: 0 }, models: { a: [part("a#0")] } })
    return Effect.gen(function*() {
      yield* opened(5)
      const streams: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let request = 0; request < 4; request++) {
        streams.push(yield* Effect.forkChild(texts(), { startImmediately: true }))
        yield* TestClock.adjust("6 seconds")
      }
      const { states } = yield* Breaker
      assert.deepStrictEqual((yield* states).map(({ phase }) => phase), ["closed"])
      assert.isTrue(streams.every((one) => one.pollUnsafe() === undefined))
    }).pipe(Effect.provide(layer))
  })
})

describe("an attempt whose circuit opens while it waits for a slot", () => {
  const texts = ["Hello"]
  const operations: Readonly<Record<string, (inference: Inference["Service"]) => Effect.Effect<unknown, unknown>>> = {
    "a buffered answer": ({ generate }) => generate({ model: "a", messages }),
    "a stream": ({ stream }) => Stream.runDrain(stream({ model: "a", messages })),
    embeddings: ({ embed }) => embed({ model: "a", inputs: texts }),
    "a ranking": ({ rerank }) => rerank({ model: "a", query: "Hello", documents: texts }),
    classification: ({ classify }) => classify({ model: "a", inputs: texts }),
    tokens: ({ tokenize }) => tokenize({ model: "a", input: "Hello" }),
    "a count": ({ count }) => count({ model: "a", input: { messages } })
  }

  it.effect.each(Object.keys(operations))("does not call the deployment: %s", (name) => {
    const slot = Latch.makeUnsafe()
    const { jobs, layer } = world({ models: { a: [{}] }, queue: slot.await })
    return Effect.gen(function*() {
      const { enter, states } = yield* Breaker
      const fiber = yield* Effect.forkChild(Inference.use(operations[name]!))
      yield* TestClock.adjust(1)
      for (let failure = 0; failure < 5; failure++) {
        yield* Effect.scoped(enter("a#0", () => endingOf(Exit.fail(InferenceError.make(broke("a#0"))))))
        yield* TestClock.adjust(1)
      }
      assert.deepStrictEqual((yield* states).map(({ phase }) => phase), ["open"])
      yield* slot.open
      yield* TestClock.adjust(1)
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert.strictEqual((error as InferenceError.InferenceError).reason._tag, "CircuitOpen")
      assert.deepStrictEqual(jobs, [])
    }).pipe(Effect.provide(layer))
  })
})
