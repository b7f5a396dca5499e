/**
 * Compares the engines: `tiny-chat` on llama.cpp, on native ONNX and on ONNX by WASM, with the same prompt of one caller.
 *
 * **Details**
 *
 * The llama engine's weights are Q8_0, the others' F32, and each has one compute thread: a row compares what a caller
 * gets from each engine, not the quality of their kernels.
 */
import { fileURLToPath } from "node:url"
import type { Round } from "./ClosedLoop.ts"
import { closedLoop } from "./ClosedLoop.ts"
import * as Config from "./Config.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { withService } from "./Service.ts"
import { median } from "./Statistics.ts"
import type { StreamClient } from "./StreamClient.ts"
import { makeStreamClient } from "./StreamClient.ts"
import { tinyChat } from "./Tokens.ts"

const name = "engines"
const folder = fileURLToPath(new URL("../models/tiny-chat-onnx", import.meta.url))
const baseline = "llama"
const deployments = {
  [baseline]: { engine: "llama", file: tinyChat },
  "onnx cpu": { engine: "onnx", folder, device: "cpu" },
  "onnx wasm": { engine: "onnx", folder, device: "wasm" }
}
const engines = Object.keys(deployments)

const bodyOf = (model: string): string =>
  JSON.stringify({
    model,
    messages: [{ role: "user", content: "Write a story about a fox." }],
    temperature: 0,
    max_tokens: 128,
    stream: true,
    stream_options: { include_usage: true }
  })

type Rounds = ReadonlyMap<string, Array<Round>>

/** Every engine in turn. */
const measureRound = async (client: StreamClient, milliseconds: number, rounds: Rounds): Promise<void> => {
  for (const engine of engines) {
    const body = bodyOf(engine)
    const round = await closedLoop(1, milliseconds, () => client.ask(body))
    const wrong = round.texts.find((text) => !text.includes("fox"))
    if (wrong !== undefined) throw new Error(`Unexpected answer of the engine ${engine}: ${wrong}`)
    rounds.get(engine)?.push(round)
  }
}

const rowsFor = (engine: string, rounds: Rounds): ReadonlyArray<Row> => {
  const row = (measure: string, unit: string, figure: (round: Round) => number): Row => ({
    scenario: name,
    measure: `${engine} against ${baseline}, ${measure}`,
    unit,
    baseline: median(rounds.get(baseline)!.map(figure)),
    troupe: median(rounds.get(engine)!.map(figure)),
    comparison: "ratio"
  })
  return [
    row("throughput", "tokens/s", (round) => round.tokensPerSecond),
    row("time to first token", "ms", (round) => round.firstTokenMs)
  ]
}

const measure = async ({ port }: Service, effort: Effort): Promise<Outcome> => {
  const client = makeStreamClient(port, 1)
  const rounds: Rounds = new Map(engines.map((engine) => [engine, []]))
  try {
    await measureRound(client, effort.warmUpMs, new Map())
    for (let round = 0; round < effort.rounds; round++) await measureRound(client, effort.roundMs, rounds)
    return {
      rows: engines.filter((engine) => engine !== baseline).flatMap((engine) => rowsFor(engine, rounds)),
      notes: [],
      raw: Object.fromEntries(rounds)
    }
  } finally {
    client.close()
  }
}

export const engineKinds: Scenario = {
  name,
  run: (effort, nodeOptions) =>
    withService({ config: Config.make(deployments), nodeOptions }, (service) => measure(service, effort))
}
