/** The Engine seam's suite over every engine and both places it can run. */
import { fileURLToPath } from "node:url"
import type { Subject } from "./engine.ts"
import { engineConformance } from "./engine.ts"
import { prompts } from "./tinyChat.ts"

const models = fileURLToPath(new URL("../../models/", import.meta.url))

const llama: Omit<Subject, "where"> = {
  name: "llama",
  options: { engine: "llama", file: `${models}tiny-chat-q8_0.gguf`, slots: 4, threads: 1 },
  abilities: ["generate", "tools", "format", "logprobs", "embed", "tokenize"],
  keepsPrompts: true,
  goesOn: "exactly",
  ...prompts
}

const onnx = (device: "cpu" | "wasm"): Omit<Subject, "where"> => ({
  name: `onnx on ${device}`,
  options: { engine: "onnx", folder: `${models}tiny-chat-onnx`, device, slots: 4 },
  abilities: ["generate", "tools", "format", "logprobs", "tokenize"],
  keepsPrompts: true,
  goesOn: "exactly",
  ...prompts
})

const fake: Omit<Subject, "where"> = {
  name: "fake",
  options: { engine: "fake", slots: 4, contextSize: 200, tokenDelayMs: 1 },
  question: ["Grüße an die 🦊 und die 日本語", "fake: Grüße an die 🦊 und die 日本語"],
  long: "one two three four five six seven eight nine ten eleven twelve",
  nearlyFull: "word ".repeat(110),
  tooLong: "word ".repeat(200),
  abilities: ["generate", "tools", "format", "logprobs", "embed", "rerank", "classify", "tokenize"],
  keepsPrompts: false,
  formats: [{ type: "json_object" }],
  goesOn: "exactly"
}

for (const where of ["thread", "process"] as const) {
  engineConformance({ ...llama, where })
  engineConformance({ ...onnx("cpu"), where })
  engineConformance({ ...onnx("wasm"), where })
  engineConformance({ ...fake, where })
}
