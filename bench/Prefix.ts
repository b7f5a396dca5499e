/**
 * The gain of reusing a slot's computation: the time to first token of a prompt whose first 200 tokens were computed
 * before, compared with that of a new prompt.
 */
import * as Config from "./Config.ts"
import type { Effort, Outcome, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { withService } from "./Service.ts"
import { median } from "./Statistics.ts"
import type { Streamed } from "./StreamClient.ts"
import { makeStreamClient } from "./StreamClient.ts"
import * as SyntheticGguf from "./SyntheticGguf.ts"

const name = "prefix"
const setup = { contextSize: 512, slots: 4, threads: Config.computeThreads }
const sharedTokens = 200
const ownTokens = 20
/** The beginning of the chat template is common to all prompts. */
const templateTokens = 16
/** A slot keeps complete pieces of 64 tokens. */
const keptTokens = 192
const pairsPerRound = 3
const targetRatio = 0.4

const bodyOf = (content: string) =>
  JSON.stringify({
    model: "synthetic",
    messages: [{ role: "user", content }],
    max_tokens: 2,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true }
  })

/** A new prompt, then one with the same beginning. */
interface Pair {
  readonly fresh: Streamed
  readonly shared: Streamed
}

const check = ({ fresh, shared }: Pair): void => {
  if (fresh.cachedTokens <= templateTokens && shared.cachedTokens >= keptTokens) return
  throw new Error(
    `Of a new prompt ${fresh.cachedTokens} tokens were counted as computed before, of a shared one ${shared.cachedTokens}`
  )
}

const measure = async ({ port }: Service, { rounds, shape }: Effort): Promise<Outcome> => {
  const client = makeStreamClient(port, 1)
  const text = (number: number, tokens: number) => SyntheticGguf.textOf(shape, number, tokens)
  const ask = (prefix: number, own: number) => client.ask(bodyOf(text(prefix, sharedTokens) + text(own, ownTokens)))
  try {
    const pairs: Array<Pair> = []
    // The first pair runs cold code.
    for (let pair = 0; pair <= rounds * pairsPerRound; pair++) {
      const measured = { fresh: await ask(3 * pair, 3 * pair + 1), shared: await ask(3 * pair, 3 * pair + 2) }
      check(measured)
      if (pair > 0) pairs.push(measured)
    }
    const row = {
      scenario: name,
      measure: `time to first token, ${sharedTokens} of ${sharedTokens + ownTokens} words asked before`,
      unit: "ms",
      baseline: median(pairs.map(({ fresh }) => fresh.firstTokenMs)),
      troupe: median(pairs.map(({ shared }) => shared.firstTokenMs)),
      comparison: "ratio" as const,
      target: { atMost: targetRatio }
    }
    return { rows: [row], notes: [], raw: { setup, pairs } }
  } finally {
    client.close()
  }
}

export const prefix: Scenario = {
  name,
  async run(effort, nodeOptions) {
    const file = await SyntheticGguf.ensure(effort.shape)
    const config = Config.make({ synthetic: { engine: "llama", file, ...setup } })
    return withService({ config, nodeOptions }, (service) => measure(service, effort))
  }
}
