/**
 * The overhead for a model of realistic size: `SyntheticGguf` with 136 million parameters. See `Streams`.
 *
 * **Details**
 *
 * Every prompt begins differently, so that all sides compute it completely. llama.cpp's own bench is compared too if the
 * environment says so: see `NativeBench`.
 */
import * as Config from "./Config.ts"
import * as NativeBench from "./NativeBench.ts"
import type { Scenario } from "./Scenario.ts"
import { compare } from "./Streams.ts"
import * as SyntheticGguf from "./SyntheticGguf.ts"

const name = "synthetic"
const slots = 16
const streamCounts = [1, 8, 16]
const contextSize = 256
const promptWords = 32
const maxTokens = 48
/** More than the requests of a round. */
const promptsPerRound = 256

export const synthetic: Scenario = {
  name,
  async run(effort, nodeOptions) {
    const { shape } = effort
    const file = await SyntheticGguf.ensure(shape)
    const deployment = { file, contextSize, slots, threads: Config.computeThreads }
    const promptTokens = promptWords + SyntheticGguf.templateTokens
    const native = await NativeBench.find({ ...deployment, promptTokens, maxTokens, streamCounts })
    const outcome = await compare(
      {
        name,
        model: "synthetic",
        direct: deployment,
        config: Config.make({ synthetic: { engine: "llama", ...deployment } }),
        promptsOf: (round) =>
          Array.from(
            { length: promptsPerRound },
            (_, index) => SyntheticGguf.textOf(shape, round * promptsPerRound + index, promptWords)
          ),
        maxTokens,
        streamCounts,
        isRight: (text) => text.trim().split(" ").length === maxTokens,
        throughputRatio: 0.95,
        firstTokenMs: 15,
        native
      },
      effort,
      nodeOptions
    )
    return native === undefined ? { ...outcome, notes: [...outcome.notes, NativeBench.unavailable] } : outcome
  }
}
