/**
 * The gain of batching embeddings of several callers into one job.
 *
 * **Details**
 *
 * The baseline is one caller with one text per job: a single slot runs one job at a time, so without batching several
 * callers would have the same total throughput. A job of the fake engine takes the same time for any number of texts;
 * `tiny-chat` computes one text after another, and batching saves only the cost of a job.
 */
import { closedLoop } from "./ClosedLoop.ts"
import * as Config from "./Config.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { post, withService } from "./Service.ts"
import { median } from "./Statistics.ts"
import { tinyChat } from "./Tokens.ts"

const name = "embeddings"
/** The texts of one job. */
const callers = 10
const models = { "fake/steady": "a job of 10 ms", "tiny-chat": "tiny-chat" }
const targetRatio = 5
const config = Config.make({
  "fake/steady": { engine: "fake", promptDelayMs: 10, slots: 1 },
  "tiny-chat": { engine: "llama", file: tinyChat, slots: 1 }
})

const bodyOf = (model: string) => JSON.stringify({ model, input: "A fox lost a silver bell in the forest." })

/** Answers a second. */
const rate = async (port: number, model: string, count: number, milliseconds: number): Promise<number> => {
  const body = bodyOf(model)
  const round = await closedLoop(count, milliseconds, async () => {
    const answer = await post(port, "/v1/embeddings", body)
    if (!answer.includes("\"embedding\":[")) {
      throw new Error(`Unexpected answer of the service: ${answer.slice(0, 300)}`)
    }
    return { tokens: 0, firstTokenMs: 0, text: "" }
  })
  return round.answers / (round.milliseconds / 1000)
}

interface Pair {
  readonly one: number
  readonly many: number
}

const measurePair = async (port: number, model: string, milliseconds: number): Promise<Pair> => ({
  one: await rate(port, model, 1, milliseconds),
  many: await rate(port, model, callers, milliseconds)
})

const rowOf = (model: keyof typeof models, pairs: ReadonlyArray<Pair>): Row => ({
  scenario: name,
  measure: `${models[model]}, ${callers} callers against one`,
  unit: "requests/s",
  baseline: median(pairs.map(({ one }) => one)),
  troupe: median(pairs.map(({ many }) => many)),
  comparison: "ratio",
  ...(model === "fake/steady" ? { target: { atLeast: targetRatio } } : {})
})

const measure = async ({ port }: Service, effort: Effort): Promise<Outcome> => {
  const rows: Array<Row> = []
  const raw: Record<string, ReadonlyArray<Pair>> = {}
  for (const model of Object.keys(models) as Array<keyof typeof models>) {
    await measurePair(port, model, effort.warmUpMs)
    const pairs: Array<Pair> = []
    for (let round = 0; round < effort.rounds; round++) pairs.push(await measurePair(port, model, effort.roundMs))
    rows.push(rowOf(model, pairs))
    raw[model] = pairs
  }
  return { rows, notes: [], raw }
}

export const embeddings: Scenario = {
  name,
  run: (effort, nodeOptions) => withService({ config, nodeOptions }, (service) => measure(service, effort))
}
