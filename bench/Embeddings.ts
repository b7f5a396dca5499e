/**
 * What gathering embeddings of several callers into one job is worth.
 *
 * **Details**
 *
 * The baseline is one caller, whose jobs have one text each: a single slot takes one job at a time, so several callers
 * would get no more together if their texts were not gathered. The fake engine's job takes the same time however many
 * texts it has; `tiny-chat` computes one text after the other, and gathering saves only what a job costs.
 */
import { closedLoop } from "./ClosedLoop.ts"
import * as Config from "./Config.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { post, withService } from "./Service.ts"
import { median } from "./Statistics.ts"
import { tinyChat } from "./Tokens.ts"

const name = "embeddings"
/** As many as a job takes. */
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
    if (!answer.includes("\"embedding\":[")) throw new Error(`The service answered wrongly: ${answer.slice(0, 300)}`)
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
