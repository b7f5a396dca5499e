import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as fc from "fast-check"
import type { Condition, DeploymentFacts } from "../../../src/domain/DeploymentFacts.ts"
import { prepare, ready } from "../../../src/domain/DeploymentFacts.ts"
import { engineCapabilities } from "../../../src/domain/EngineProtocol.ts"
import * as Measurement from "../../../src/domain/Measurement.ts"
import type { Moment, RoutingRequest } from "../../../src/domain/RoutingRequest.ts"
import { requiredCapabilities } from "../../../src/domain/RoutingRequest.ts"
import type { Options } from "../../../src/domain/SelectionOptions.ts"
import * as SelectionOptions from "../../../src/domain/SelectionOptions.ts"
import { names } from "../../../src/domain/Strategies.ts"
import { Decision } from "../../../src/services/routing/DecisionRecord.ts"
import { beginnings, PrefixIndex } from "../../../src/services/routing/PrefixIndex.ts"
import * as Selection from "../../../src/services/routing/Selection.ts"
import { repetitions } from "../../support/Repetitions.ts"

const isIn = (one: string, list: ReadonlyArray<string>): boolean => list.includes(one)

/** A request with its options and its moment, in one record. */
interface Asked extends Partial<Moment>, Partial<Omit<RoutingRequest, "route">> {
  readonly only?: ReadonlyArray<string> | undefined
  readonly except?: ReadonlyArray<string> | undefined
  readonly session?: string | undefined
  readonly task?: string | undefined
}

const measured = (tookMs: number, more: Partial<Measurement.Measurement> = {}) => ({
  ...Measurement.ended(Measurement.started(Measurement.unmeasured), { ok: true, tookMs }, 0),
  ...more
})

const condition = (more: Partial<Condition> = {}): Condition => ({ ...ready, ...more })

const busy = (inFlight: number): Condition => condition({ measured: measured(100, { inFlight }) })

interface Place {
  readonly facts?: Partial<DeploymentFacts>
  readonly condition?: Condition
}

const decide = (
  places: ReadonlyArray<Place>,
  options: Partial<Options> = {},
  { except, now = 0, only, prefixShares, seed = 1, session, split, task, turn = 0, ...request }: Asked = {}
) =>
  Selection.decide(
    prepare(places.map(({ facts }, index) => ({ deployment: `d${index}`, ...facts }))),
    places.map(({ condition }) => condition ?? ready),
    { model: "m", capabilities: [], route: { deployments: only, except, session, task }, ...request },
    { ...SelectionOptions.defaults, exploration: 0, ...options },
    { now, seed, turn, prefixShares, split }
  )

const order = (...args: Parameters<typeof decide>) => decide(...args).candidates.map(({ deployment }) => deployment)

const primary = (...args: Parameters<typeof decide>) => order(...args)[0]

const maybe = <A>(arbitrary: fc.Arbitrary<A>) => fc.option(arbitrary, { nil: undefined })

const place = fc.record({
  facts: fc.record({
    price: maybe(fc.record({ input: fc.nat(100), output: fc.nat(100) })),
    quality: maybe(fc.nat(10).map((tenths) => tenths / 10)),
    contextWindow: maybe(fc.constantFrom(512, 4096, 128_000)),
    capabilities: maybe(fc.subarray([...engineCapabilities])),
    missing: maybe(fc.subarray([...requiredCapabilities])),
    tasks: maybe(fc.subarray(["code", "chat"])),
    weight: fc.constantFrom(0, 1, 5),
    slots: fc.constantFrom(1, 4)
  }),
  condition: fc.record({
    measured: fc.record({
      samples: fc.nat(3),
      tookMs: fc.nat(10_000),
      errorRate: fc.constantFrom(0, 0.5, 1),
      inFlight: fc.nat(100)
    }).map(({ samples, tookMs, ...more }) =>
      samples === 0 ? { ...Measurement.unmeasured, inFlight: more.inFlight } : measured(tookMs, more)
    ),
    state: fc.constantFrom("ready", "cold", "loading"),
    queued: fc.nat(10),
    queueFull: fc.boolean(),
    closed: maybe(fc.record({ reason: fc.constant("its circuit is open"), retryAfterMs: fc.nat(60_000) }))
  })
})

