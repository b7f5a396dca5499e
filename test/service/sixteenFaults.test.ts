/**
 * Sixteen faults of a provider, each with every dialect of callers, streamed and whole, and with two dialects of providers:
 * the caller gets the whole answer, with its usage and the model that answered.
 */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"
import type { CallerDialect, Outcome, ProviderDialect } from "../support/SixteenFaults.ts"
import {
  ask,
  callerDialects,
  faults,
  modelsOf,
  names,
  playOf,
  policies,
  providerDialects,
  rowOf,
  text,
  tokens
} from "../support/SixteenFaults.ts"

let upstream: FaultServer
let service: Service

interface Case {
  readonly fault: typeof faults[number]
  readonly provider: ProviderDialect
  readonly caller: CallerDialect
  readonly stream: boolean
}

const cases: ReadonlyArray<Case> = faults.flatMap((fault) =>
  providerDialects.flatMap((provider) =>
    callerDialects.flatMap((caller) => [false, true].map((stream) => ({ fault, provider, caller, stream })))
  )
)

const idOf = ({ caller, fault, provider, stream }: Case): string =>
  `${faults.indexOf(fault)}-${provider}-${caller}-${stream ? "stream" : "whole"}`

beforeAll(async () => {
  upstream = await startFaultServer((_, seen) => playOf(seen))
  const models = cases.flatMap((one) => Object.entries(modelsOf(idOf(one), one.fault, one.provider, upstream.url)))
  service = await startService(JSON.stringify({ models: Object.fromEntries(models), policies }), { K: "key" })
}, 60_000)

afterAll(async () => {
  await service.stop()
  await upstream.close()
})

/** Requests that a deployment of a model has received. */
const callsOf = (id: string, deployment: string): number =>
  upstream.seen.filter(({ path }) => path.startsWith(`/${id}/`) && path.includes(`/${deployment}/`)).length

const passed = new Map<string, number>()

const expectAnswer = ({ caller, fault, stream }: Case, outcome: Outcome) => {
  const { by, from = by } = fault.outcome(stream)
  assert.deepStrictEqual(outcome, {
    status: 200,
    text,
    prompt: tokens.prompt,
    completion: tokens.completion,
    // A stream of Anthropic's dialect names its model at the start only.
    model: names[caller === "anthropic" && stream ? from : by],
    isWhole: true
  })
}

describe.concurrent("a provider's fault is not seen by the caller", () => {
  for (const one of cases) {
    const { caller, fault, provider, stream } = one
    it(`${fault.name}: ${provider}, asked in the dialect ${caller}, ${stream ? "streamed" : "whole"}`, async () => {
      const id = idOf(one)
      for (let request = 0; request < (fault.requests ?? 1); request++) {
        expectAnswer(one, await ask(service.url, caller, id, stream))
      }
      assert.isAtMost(callsOf(id, "first"), fault.most ?? 1)
      assert.isAtLeast(callsOf(id, "first"), 1)
      passed.set(fault.name, (passed.get(fault.name) ?? 0) + 1)
    }, 60_000)
  }
})

describe("an event that was left out", () => {
  it("is counted in a metric and in the decision record", async () => {
    const id = idOf({ fault: faults[9]!, provider: "openai", caller: "openai", stream: true })
    const { decisions } = await (await fetch(`${service.url}/admin/decisions?limit=1000`)).json() as {
      readonly decisions: ReadonlyArray<{ model: string; attempts: ReadonlyArray<{ skippedEvents?: number }> }>
    }
    const { attempts } = decisions.find(({ model }) => model === id)!
    assert.deepStrictEqual(attempts.map(({ skippedEvents }) => skippedEvents), [1])
    const metrics = await (await fetch(`${service.url}/metrics`)).text()
    assert.include(metrics, `llm_stream_events_skipped_total{model="${id}"} 1`)
  })
})

describe("all faults", () => {
  it("are sixteen, and none is seen", () => {
    const rows = faults.map(({ name }) => rowOf(name, passed.get(name) ?? 0, cases.length / faults.length))
    process.stdout.write(`${rows.join("\n")}\n`)
    assert.strictEqual(faults.length, 16)
    assert.strictEqual(rows.filter((row) => row.endsWith("pass")).length, 16)
  })
})
