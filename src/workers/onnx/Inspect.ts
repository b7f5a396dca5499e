/** Loads a model in the inspecting process (`src/inspect.ts`), computes once, and releases it. */
import { load } from "./OnnxLoad.ts"
import type { OnnxSpec } from "./OnnxRuntime.ts"

export const inspect = async (spec: OnnxSpec): Promise<void> => {
  const { session } = await load(spec)
  await session.release()
}
