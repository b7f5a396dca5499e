import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { RolloutView } from "../../src/layers/http/RolloutSchema.ts"
import { invoke } from "../support/CommandLine.ts"
import type { RolloutService } from "../support/RolloutService.ts"
import { ScriptedProvider, startRolloutService } from "../support/RolloutService.ts"
import { temporaryFolder } from "../support/Service.ts"

const folder = temporaryFolder()
const providers = [new ScriptedProvider("old"), new ScriptedProvider("new")] as const
const [stable, candidate] = providers

let service: RolloutService
beforeAll(async () => {
  await Promise.all(providers.map((provider) => provider.listen()))
  service = await startRolloutService(providers, folder.path)
})
afterAll(async () => {
  await service.stop()
  for (const provider of providers) provider.close()
  folder[Symbol.dispose]()
})

const troupe = (...args: ReadonlyArray<string>) => invoke(["rollout", ...args, "--url", service.adminUrl])

const askMany = (count: number) => Promise.all(Array.from({ length: count }, () => service.ask()))

/** While this many callers ask without a pause: what they got. */
const whileAsked = async <A>(callers: number, work: Promise<A>) => {
  const seen = new Set<string>()
  let isOver = false
  const asking = Array.from({ length: callers }, async () => {
    while (!isOver) seen.add(await service.ask())
  })
  const result = await work.finally(() => {
    isOver = true
  })
  await Promise.all(asking)
  return { seen, result }
}

