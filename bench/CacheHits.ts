/** The response cache: the time of a hit by tier, and the share of hits of a trace whose prompts follow Zipf's law. */
import { Effect, Layer } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Defaults from "../src/domain/Defaults.ts"
import type { Model } from "../src/domain/Deployment.ts"
import { draw } from "../src/domain/Hashing.ts"
import type { Request } from "../src/domain/Inference.ts"
import * as AnswerStore from "../src/layers/cache/AnswerStore.ts"
import * as ResponseCacheLayer from "../src/layers/cache/ResponseCache.ts"
import * as Sqlite from "../src/layers/persistence/Sqlite.ts"
import type { CachedAnswer } from "../src/services/cache/CachedAnswer.ts"
import * as CacheKey from "../src/services/cache/CacheKey.ts"
import type { Found } from "../src/services/cache/ResponseCache.ts"
import { ResponseCache } from "../src/services/cache/ResponseCache.ts"
import { modelWith } from "../src/services/settings/Resolution.ts"
import * as CacheHttp from "./CacheHttp.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import { median } from "./Statistics.ts"

const name = "cache"

type Cache = ResponseCache["Service"]

const model: Model = modelWith("fake/chat", { engine: "fake" })

/** A prompt of about 2,000 characters. */
const requestOf = (prompt: number): Request => ({
  model: model.name,
  messages: [
    { role: "system", content: "You answer questions about one product. ".repeat(48) },
    { role: "user", content: `Question ${prompt}: how is it cleaned?` }
  ],
  temperature: 0,
  tenant: "tenant"
})

/** An answer of 1,000 characters. */
const answerOf = (at: number): CachedAnswer => ({
  model: model.name,
  tenant: "tenant",
  deployment: "fake/chat#0",
  at,
  ttlMs: 3_600_000,
  events: [
    { type: "text", text: "It is cleaned with a dry cloth. ".repeat(32), tokens: 0 },
    { type: "finish", reason: "stop", usage: { promptTokens: 500, completionTokens: 250, cachedTokens: 500 } }
  ]
})

/** As for each request. */
const keyOf = (cache: Cache, prompt: number) => cache.hash(CacheKey.identify(requestOf(prompt), model))

const expect = (tier: Found["tier"], found: Found | undefined): void => {
  if (found?.tier !== tier) throw new Error(`Expected a hit of ${tier}, got ${found?.tier ?? "none"}`)
}

/** Hits between two reads of the clock. */
const batch = 100

/** µs for one, the median of batches. */
const measure = Effect.fnUntraced(function*(ms: number, hit: Effect.Effect<void>) {
  const end = performance.now() + ms
  const batches: Array<number> = []
  while (batches.length < 3 || performance.now() < end) {
    const start = performance.now()
    for (let index = 0; index < batch; index++) yield* hit
    batches.push((performance.now() - start) * 1_000 / batch)
  }
  return median(batches)
})

const tiers = ["memory", "compact", "store"] as const

/** A hit of this tier in a cache whose earlier tiers keep nothing. */
const hitOf = (cache: Cache, tier: typeof tiers[number]): Effect.Effect<void> =>
  tier === "store"
    ? Effect.suspend(() => Effect.map(cache.recallStored!(keyOf(cache, 1)), (found) => expect(tier, found)))
    : Effect.sync(() => expect(tier, cache.recall(keyOf(cache, 1))))

const boundsOf = (tier: typeof tiers[number]) => ({
  ...Defaults.cache,
  storeId: "bench",
  // An answer is larger than this: it is in no memory of events.
  ...(tier === "memory" ? {} : { memoryBytes: 1 })
})

const tierRow = (tier: typeof tiers[number], folder: string, { roundMs, rounds, warmUpMs }: Effort) =>
  Effect.gen(function*() {
    const cache = yield* ResponseCache
    yield* cache.keep(keyOf(cache, 1), answerOf(Date.now())) ?? Effect.void
    const hit = hitOf(cache, tier)
    yield* measure(warmUpMs / 4, hit)
    const figures: Array<number> = []
    for (let round = 0; round < rounds; round++) figures.push(yield* measure(roundMs / 4, hit))
    return { scenario: name, measure: `hit in ${tier}`, unit: "µs", troupe: median(figures) } satisfies Row
  }).pipe(
    Effect.provide(
      ResponseCacheLayer.layerWith(boundsOf(tier)).pipe(
        Layer.provide(AnswerStore.layerSql),
        Layer.provide(Sqlite.layer(join(folder, `${tier}.sqlite`)))
      )
    ),
    Effect.orDie
  )

const prompts = 2_000
const requests = 20_000

/** The prompts of a trace: the share of each is the reciprocal of its rank. */
const trace = (): ReadonlyArray<number> => {
  const shares = Array.from({ length: prompts }, (_, rank) => 1 / (rank + 1))
  let sum = 0
  const upTo = shares.map((share) => sum += share)
  return Array.from({ length: requests }, (_, index) => {
    const drawn = draw(7, index) * sum
    let low = 0
    let high = prompts - 1
    while (low < high) {
      const middle = (low + high) >> 1
      if (upTo[middle]! < drawn) low = middle + 1
      else high = middle
    }
    return low
  })
}

const traceRow = Effect.gen(function*() {
  const cache = yield* ResponseCache
  const asked = trace()
  let hits = 0
  for (const prompt of asked) {
    const key = keyOf(cache, prompt)
    if (cache.recall(key) !== undefined) hits++
    else yield* cache.keep(key, answerOf(Date.now())) ?? Effect.void
  }
  const ceiling = 100 * (1 - new Set(asked).size / asked.length)
  const row: Row = {
    scenario: name,
    measure: `hits of ${requests} requests`,
    unit: "%",
    baseline: ceiling,
    troupe: 100 * hits / asked.length,
    comparison: "ratio",
    // 85 % of all requests, where that is possible.
    target: { atLeast: Math.min(1, Math.floor(8_500 / ceiling) / 100) }
  }
  return {
    row,
    note: `A cache without bounds has ${ceiling.toFixed(1)} % hits of the trace, the first of each prompt being a miss.`
  }
}).pipe(Effect.provide(ResponseCacheLayer.layer))

const run: Scenario["run"] = async (effort, nodeOptions): Promise<Outcome> => {
  const folder = mkdtempSync(join(tmpdir(), "troupe-bench-"))
  try {
    const rows = await Effect.runPromise(Effect.forEach(tiers, (tier) => tierRow(tier, folder, effort)))
    const { note, row } = await Effect.runPromise(traceRow)
    const overHttp = await CacheHttp.run(effort, nodeOptions)
    const all = [...rows, row]
    return { rows: [...all, ...overHttp.rows], notes: [note, ...overHttp.notes], raw: { all, overHttp: overHttp.raw } }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

export const cacheHits: Scenario = { name, run }
