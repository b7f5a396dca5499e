/**
 * The engine suite for the onnx engine on wasm, in a process of its own. `npm test` leaves it out: it has the one on wasm in a
 * thread, and the one on cpu in a process.
 */
import { fileURLToPath } from "node:url"
import { describe } from "vitest"
import { isBrief } from "../support/Repetitions.ts"
import { engineConformance } from "./engine.ts"
import { prompts } from "./tinyChat.ts"

describe.skipIf(isBrief)("in full", () => {
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
})
