/** The engine suite for the onnx engine on cpu, on a thread of this process. */
import { fileURLToPath } from "node:url"
import { engineConformance } from "./engine.ts"
import { prompts } from "./tinyChat.ts"

engineConformance({
  name: "onnx on cpu",
  options: {
    engine: "onnx",
    folder: fileURLToPath(new URL("../../models/tiny-chat-onnx", import.meta.url)),
    device: "cpu",
    slots: 4
  },
  capabilities: ["generate", "complete", "tools", "format", "logprobs", "tokenize"],
  cachesPrompts: true,
  continuesExactly: true,
  where: "thread",
  ...prompts
})