const scene = fc.record({
  places: fc.array(place, { maxLength: 12 }),
  options: fc.record({
    strategy: fc.constantFrom(...names),
    exploration: fc.constantFrom(0, 0.5, 1),
    keep: fc.integer({ min: 1, max: 4 }),
    spill: fc.boolean()
  }),
  asked: fc.record({
    capabilities: fc.subarray([...requiredCapabilities]),
    promptTokens: maybe(fc.nat(10_000)),
    task: maybe(fc.constantFrom("code", "chat", "other")),
    session: maybe(fc.string()),
    prefixShares: maybe(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 12, maxLength: 12 })),
    turn: fc.nat(1_000),
    seed: fc.nat(),
    now: fc.nat(10_000_000)
  })
})

type Scene = typeof scene extends fc.Arbitrary<infer A> ? A : never

const property = (check: (scene: Scene) => void) =>
  fc.assert(fc.property(scene, check), { numRuns: repetitions(400, 2_000) })

describe("Selection", () => {
  describe("whatever the strategy", () => {
    it("lists or excludes each deployment once, as plain data", () => {
      property(({ asked, options, places }) => {
        const decision = decide(places, options, asked)
        const listed = decision.candidates.map(({ deployment }) => deployment)
        const out = decision.excluded.map(({ deployment }) => deployment)
        assert.strictEqual(new Set([...listed, ...out]).size, listed.length + out.length)
        assert.strictEqual(decision.eligible + out.length, places.length)
        assert.strictEqual(listed.length, Math.min(decision.eligible, options.keep))
        const json = JSON.parse(JSON.stringify(decision)) as unknown
        assert.deepStrictEqual(Schema.decodeUnknownSync(Decision)(json), decision)
      })
    })

    it("makes the same decision from the same seed", () => {
      property(({ asked, options, places }) => {
        assert.deepStrictEqual(decide(places, options, asked), decide(places, options, asked))
      })
    })

    it("never lists a deployment with an open circuit, a missing capability or a window that is too small", () => {
      property(({ asked, options, places }) => {
        for (const id of order(places, options, asked)) {
          const { condition, facts } = places[Number(id.slice(1))]!
          assert.strictEqual(condition.closed, undefined)
          assert.isTrue(
            asked.capabilities.every((one) =>
              !isIn(one, engineCapabilities) || isIn(one, facts.capabilities ?? engineCapabilities)
            )
          )
          assert.isFalse(asked.capabilities.some((one) => isIn(one, facts.missing ?? [])))
          assert.isTrue((asked.promptTokens ?? 0) < (facts.contextWindow ?? Number.POSITIVE_INFINITY))
        }
      })
    })

    it("names the missing capabilities if and only if no selected deployment has all of them", () => {
      property(({ asked, options, places }) => {
        const { candidates, missing } = decide(places, options, asked)
        const missingEach = places.map(({ facts }) =>
          asked.capabilities.filter((one) =>
            isIn(one, facts.missing ?? []) ||
            (isIn(one, engineCapabilities) && !isIn(one, facts.capabilities ?? engineCapabilities))
          )
        )
        const wanted = missingEach.filter((_, index) =>
          options.strategy !== "weighted" || places[index]!.facts.weight !== 0
        )
        const isHopeless = wanted.length > 0 && wanted.every((missing) => missing.length > 0)
        assert.deepStrictEqual(new Set(missing), new Set(isHopeless ? wanted.flat() : []))
        if (isHopeless) assert.deepStrictEqual(candidates, [])
      })
    })

    it("orders by score, best first, except for explored and spilled deployments", () => {
      property(({ asked, options, places }) => {
        const { candidates, explored, spilled = [] } = decide(places, options, asked)
        const ranked = candidates.slice(explored === true ? 1 : 0)
        const keys = ranked.map(({ deployment, score }) => [spilled.includes(deployment) ? 1 : 0, -score] as const)
        assert.deepStrictEqual(keys, keys.toSorted((a, b) => a[0] - b[0] || a[1] - b[1]))
      })
    })

    it("gives terms from 0 to 1 if it balances", () => {
      property(({ asked, options, places }) => {
        for (const { terms } of decide(places, { ...options, strategy: "balanced" }, asked).candidates) {
          for (const term of Object.values(terms)) assert.isTrue(term >= 0 && term <= 1, JSON.stringify(terms))
        }
      })
    })
  })

  describe("exclusion", () => {
    it("has the reason of each exclusion, and when an open circuit admits a call", () => {
      const decision = decide(
        [
          { facts: { contextWindow: 100 } },
          { facts: { capabilities: ["format"] } },
          { condition: condition({ closed: { reason: "its circuit is open", retryAfterMs: 9_000 } }) },
          { condition: condition({ closed: { reason: "it is cooling", retryAfterMs: 4_000 } }) },
          {
            facts: { contextWindow: 100 },
            condition: condition({ closed: { reason: "its circuit is open", retryAfterMs: 1 } })
          }
        ],
        {},
        { capabilities: ["tools"], promptTokens: 200 }
      )
      assert.deepStrictEqual(decision.excluded.map(({ reason }) => reason), [
        "its context window of 100 tokens is too small for a prompt of at least 200 tokens",
        "it does not support tool calls",
        "its circuit is open",
        "it is cooling",
        "its context window of 100 tokens is too small for a prompt of at least 200 tokens"
      ])
      assert.strictEqual(decision.retryAfterMs, 4_000)
      assert.deepStrictEqual(decision.candidates, [])
    })

    it("excludes a window that is smaller than the estimated prompt, if another deployment remains", () => {
      const [small, large, other] = [512, 4_096, undefined].map((contextWindow) => ({ facts: { contextWindow } }))
      const chat = { capabilities: ["generate"] as const, promptLength: 4_000 }
      assert.deepStrictEqual(order([small!, large!], {}, chat), ["d1"])
      assert.deepStrictEqual(order([small!, other!], {}, chat), ["d1"])
      assert.deepStrictEqual(order([small!, large!], {}, { ...chat, promptLength: 40 }).length, 2)
      const closed = condition({ closed: { reason: "its circuit is open", retryAfterMs: 1 } })
      assert.deepStrictEqual(order([small!, { ...large!, condition: closed }], {}, chat), ["d0"])
      assert.deepStrictEqual(order([small!, small!], {}, chat).length, 2)
      // The length is that of all inputs, each of which has the window for itself.
      assert.deepStrictEqual(order([small!, large!], {}, { ...chat, capabilities: ["embed"] }).length, 2)
    })

    it("allows only the deployments that the request names", () => {
      assert.deepStrictEqual(order([{}, {}, {}], {}, { only: ["d1", "d2"], except: ["d2"] }), ["d1"])
    })

    it("lists unknown figures, which exclude no deployment", () => {
      const [candidate] = decide([{}], { strategy: "cost" }, { capabilities: ["tools"], promptTokens: 1e6 }).candidates
      assert.deepStrictEqual(candidate!.unknown, ["price", "quality", "contextWindow", "speed"])
    })
  })

  describe("balanced", () => {
    const good = { facts: { quality: 0.9, price: { input: 10, output: 10 } }, condition: busy(0) }

    it("weighs speed, quality and cost", () => {
      const { candidates } = decide(
        [
          good,
          { facts: { quality: 0.5, price: { input: 5, output: 5 } }, condition: condition({ measured: measured(50) }) }
        ],
        { weights: { speed: 0.3, quality: 0.4, cost: 0.3, task: 1 } },
        { promptTokens: 100 }
      )
      assert.deepStrictEqual(candidates.map(({ deployment, terms }) => [deployment, terms]), [
        ["d1", { speed: 1, quality: 0.5, cost: 0.5 }],
        ["d0", { speed: 0.5, quality: 0.9, cost: 1 }]
      ])
      assert.approximately(candidates[0]!.score, 0.3 + 0.2 + 0.15, 1e-9)
      assert.approximately(candidates[1]!.score, 0.15 + 0.36, 1e-9)
    })

    it("follows its weights", () => {
      const cheap = { facts: { quality: 0.1, price: { input: 0, output: 0 } }, condition: busy(0) }
      const only = { speed: 0, quality: 0, cost: 0, task: 0 }
      assert.strictEqual(primary([cheap, good], { weights: { ...only, quality: 1 } }), "d1")
      assert.strictEqual(primary([cheap, good], { weights: { ...only, cost: 1 } }), "d0")
    })

    it("adds the term of the task", () => {
      const coder = { facts: { quality: 0.5, tasks: ["code"] } }
      assert.strictEqual(primary([{ facts: { quality: 0.9, tasks: ["chat"] } }, coder], {}, { task: "code" }), "d1")
      assert.strictEqual(primary([{ facts: { quality: 0.9, tasks: ["chat"] } }, coder]), "d0")
    })

    it("never lowers a score for more quality, less cost or more speed", () => {
      fc.assert(fc.property(
        fc.record({
          quality: fc.nat(9),
          price: fc.integer({ min: 1, max: 100 }),
          ms: fc.integer({ min: 2, max: 1e4 })
        }),
        fc.record({
          quality: fc.nat(9),
          price: fc.integer({ min: 1, max: 100 }),
          ms: fc.integer({ min: 2, max: 1e4 })
        }),
        fc.constantFrom("quality", "price", "ms"),
        (mine, other, better) => {
          const at = (one: typeof mine) => ({
            facts: { quality: one.quality / 10, price: { input: one.price, output: one.price } },
            condition: condition({ measured: measured(one.ms) })
          })
          const improved = { ...mine, [better]: better === "quality" ? mine.quality + 1 : mine[better] / 2 }
          const wasFirst = primary([at(mine), at(other)]) === "d0"
          assert.isTrue(!wasFirst || primary([at(improved), at(other)]) === "d0")
        }
      ))
    })

    it("gives an old measurement less weight", () => {
      const places = [{ condition: condition({ measured: measured(10_000) }) }, {}]
      assert.strictEqual(primary(places.toReversed(), { strategy: "speed" }, { now: 0 }), "d1")
      const [slow] = decide([{ condition: condition({ measured: measured(10_000) }) }, { condition: busy(0) }], {
        strategy: "speed",
        keep: 1
      }, { now: 1e9, only: ["d0"] }).candidates
      assert.isBelow(Math.abs(slow!.score - 0.5), 0.01)
    })
  })

  describe("exploring", () => {
    const places = [{ condition: busy(0) }, {}, {}]

    it("tries unmeasured deployments in the configured share of requests", () => {
      const decisions = Array.from(
        { length: 4_000 },
        (_, seed) => decide([{ facts: { quality: 1 }, condition: busy(0) }, {}, {}], { exploration: 0.1 }, { seed })
      )
      const tried = decisions.filter(({ explored }) => explored).map(({ candidates }) => candidates[0]!.deployment)
      assert.isTrue(tried.length > 300 && tried.length < 500, String(tried.length))
      assert.deepStrictEqual([...new Set(tried)].toSorted(), ["d1", "d2"])
    })

    it("sends one request at a time to an unmeasured deployment", () => {
      const trying = condition({ measured: Measurement.started(Measurement.unmeasured) })
      const decision = decide([{ facts: { quality: 1 }, condition: busy(0) }, { condition: trying }], {
        exploration: 1
      })
      assert.strictEqual(decision.explored, undefined)
    })

    it("keeps the others as fallbacks", () => {
      const decision = decide(places, { exploration: 1, keep: 3 })
      assert.strictEqual(decision.candidates.length, 3)
    })

    it("costs nothing when all have been measured", () => {
      const decision = decide([{ condition: busy(0) }, { condition: busy(1) }], { exploration: 1 })
      assert.strictEqual(decision.explored, undefined)
    })
  })

  describe("spilling", () => {
    it("moves deployments that load or have a full queue behind the others, and lists them as spilled", () => {
      const decision = decide([
        { facts: { quality: 1 }, condition: condition({ state: "loading" }) },
        { facts: { quality: 0.9 }, condition: condition({ queueFull: true }) },
        { facts: { quality: 0.1 } }
      ], { strategy: "quality" })
      assert.deepStrictEqual(decision.candidates.map(({ deployment }) => deployment), ["d2", "d0", "d1"])
      assert.deepStrictEqual(decision.spilled, ["d0", "d1"])
    })

    it("orders by score if all load, or if the policy does not spill", () => {
      const loading = condition({ state: "loading" })
      const places = [{ facts: { quality: 1 }, condition: loading }, { facts: { quality: 0.1 }, condition: loading }]
      assert.strictEqual(decide(places, { strategy: "quality" }).spilled, undefined)
      assert.deepStrictEqual(order([places[0]!, {}], { strategy: "quality", spill: false }), ["d0", "d1"])
    })
  })

  describe("cost", () => {
    it("chooses the best quality per cost within the limits, and names the limit of each exclusion", () => {
      const decision = decide(
        [
          { facts: { quality: 0.9, price: { input: 10, output: 20 } } },
          { facts: { quality: 0.85, price: { input: 1, output: 2 } } },
          { facts: { quality: 0.7, price: { input: 0, output: 0 } } },
          { facts: { quality: 0.95, price: { input: 100, output: 200 } } }
        ],
        { strategy: "cost" },
        { promptTokens: 100, maxTokens: 100 }
      )
      assert.deepStrictEqual(decision.candidates.map(({ deployment }) => deployment), ["d1", "d0"])
      assert.deepStrictEqual(decision.excluded, [
        { deployment: "d2", reason: "its quality of 0.7 is below the limit of 0.8" },
        { deployment: "d3", reason: "the request would cost about 0.0300 USD, above the limit of 0.0100 USD" }
      ])
    })

    it("allows quality and cost exactly at their limits", () => {
      const atLimit = { facts: { quality: 0.8, price: { input: 100, output: 0 } } }
      assert.strictEqual(primary([atLimit], { strategy: "cost" }, { promptTokens: 100, maxTokens: 1 }), "d0")
    })

    it("estimates the answer's length if the request has no limit", () => {
      const dear = { facts: { quality: 0.9, price: { input: 0, output: 40 } } }
      assert.strictEqual(primary([dear], { strategy: "cost" }, {}), undefined)
      assert.strictEqual(primary([dear], { strategy: "cost" }, { maxTokens: 100 }), "d0")
    })

    it("does not treat an unknown price as low", () => {
      const known = { facts: { quality: 0.8, price: { input: 1, output: 1 } } }
      assert.strictEqual(primary([{ facts: { quality: 0.8 } }, known], { strategy: "cost" }), "d1")
    })
  })

  describe("sharing load", () => {
    const shares = (places: ReadonlyArray<Place>, options: Partial<Options>, asked: (n: number) => Partial<Asked>) => {
      const counts = places.map(() => 0)
      for (let n = 0; n < 4_000; n++) counts[Number(primary(places, options, asked(n))!.slice(1))]!++
      return counts.map((count) => count / 4_000)
    }

    it("weighs by weight", () => {
      const places = [{ facts: { weight: 1 } }, { facts: { weight: 3 } }, { facts: { weight: 0 } }]
      const [one, three, zero] = shares(places, { strategy: "weighted" }, (seed) => ({ seed }))
      assert.approximately(one!, 0.25, 0.03)
      assert.approximately(three!, 0.75, 0.03)
      assert.strictEqual(zero, 0)
    })

    it("chooses the least busy for its slots, and evenly among equals", () => {
      assert.strictEqual(
        primary([{ condition: busy(2) }, { condition: busy(3), facts: { slots: 4 } }], {
          strategy: "least-busy"
        }),
        "d1"
      )
      // An adaptive limit is how many run now, not the most that may.
      const full = { condition: { ...busy(3), slots: 4 }, facts: { slots: 256 } }
      assert.strictEqual(primary([full, { condition: busy(4), facts: { slots: 8 } }], { strategy: "least-busy" }), "d1")
      const [first] = shares([{}, {}], { strategy: "least-busy" }, (seed) => ({ seed }))
      assert.approximately(first!, 0.5, 0.03)
    })

    it("takes turns", () => {
      const turns = [0, 1, 2, 3].map((turn) => primary([{}, {}, {}], { strategy: "round-robin" }, { turn }))
      assert.deepStrictEqual(turns, ["d0", "d1", "d2", "d0"])
      assert.deepStrictEqual(order([{}, {}, {}], { strategy: "round-robin" }, { turn: 1 }), ["d1", "d2", "d0"])
    })

    it("chooses the better of two by latency and load, so the worst is never first", () => {
      const places = [100, 200, 300].map((ms) => ({ condition: condition({ measured: measured(ms) }) }))
      const [fast, , slow] = shares(places, { strategy: "latency" }, (seed) => ({ seed }))
      assert.approximately(fast!, 2 / 3, 0.03)
      assert.strictEqual(slow, 0)
    })

    it("counts the queue in latency, and tries an unmeasured deployment with one request at a time", () => {
      const quick = condition({ measured: measured(100, { inFlight: 9 }) })
      assert.strictEqual(
        primary([{ condition: quick }, { condition: condition({ measured: measured(300) }) }], { strategy: "latency" }),
        "d1"
      )
      const trying = condition({ measured: Measurement.started(Measurement.unmeasured) })
      assert.strictEqual(primary([{ condition: quick }, {}], { strategy: "latency" }), "d1")
      assert.strictEqual(primary([{ condition: quick }, { condition: trying }], { strategy: "latency" }), "d0")
    })
  })

  describe("sessions", () => {
    const sessions = Array.from({ length: 1_000 }, (_, index) => `session ${index}`)
    const homes = (count: number, except: ReadonlyArray<string> = []) =>
      sessions.map((session) =>
        primary(Array.from({ length: count }, () => ({})), { strategy: "session" }, { session, except })
      )

    it("stay on their deployment for every request", () => {
      property(({ asked, places }) => {
        const one = { strategy: "session", keep: 1 } as const
        const other = { ...asked, session: "s", seed: asked.seed + 1, turn: asked.turn + 1 }
        const spill = { ...one, spill: false }
        assert.deepStrictEqual(order(places, spill, { ...asked, session: "s" }), order(places, spill, other))
      })
    })

    it("spread over all", () => {
      const counts = [0, 1, 2, 3, 4].map((n) => homes(5).filter((home) => home === `d${n}`).length)
      for (const count of counts) assert.isTrue(count > 140 && count < 260, counts.join())
    })

    it("move only from a removed deployment, and only to an added one", () => {
      const before = homes(5)
      const without = homes(5, ["d2"])
      for (const [index, home] of before.entries()) if (home !== "d2") assert.strictEqual(without[index], home)
      const more = homes(6)
      const moved = before.filter((home, index) => {
        if (more[index] !== home) assert.strictEqual(more[index], "d5")
        return more[index] !== home
      })
      assert.isTrue(moved.length > 100 && moved.length < 240, String(moved.length))
    })
  })

  describe("prefixes", () => {
    const four = [busy(1), busy(0), busy(2), busy(3)].map((condition) => ({ condition }))

    it("go to the deployment with most of the prompt, if it is more than 0.3", () => {
      const choose = (prefixShares: ReadonlyArray<number>) => primary(four, { strategy: "prefix" }, { prefixShares })
      assert.strictEqual(choose([0.5, 0, 0.9, 0]), "d2")
      assert.strictEqual(choose([0.3, 0, 0, 0]), "d1")
    })

    it("separates the prompts of tenants", () => {
      const text = "x".repeat(1024)
      const prefixes = new PrefixIndex()
      prefixes.note("a#0", beginnings(text, "one"))
      assert.deepStrictEqual([...prefixes.shares(["a#0"], beginnings(text, "one"))], [1])
      for (const other of ["two", ""]) {
        assert.deepStrictEqual([...prefixes.shares(["a#0"], beginnings(text, other))], [0])
      }
    })

    it("are ignored if loads are unbalanced", () => {
      const choose = (inFlight: number) =>
        primary([{ condition: busy(inFlight) }, { condition: busy(100) }], { strategy: "prefix" }, {
          prefixShares: [1, 0]
        })
      assert.strictEqual(choose(164), "d0")
      assert.strictEqual(choose(165), "d1")
    })

    const prompt = (...blocks: ReadonlyArray<string>) => beginnings(blocks.map((one) => one.repeat(256)).join(""))

    it("are indexed by their beginnings", () => {
      const prefixes = new PrefixIndex()
      prefixes.note("d0", prompt("a", "b", "c"))
      prefixes.note("d1", prompt("a"))
      const shares = prefixes.shares(["d0", "d1", "d2"], prompt("a", "b", "x", "c"))
      assert.deepStrictEqual([...shares], [0.5, 0.25, 0])
      assert.deepStrictEqual([...prefixes.shares(["d0"], prompt("b", "c"))], [0])
    })

    it("are removed with their deployment, and the least used above the limit", () => {
      const prefixes = new PrefixIndex(3)
      prefixes.note("d0", prompt("a", "b"))
      prefixes.note("d0", prompt("c", "d"))
      assert.strictEqual(prefixes.size, 3)
      assert.deepStrictEqual([...prefixes.shares(["d0"], prompt("a", "b"))], [0.5])
      prefixes.forget("d0")
      assert.strictEqual(prefixes.size, 0)
    })

    it("are at most 100,000 beginnings by default", () => {
      const prefixes = new PrefixIndex()
      prefixes.note("d0", Array.from({ length: 100_000 }, (_, hash) => hash))
      assert.strictEqual(prefixes.size, 100_000)
      prefixes.note("d0", [-1])
      assert.strictEqual(prefixes.size, 100_000)
      assert.deepStrictEqual([...prefixes.shares(["d0"], [-1])], [1])
    })
  })

  it("accepts a strategy of the program", () => {
    const longest = {
      name: "custom/longest-window" as const,
      score: ({ contextWindow = 0 }: DeploymentFacts) => contextWindow
    }
    const decision = decide([{}, { facts: { contextWindow: 10 } }], { strategy: longest })
    assert.strictEqual(decision.strategy, "custom/longest-window")
    assert.strictEqual(decision.candidates[0]!.deployment, "d1")
  })

  describe("a model whose requests are divided", () => {
    const places = [{ facts: { quality: 0.1 } }, { facts: { quality: 0.9 } }, { facts: { quality: 0.5 } }]
    const withheld = new Set(["d1"])
    const byQuality = { strategy: "quality" } as const

    it("excludes a deployment that an operator has drained", () => {
      const drained = [{}, { condition: condition({ isDrained: true }) }]
      const excluded = [{ deployment: "d1", reason: "drained by an operator" }]
      assert.deepStrictEqual(decide(drained).excluded, excluded)
      assert.deepStrictEqual(order(drained, {}, { only: ["d1"] }), [])
    })

    it("gives withheld deployments only the requests that name them", () => {
      const decision = decide(places, byQuality, { split: { withheld } })
      assert.deepStrictEqual(decision.candidates.map(({ deployment }) => deployment), ["d2", "d0"])
      assert.deepStrictEqual(decision.excluded, [{ deployment: "d1", reason: "its rollout gives it no requests" }])
      assert.deepStrictEqual(decide(places, byQuality, { split: { withheld, copied: "d1" } }).excluded, [
        { deployment: "d1", reason: "it gets copies of requests only (shadow)" }
      ])
      assert.deepStrictEqual(order(places, byQuality, { split: { withheld }, only: ["d1"] }), ["d1"])
    })

    it("tries the version of the request before or after the others, whatever their scores are", () => {
      const none = new Set<string>()
      assert.deepStrictEqual(order(places, byQuality, { split: { withheld, first: "d0" } }), ["d0", "d2"])
      assert.deepStrictEqual(order(places, byQuality, { split: { withheld: none, last: "d1" } }), ["d2", "d0", "d1"])
    })

    it("has another deployment after the version of the request", () => {
      const keepsOne = { ...byQuality, keep: 1 }
      assert.deepStrictEqual(order(places, keepsOne, { split: { withheld, first: "d0" } }), ["d0", "d2"])
    })

    it("tries a version that loads, or cannot take the request, not first", () => {
      const loading = [{ ...places[0]!, condition: condition({ state: "loading" }) }, places[1]!, places[2]!]
      assert.deepStrictEqual(order(loading, byQuality, { split: { withheld, first: "d0" } }), ["d2", "d0"])
      const small = [{ facts: { contextWindow: 512 } }, ...places.slice(1)]
      const long = { promptTokens: 1000, split: { withheld, first: "d0" } }
      assert.deepStrictEqual(order(small, byQuality, long), ["d2"])
    })
  })
})
