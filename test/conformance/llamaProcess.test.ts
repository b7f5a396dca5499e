/** The engine suite for the llama engine, in a process of its own. */
import { fileURLToPath } from "node:url"
import { engineConformance } from "./engine.ts"
import { prompts } from "./tinyChat.ts"

engineConformance({
  name: "llama",
  options: {
    engine: "llama",
    file: fileURLToPath(new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url)),
    slots: 4,
    threads: 1
  },
  capabilities: ["generate", "complete", "tools", "format", "logprobs", "echo", "embed", "embedTokens", "tokenize"],
  cachesPrompts: true,
  continuesExactly: true,
  where: "process",
  ...prompts
})