const until = async (isReached: (found: RolloutView) => boolean) => {
  for (;;) {
    const found = await service.rollout()
    if (isReached(found)) return found
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const ended = () => until(({ phase }) => phase === "Ended")

describe("a rollout", () => {
  it("gives no requests to a deployment that waits for one", async () => {
    assert.deepStrictEqual(new Set(await askMany(20)), new Set(["200 old"]))
    assert.strictEqual(candidate.count, 0)
    assert.include((await troupe("list")).stdout, "No rollouts yet.")
    assert.include((await troupe("status", "chat")).stderr, "The model chat has had no rollout. Start one with: ")
    assert.include((await troupe("status", "chta")).stderr, "Did you mean chat?")
    for (
      const [flag, value, expected] of [
        ["--steps", "0.5,0.3", "--steps: Expected shares above 0 that increase and end with 1, such as 0.1,0.3,0.7,1."],
        ["--steps", "1.5", "--steps: Expected a number from 0 to 1."],
        ["--error-rate", "7", "--error-rate: Expected"]
      ] as const
    ) {
      assert.include((await troupe("start", "chat", "--to", "chat#1", flag, value)).stderr, expected)
    }
    assert.match((await invoke(["ps", "--url", service.adminUrl])).stdout, /^chat#1 .*, candidate 0 % /m)
  })

  it("rolls a version back that fails 4 % of its requests, with its evidence, while 100 callers see no error", async () => {
    candidate.fails = (index) => index % 25 === 24
    const started = await troupe("start", "chat", "--to", "chat#1", "--min-requests", "5000")
    assert.match(started.stdout, /^rollout-\w+: chat from chat#0 to chat#1\nState: checking, 0 % of the requests/)
    const { result, seen } = await whileAsked(100, ended())
    assert.deepStrictEqual(seen, new Set(["200 old", "200 new"]))
    assert.deepStrictEqual([result.outcome?.result, result.outcome?.metric], ["rolledBack", "errors"])
    const { stdout } = await troupe("status", "chat")
    assert.include(stdout, "State: rolled back, 0 % of the requests at chat#1")
    assert.match(stdout, /^METRIC +OLD +NEW +OLD WORSE +NEW WORSE +EVIDENCE +LIMIT$/m)
    assert.match(stdout, /^errors +0 % +\d\S* % +0 of \d+ +\d+ of \d+ +\S+ +\S+$/m)
    const asJson = JSON.parse((await troupe("status", result.id, "--json")).stdout) as typeof result
    assert.deepStrictEqual(asJson, result)
    const asked = candidate.count
    assert.deepStrictEqual(new Set(await askMany(20)), new Set(["200 old"]))
    assert.strictEqual(candidate.count, asked)
  })

  it("rolls a version back that passes its check and then never answers, before any of its requests has ended", async () => {
    candidate.fails = () => false
    const check = candidate.count
    candidate.hangs = (index) => index > check
    // Which rule decides depends on how long the old version takes: the test needs its requests beside those that wait.
    const settings = { metrics: ["errors", "hanging"], minRequests: 5_000, hangsAfter: "1 second" }
    assert.strictEqual((await service.admin("POST", "", { model: "chat", to: "chat#1", settings })).status, 201)
    await until(({ phase }) => phase === "Stepping")
    assert.match((await invoke(["ps", "--url", service.adminUrl])).stdout, /^chat#1 .*, candidate 50 % /m)
    assert.deepStrictEqual(await service.versions(), [{ deployment: "chat#1", role: "candidate", weight: 0.5 }])
    // Callers that wait for the new version send nothing else.
    const { result, seen } = await whileAsked(
      60,
      until(({ outcome }) => outcome !== undefined).then(async (found) => {
        candidate.answer()
        await ended()
        return found
      })
    )
    assert.deepStrictEqual([result.outcome?.result, result.outcome?.metric], ["rolledBack", "hanging"])
    assert.deepStrictEqual(seen, new Set(["200 old", "200 new"]))
    assert.match(
      result.outcome?.reason ?? "",
      /no token or answer after \d+ ms and the tolerance: 100 % of \d+ against|no request had a token or an answer for \d+ s/
    )
    const { stdout } = await troupe("status", "chat")
    assert.match(stdout, /^time without a token +\S.* ms +\d+ of \d+ +\d+ of \d+ +\S+ +40$/m)
  })

  it("promotes a version that is not worse, which takes all requests, also after a restart", async () => {
    assert.strictEqual((await service.admin("POST", "", { model: "chat", to: "chat#1" })).status, 201)
    const { result, seen } = await whileAsked(20, ended())
    assert.strictEqual(result.outcome?.result, "promoted")
    assert.isTrue([...seen].every((answer) => answer.startsWith("200")))
    const asked = stable.count
    assert.deepStrictEqual(new Set(await askMany(20)), new Set(["200 new"]))
    await service.stop()
    service = await startRolloutService(providers, folder.path)
    assert.deepStrictEqual(new Set(await askMany(20)), new Set(["200 new"]))
    assert.strictEqual(stable.count, asked)
    assert.include((await troupe("ls")).stdout, "promoted")
    assert.deepStrictEqual(await service.versions(), [{
      deployment: "chat#0",
      role: "withheld",
      reason: "replaced",
      weight: 0
    }])
  })

  it("adds a deployment for another model of the provider, which stays after a restart, and goes after a rollback", async () => {
    const started = await troupe("start", "chat", "--to", "third", "--json")
    const { candidate: added, id } = JSON.parse(started.stdout) as { readonly candidate: string; readonly id: string }
    assert.strictEqual(added, `chat#${id}`)
    const { result } = await whileAsked(10, ended())
    assert.strictEqual(result.outcome?.result, "promoted")
    assert.deepStrictEqual(new Set(await askMany(10)), new Set(["200 third"]))
    await service.stop()
    service = await startRolloutService(providers, folder.path)
    assert.deepStrictEqual(new Set(await askMany(10)), new Set(["200 third"]))
    await troupe("start", "chat", "--to", "chat#1")
    await whileAsked(10, ended())
    assert.deepStrictEqual(new Set(await askMany(10)), new Set(["200 new"]))
    candidate.fails = () => true
    const failing = await troupe("start", "chat", "--to", "fourth", "--json")
    assert.include(
      (await troupe("abort")).stdout,
      `${(JSON.parse(failing.stdout) as { readonly id: string }).id}: chat`
    )
    candidate.fails = () => false
    assert.strictEqual((await ended()).outcome?.result, "aborted")
    const gone = await invoke(["ps", "--json", "--url", service.adminUrl])
    assert.notInclude(gone.stdout, (JSON.parse(failing.stdout) as { readonly candidate: string }).candidate)
  })

  it("refuses what cannot be done, and says why", async () => {
    const message = async (...args: ReadonlyArray<string>) => (await troupe(...args)).stderr
    assert.include(await message("pause", "chat"), "The rollout is over")
    assert.include(await message("pause"), "No rollout is running.")
    assert.include(await message("start", "chat", "--to", "chat#1"), "chat#1 already takes all requests of chat.")
    assert.include(await message("start", "chat", "--to", "chat#2"), "Its deployments: chat#0, chat#1,")
    assert.include(await message("start", "chat", "--to", "chat#0", "--steps", "0.5"), "end with 1")
    assert.include(await message("status", "chut"), "Did you mean chat?")
    const wrong = await service.admin("POST", "", { model: "chat", to: "chat#0", settings: { every: 5 } })
    assert.strictEqual(wrong.status, 400)
    assert.strictEqual((await service.admin("POST", "/chat/stop")).status, 404)
  })

  it("is made permanent in the configuration without a failed request", async () => {
    const made = service.change([candidate.options])
    const { seen } = await whileAsked(20, made.then(() => askMany(20)))
    assert.deepStrictEqual(seen, new Set(["200 new"]))
    assert.deepStrictEqual(new Set(await askMany(20)), new Set(["200 new"]))
  })

  it("gives no request to a deployment that another configuration lets wait for one", async () => {
    const asked = stable.count
    const waiting = ["newer", "newest"].map((model) => ({ ...stable.options, model, rollout: "candidate" }))
    await service.change([candidate.options, ...waiting])
    assert.deepStrictEqual(new Set(await askMany(40)), new Set(["200 new"]))
    assert.strictEqual(stable.count, asked)
  })
})
