/**
 * What a tenant who asks for one answer at a time waits beside one who floods the same deployment, against what he
 * waits alone.
 *
 * **Details**
 *
 * The fake engine gives every answer in the same time, whatever else runs, so that only the queue makes a difference.
 * Of a fair one it is the light tenant's turn as soon as any slot is free: he waits for one answer at most before his
 * own, twice the time. First come, first served would have him wait for all of the flood: 17 times.
 */
import * as Config from "./Config.ts"
import type { Effort, Outcome, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { post, withService } from "./Service.ts"
import { percentile } from "./Statistics.ts"

const name = "fairness"
const model = "fake/steady"
const slots = 4
const flooders = 64
const targetRatio = 2
const config = Config.make({
  // 20 tokens of three bytes.
  [model]: { engine: "fake", reply: "x".repeat(60), tokenDelayMs: 5, slots }
})

const body = JSON.stringify({ model, messages: [{ role: "user", content: "Is it my turn?" }], temperature: 0 })

/** By its bearer token the service tells one tenant from another. */
const ask = async (port: number, tenant: string): Promise<number> => {
  const begun = performance.now()
  await post(port, "/v1/chat/completions", body, { authorization: `Bearer ${tenant}` })
  return performance.now() - begun
}

/** One at a time, each as soon as the last is answered, ms each. */
const askInTurn = async (port: number, tenant: string, isOver: () => boolean): Promise<ReadonlyArray<number>> => {
  const took: Array<number> = []
  do took.push(await ask(port, tenant))
  while (!isOver())
  return took
}

const lightTenant = (port: number, milliseconds: number): Promise<ReadonlyArray<number>> => {
  const end = performance.now() + milliseconds
  return askInTurn(port, "light", () => performance.now() >= end)
}

const besideFlood = async (port: number, milliseconds: number): Promise<ReadonlyArray<number>> => {
  let over = false
  const first = Promise.withResolvers<void>()
  const isOver = () => {
    first.resolve()
    return over
  }
  const flood = Array.from({ length: flooders }, () => askInTurn(port, "flood", isOver))
  // By the time that one of the flood is answered all others wait.
  await first.promise
  const took = await lightTenant(port, milliseconds)
  over = true
  await Promise.all(flood)
  return took
}

const measure = async ({ port }: Service, effort: Effort): Promise<Outcome> => {
  await lightTenant(port, effort.warmUpMs)
  const alone: Array<number> = []
  const beside: Array<number> = []
  for (let round = 0; round < effort.rounds; round++) {
    alone.push(...await lightTenant(port, effort.roundMs))
    beside.push(...await besideFlood(port, effort.roundMs))
  }
  const row = {
    scenario: name,
    measure: `p95 of one caller beside ${flooders} of another tenant, ${slots} slots, against alone`,
    unit: "ms",
    baseline: percentile(alone, 0.95),
    troupe: percentile(beside, 0.95),
    comparison: "ratio" as const,
    target: { atMost: targetRatio }
  }
  return { rows: [row], notes: [], raw: { flooders, slots, alone, beside } }
}

export const fairness: Scenario = {
  name,
  run: (effort, nodeOptions) => withService({ config, nodeOptions }, (service) => measure(service, effort))
}
