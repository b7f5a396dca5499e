/**
 * Process entry that loads models to see whether they can be loaded: all of the file, and one token or text computed.
 *
 * **Details**
 *
 * A bad file can abort the process that loads it, so this one holds nothing that anybody would miss. It answers each
 * spec with a `FromInspector`, and ends when its parent does not need it any more.
 *
 * **Gotchas**
 *
 * It must not import `effect`: see `domain/EngineProtocol`.
 */
import type { FromInspector, LlamaSpec, OnnxSpec } from "./domain/EngineProtocol.ts"
import { failureFrom } from "./domain/Job.ts"
import { loadChecked } from "./workers/llama/LlamaCheck.ts"

if (process.send === undefined) {
  process.stderr.write("This file is started by Troupe itself. Run `troupe --help`.\n")
  process.exit(64)
}

const tryLlama = async (spec: LlamaSpec): Promise<void> => {
  const { loaded } = await loadChecked(spec)
  await loaded.llama.dispose()
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
