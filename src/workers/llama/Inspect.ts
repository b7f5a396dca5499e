/** Loads a model in the inspecting process (`src/inspect.ts`), computes once, and releases it. */
import { loadChecked } from "./LlamaCheck.ts"
import type { LlamaSpec } from "./LlamaLoad.ts"

export const inspect = async (spec: LlamaSpec): Promise<void> => {
  const { loaded } = await loadChecked(spec)
  await loaded.llama.dispose()
}
