/** The engine suite for the onnx engine on wasm, in a process of its own. */
import { fileURLToPath } from "node:url"
import { engineConformance } from "./engine.ts"
import { prompts } from "./tinyChat.ts"

engineConformance({
  name: "onnx on wasm",
  options: {
    engine: "onnx",
    folder: fileURLToPath(new URL("../../models/tiny-chat-onnx", import.meta.url)),
    device: "wasm",
    slots: 4
  },
  capabilities: ["generate", "complete", "tools", "format", "logprobs", "tokenize"],
  cachesPrompts: true,
  continuesExactly: true,
  where: "process",
  ...prompts
})
