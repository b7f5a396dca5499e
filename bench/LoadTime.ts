/**
 * The load time of a model: an engine's process from its start until it is ready, compared with a process that loads the
 * same model with node-llama-cpp; and the first answer of a service whose model is not loaded.
 */
import { makeChildHost } from "../src/layers/engines/ChildHost.ts"
import * as Config from "./Config.ts"
import { withDirect } from "./DirectSide.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { post, withService } from "./Service.ts"
import { percentile } from "./Statistics.ts"
import * as SyntheticGguf from "./SyntheticGguf.ts"
import { until } from "./Until.ts"

const name = "load"
const setup = { contextSize: 256, slots: 4, threads: Config.computeThreads }
const targetRatio = 1.2
/** ms */
const targetTime = 2_000
/** For a percentile, one load per round is not enough. */
const loadsPerRound = 2
/** Limit of the end of an engine, ms. */
const grace = 5_000

const loadDirect = (file: string): Promise<number> => {
  const begun = performance.now()
  return withDirect({ ...setup, file }, async () => performance.now() - begun)
}

const loadEngine = async (file: string): Promise<number> => {
  const begun = performance.now()
  const host = makeChildHost({
    spec: { engine: "llama", file, ...setup },
    replicas: 1,
    cancelGraceMs: grace,
    closeGraceMs: grace
  })
  try {
    await host.ready
    return performance.now() - begun
  } finally {
    await host.close()
  }
}

const body = JSON.stringify({
  model: "synthetic",
  messages: [{ role: "user", content: " " }],
  max_tokens: 1,
  temperature: 0,
  // Unloads it afterwards.
  keep_alive: 0
})

const firstAnswer = async ({ pid, port }: Service): Promise<number> => {
  const begun = performance.now()
  await post(port, "/v1/chat/completions", body)
  const took = performance.now() - begun
  await until("the model was unloaded", () => ProcessCpu.childrenOf(pid).length === 0)
  return took
}

interface Loads {
  readonly direct: Array<number>
  readonly engine: Array<number>
  readonly service: Array<number>
}

const rowsOf = ({ direct, engine, service }: Loads): ReadonlyArray<Row> => {
  const p95 = (figures: ReadonlyArray<number>) => percentile(figures, 0.95)
  const row = { scenario: name, unit: "ms" }
  const ready = { ...row, measure: "engine process ready, p95", troupe: p95(engine) }
  return [
    { ...ready, baseline: p95(direct), comparison: "ratio", target: { atMost: targetRatio } },
    { ...ready, measure: "the same, as it is", comparison: "none", target: { atMost: targetTime } },
    ...(ProcessCpu.isAvailable
      ? [{
        ...row,
        measure: "first answer of a model that is not loaded, p95",
        troupe: p95(service),
        comparison: "none" as const,
        target: { atMost: targetTime }
      }]
      : [])
  ]
}

const measure = async (file: string, service: Service, effort: Effort): Promise<Outcome> => {
  const loads: Loads = { direct: [], engine: [], service: [] }
  // The first load reads the file's pages from disk and compiles code.
  await loadDirect(file)
  await loadEngine(file)
  for (let load = 0; load < effort.rounds * loadsPerRound; load++) {
    loads.direct.push(await loadDirect(file))
    loads.engine.push(await loadEngine(file))
    if (ProcessCpu.isAvailable) loads.service.push(await firstAnswer(service))
  }
  return {
    rows: rowsOf(loads),
    notes: ProcessCpu.isAvailable ? [] : [ProcessCpu.unavailable],
    raw: { setup, loads }
  }
}

export const load: Scenario = {
  name,
  async run(effort, nodeOptions) {
    const file = await SyntheticGguf.ensure(effort.shape)
    const config = Config.make({ synthetic: { engine: "llama", file, ...setup } }, { preload: false })
    return withService({ config, nodeOptions }, (service) => measure(file, service, effort))
  }
}
