/** The overhead for a very small model: `tiny-chat`. See `Streams`. */
import { fileURLToPath } from "node:url"
import * as Config from "./Config.ts"
import type { Scenario } from "./Scenario.ts"
import { compare } from "./Streams.ts"

const name = "tokens"
const prompts = ["Write a story about a fox."]

/** The path of the embedded model. */
export const tinyChat = fileURLToPath(new URL("../models/tiny-chat-q8_0.gguf", import.meta.url))

export const tokens: Scenario = {
  name,
  run: (effort, nodeOptions) =>
    compare(
      {
        name,
        model: "tiny-chat",
        direct: { file: tinyChat, contextSize: 512, slots: 8, threads: 1 },
        config: Config.embedded,
        promptsOf: () => prompts,
        maxTokens: 128,
        streamCounts: [1, 8],
        isRight: (text) => text.includes("fox"),
        throughputRatio: 0.8,
        tokenCpu: 60
      },
      effort,
      nodeOptions
    )
}
