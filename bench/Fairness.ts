/**
 * The wait of a tenant with one request at a time while another tenant floods the same deployment, compared with its
 * wait alone.
 *
 * **Details**
 *
 * The fake engine takes the same time for every answer, so that only the queue makes a difference. A fair queue gives the
 * light tenant the next free slot: it waits for at most one other answer, twice the time. In a queue without fairness it
 * would wait for the complete flood: 17 times.
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

/** The service distinguishes tenants by their bearer tokens. */
const ask = async (port: number, tenant: string): Promise<number> => {
  const begun = performance.now()
  await post(port, "/v1/chat/completions", body, { authorization: `Bearer ${tenant}` })
  return performance.now() - begun
}

/** Sequential requests, each right after the previous answer; ms each. */
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
  // When the first request of the flood is answered, all others are queued.
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
