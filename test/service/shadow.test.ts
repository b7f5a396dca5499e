/** Copies of requests through the service, between providers of this process. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { ShadowView } from "../../src/layers/http/RolloutSchema.ts"
import { invoke } from "../support/CommandLine.ts"
import type { RolloutService } from "../support/RolloutService.ts"
import { ScriptedProvider, startRolloutService } from "../support/RolloutService.ts"
import { temporaryFolder } from "../support/Service.ts"

const folder = temporaryFolder()
const providers = [new ScriptedProvider("old"), new ScriptedProvider("new")] as const
const [stable, candidate] = providers

const shadow = { candidate: "chat#1", percent: 100, keepDiffering: 1, maxConcurrent: 100 }

/** USD per million tokens. */
const price = { input: 1_000, output: 1_000 }

const deployments = () => [{ ...stable.options, price }, { ...candidate.options, price }]

let service: RolloutService
beforeAll(async () => {
  await Promise.all(providers.map((provider) => provider.listen()))
  service = await startRolloutService(providers, folder.path, {
    deployments: deployments(),
    model: { shadow },
    beside: { ledger: { anonymous: true }, budgets: { all: { period: "total", tokens: 1_000_000 } } }
  })
})
afterAll(async () => {
  await service.stop()
  for (const provider of providers) provider.close()
  folder[Symbol.dispose]()
})

const troupe = (...args: ReadonlyArray<string>) => invoke([...args, "--url", service.adminUrl])

const shadowOf = async (): Promise<ShadowView> => {
  const { body } = await service.admin("GET", "")
  return (body as { readonly shadows: ReadonlyArray<ShadowView> }).shadows[0]!
}

/** Waits for a state of the copies. */
const until = async (isReached: (found: ShadowView) => boolean): Promise<ShadowView> => {
  for (;;) {
    const found = await shadowOf()
    if (isReached(found)) return found
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const askMany = (count: number) => Promise.all(Array.from({ length: count }, () => service.ask()))

describe("copies of requests", () => {
  it("go to the candidate, while callers get the answers of the others, and are shown with what they cost", async () => {
    assert.deepStrictEqual(new Set(await askMany(10)), new Set(["200 old"]))
    const found = await until(({ sent }) => sent === 10)
    assert.strictEqual(candidate.count, 10)
    assert.deepStrictEqual([found.answered, found.exact?.value, found.costUsd], [10, 0, 0.08])
    assert.deepStrictEqual(found.differing.map(({ at: _, ...pair }) => pair), [
      { prompt: "Hello", primary: "old", candidate: "new", agreement: 0 }
    ])
    const { stdout } = await troupe("rollout", "shadow", "chat")
    assert.match(stdout, /^chat: 100 % of the requests are copied to chat#1, compared by exact$/m)
    assert.match(stdout, /^Sent: 10; answered 10, failed 0, timed out 0, cancelled 0$/m)
    assert.match(stdout, /^Equal answers: 0 % \(95 %: 0 % to 27.8 %\) of 10$/m)
    assert.match(stdout, /^of chat#1 +[\d.]+ ms +30 +50$/m)
    assert.match((await troupe("rollout", "list")).stdout, /^chat +chat#1 +100 % +10 +0 +0 % +0$/m)
    assert.include(
      (await troupe("rollout", "shadow", "chut")).stderr,
      "The model \"chut\" does not exist. Did you mean chat?"
    )
  })

  it("are in the ledger as those of shadow, and in no budget of callers", async () => {
    const { stdout } = await troupe("usage", "--by", "tenant,key,user,deployment", "--json")
    const usage = JSON.parse(stdout) as ReadonlyArray<Readonly<Record<string, unknown>>>
    const copies = usage.filter(({ deployment }) => deployment === "chat#1")
    assert.deepStrictEqual(copies.map(({ key, tenant, user }) => [tenant, key, user]), [[
      "shadow",
      "shadow:chat",
      "shadow"
    ]])
    assert.strictEqual(copies[0]!["attempts"], 10)
    assert.isFalse(usage.some(({ deployment, tenant }) => deployment === "chat#0" && tenant === "shadow"))
    // 10 answers of 8 tokens.
    assert.match((await troupe("budgets")).stdout, /^all +all requests +total +80 tokens +/m)
  })

  it("follow another configuration", async () => {
    await service.change(deployments(), { shadow: { ...shadow, percent: 0 } })
    assert.deepStrictEqual(new Set(await askMany(5)), new Set(["200 old"]))
    assert.deepStrictEqual([(await shadowOf()).sampled, candidate.count], [0, 10])
    await service.change(deployments(), { shadow: { ...shadow, budget: { period: "total", tokens: 100_000 } } })
    await askMany(5)
    assert.strictEqual((await until(({ sent }) => sent === 5)).answered, 5)
    await service.change(deployments(), { shadow: { ...shadow, budget: { period: "total", tokens: 1 } } })
    await askMany(2)
    // What earlier copies have used counts.
    assert.strictEqual((await until(({ skipped }) => skipped.budget === 2)).sent, 0)
    assert.strictEqual(candidate.count, 15)
    const { stdout } = await troupe("budgets")
    // 22 and 15 answers.
    assert.match(stdout, /^all +all requests +total +176 tokens +/m)
    assert.match(stdout, /^key total +key shadow:chat +total +120 tokens +1 tokens +/m)
  })

  it("that fail or hang change nothing for callers, and do not delay the end of the service", async () => {
    await service.change(deployments(), { shadow: { ...shadow, timeout: "1 minute" } })
    candidate.fails = (index) => index === 15
    candidate.hangs = (index) => index > 15
    assert.strictEqual(await service.ask(), "200 old")
    const failed = await until(({ sent }) => sent === 1)
    assert.deepStrictEqual(failed.failures, { UpstreamFailed: 1 })
    assert.deepStrictEqual(new Set(await askMany(5)), new Set(["200 old"]))
    await until(({ running }) => running === 5)
    await service.stop()
    service = await startRolloutService(providers, folder.path, { deployments: deployments() })
    assert.include((await troupe("rollout", "shadow")).stderr, "No model has copies of requests.")
  })
})
