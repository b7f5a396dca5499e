/**
 * Process entry that loads models to see whether they can be loaded: all of the file, and of a GGUF file one token computed.
 *
 * **Details**
 *
 * A bad file can abort the process that loads it, so this one holds nothing that anybody would miss. It answers each
 * spec with a `FromInspector`, and ends when its parent does not need it any more.
 *
 * **Gotchas**
 *
 * It must not import `effect`: see `services/EngineProtocol`.
 */
import type { FromInspector, LlamaSpec, OnnxSpec } from "./services/EngineProtocol.ts"
import { failureFrom, refuse } from "./services/Job.ts"
import type { Loaded } from "./workers/llama/LlamaLoad.ts"
import { load } from "./workers/llama/LlamaLoad.ts"

if (process.send === undefined) {
  process.stderr.write("This file is started by Troupe itself. Run `troupe --help`.\n")
  process.exit(64)
}

/** No token is left out, so that one that is not a number shows. */
const everyToken = { temperature: 1, topK: 0, topP: 1 }

/** Damaged weights compute what is not a number. A model that cannot go on with a text is only loaded. */
const computeToken = async ({ description, free, model }: Loaded): Promise<void> => {
  const [slot] = free
  const token = model.tokens.bos ?? model.tokenize("a")[0] ?? model.tokens.eos
  if (slot === undefined || token === null || !description.abilities.includes("generate")) return
  const computed = slot.sequence.evaluateWithMetadata([token], { confidence: true }, everyToken)
  for await (const { confidence } of computed) {
    if (Number.isFinite(confidence)) return
    refuse({ kind: "load_failed", message: "Its weights are damaged: what they compute is not a number" })
  }
}

const tryLlama = async (spec: LlamaSpec): Promise<void> => {
  const loaded = await load(spec)
  try {
    await computeToken(loaded)
  } finally {
    await loaded.llama.dispose()
  }
}

const tryOnnx = async (spec: OnnxSpec): Promise<void> => {
  const { load } = await import("./workers/onnx/OnnxLoad.ts")
  const { session } = await load(spec)
  await session.release()
}

const inspect = async (spec: LlamaSpec | OnnxSpec): Promise<FromInspector> => {
  try {
    await (spec.engine === "llama" ? tryLlama(spec) : tryOnnx(spec))
    return { type: "passed" }
  } catch (cause) {
    return { type: "failed", failure: failureFrom(cause, "load_failed") }
  }
}

for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => {})
// An ordinary exit in the middle of a load would abort.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"))
process.on("message", (spec: LlamaSpec | OnnxSpec) => void inspect(spec).then((result) => process.send?.(result)))
