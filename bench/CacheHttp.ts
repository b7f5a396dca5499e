/**
 * A hit of the response cache through HTTP: the CPU time and the latency of the service for it, compared with the same
 * request to the same fake engine by a model without a cache.
 */
import type { Child } from "./Child.ts"
import { withChild } from "./Child.ts"
import type { LoadAnswer, LoadQuestion } from "./load.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import type { Effort, Outcome, Row } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { withService } from "./Service.ts"
import { median } from "./Statistics.ts"

const path = "/v1/chat/completions"
const connections = 16

const reply = "It is cleaned with a dry cloth. ".repeat(32).trim()

const config = `
server:
  shutdownGrace: 1 second
models:
  fake/kept:
    cache: { when: always }
    deployments: [{ engine: fake, reply: "${reply}", slots: ${connections} }]
  fake/called:
    cache: { when: never }
    deployments: [{ engine: fake, reply: "${reply}", slots: ${connections} }]
`

const messages = [
  { role: "system", content: "You answer questions about one product. ".repeat(48) },
  { role: "user", content: "How is it cleaned?" }
]

const bodyOf = (model: string, stream: boolean) => JSON.stringify({ model, messages, temperature: 0, stream })

interface Measured extends LoadAnswer {
  readonly cpu: ProcessCpu.Spent
}

type Load = Child<LoadQuestion, LoadAnswer>

const measure = async (load: Load, { pid, port }: Service, body: string, milliseconds: number): Promise<Measured> => {
  const [answer, cpu] = await ProcessCpu.during(pid, () => load.ask({ port, path, body, connections, milliseconds }))
  return { ...answer, cpu }
}

/** The first request is answered by the engine, and all others from memory. */
const expectHit = async (port: number, body: string): Promise<void> => {
  for (const expected of ["miss", "hit"]) {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, {
      method: "POST",
      body,
      headers: { "content-type": "application/json" }
    })
    await response.text()
    const found = response.headers.get("x-troupe-cache")
    if (found !== expected) throw new Error(`Expected a ${expected} of the cache, got ${found} (${response.status})`)
  }
}

interface Round {
  readonly hit: Measured
  readonly called: Measured
}

const rowsOf = (form: string, rounds: ReadonlyArray<Round>): ReadonlyArray<Row> => {
  const compared = (figure: (measured: Measured) => number) => ({
    scenario: "cache",
    comparison: "ratio" as const,
    baseline: median(rounds.map(({ called }) => figure(called))),
    troupe: median(rounds.map(({ hit }) => figure(hit)))
  })
  const cpu = { ...compared(({ cpu, requests }) => cpu.process / requests), unit: "µs/request" }
  const latency = { ...compared(({ latency }) => latency.p50), unit: "ms" }
  return [
    ...(ProcessCpu.isAvailable ? [{ ...cpu, measure: `hit through HTTP, ${form}, CPU` }] : []),
    { ...latency, measure: `hit through HTTP, ${form}, latency` }
  ]
}

const measureForm = async (load: Load, service: Service, stream: boolean, effort: Effort) => {
  const kept = bodyOf("fake/kept", stream)
  const called = bodyOf("fake/called", stream)
  await measure(load, service, called, effort.warmUpMs)
  await measure(load, service, kept, effort.warmUpMs)
  const rounds: Array<Round> = []
  for (let round = 0; round < effort.rounds; round++) {
    rounds.push({
      hit: await measure(load, service, kept, effort.roundMs),
      called: await measure(load, service, called, effort.roundMs)
    })
  }
  return { rows: rowsOf(stream ? "streamed" : "whole", rounds), rounds }
}

/** Rows of the scenario `cache`. */
export const run = (effort: Effort, nodeOptions: ReadonlyArray<string>): Promise<Outcome> =>
  withService({ config, nodeOptions }, (service) =>
    withChild("load.ts", async (load: Load) => {
      await expectHit(service.port, bodyOf("fake/kept", false))
      const whole = await measureForm(load, service, false, effort)
      const streamed = await measureForm(load, service, true, effort)
      return {
        rows: [...whole.rows, ...streamed.rows],
        notes: ProcessCpu.isAvailable ? [] : [ProcessCpu.unavailable],
        raw: { whole: whole.rounds, streamed: streamed.rounds }
      }
    }))
