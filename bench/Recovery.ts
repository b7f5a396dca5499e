/**
 * The time from the kill of a service's engine process to its next complete answer.
 *
 * **Details**
 *
 * `tiny-chat`, and a caller that retries after each rejection. Every round starts a new service, since the backoff grows
 * with each restart of an engine. The time includes the first backoff before a restart, 0.1 s, and the load.
 */
import { setTimeout as sleep } from "node:timers/promises"
import * as Config from "./Config.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import type { Outcome, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { post, withService } from "./Service.ts"
import { median } from "./Statistics.ts"

const name = "recovery"
/** Limit of a load, ms. */
const targetTime = 2_000
/** Delay between a rejection and the retry, ms. */
const pause = 5
const limit = 30_000

const unavailable =
  "Recovery is not measured here: the engine's process is found in /proc, which this system does not have."

const body = JSON.stringify({
  model: "tiny-chat",
  messages: [{ role: "user", content: "What is 7 + 5?" }],
  temperature: 0
})

const ask = async (port: number): Promise<void> => {
  const answer = await post(port, "/v1/chat/completions", body)
  if (!answer.includes("7 + 5 = 12.")) throw new Error(`Unexpected answer of the service: ${answer}`)
}

interface Recovered {
  readonly milliseconds: number
  /** Requests that failed meanwhile. */
  readonly failed: number
}

const killAndAsk = async ({ pid, port }: Service): Promise<Recovered> => {
  await ask(port)
  const engines = ProcessCpu.childrenOf(pid)
  if (engines.length !== 1) throw new Error(`The service has ${engines.length} child processes, not one`)
  process.kill(engines[0]!, "SIGKILL")
  const begun = performance.now()
  let failed = 0
  while (performance.now() - begun < limit) {
    try {
      await ask(port)
      return { milliseconds: performance.now() - begun, failed }
    } catch {
      failed++
      await sleep(pause)
    }
  }
  throw new Error(`The service did not recover within ${limit} ms`)
}

export const recovery: Scenario = {
  name,
  async run({ rounds }, nodeOptions): Promise<Outcome> {
    if (!ProcessCpu.isAvailable) return { rows: [], notes: [unavailable], raw: null }
    const recovered: Array<Recovered> = []
    for (let round = 0; round < rounds; round++) {
      recovered.push(await withService({ config: Config.embedded, nodeOptions }, killAndAsk))
    }
    const row = {
      scenario: name,
      measure: "from the engine's SIGKILL to the next answer",
      unit: "ms",
      troupe: median(recovered.map(({ milliseconds }) => milliseconds)),
      comparison: "none" as const,
      target: { atMost: targetTime }
    }
    return { rows: [row], notes: [], raw: recovered }
  }
}
