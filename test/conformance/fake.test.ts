/** The engine suite for the fake engine, on a thread and in a process. */
import { engineConformance } from "./engine.ts"

for (const where of ["thread", "process"] as const) {
  engineConformance({
    name: "fake",
    options: { engine: "fake", slots: 4, contextSize: 200, tokenDelayMs: 1 },
    question: ["Grüße an die 🦊 und die 日本語", "fake: Grüße an die 🦊 und die 日本語"],
    long: "one two three four five six seven eight nine ten eleven twelve",
    nearlyFull: "word ".repeat(110),
    tooLong: "word ".repeat(200),
    capabilities: [
      "generate",
      "complete",
      "tools",
      "format",
      "logprobs",
      "embed",
      "embedTokens",
      "rerank",
      "classify",
      "tokenize"
    ],
    cachesPrompts: false,
    formats: [{ type: "json_object" }],
    continuesExactly: true,
    where
  })
}
