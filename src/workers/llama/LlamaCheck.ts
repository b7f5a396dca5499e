/** Loads a GGUF model and computes once, so that damaged weights are found at load time. */
import type { Token } from "node-llama-cpp"
import type { EngineFailure, TaskJob } from "../../domain/Job.ts"
import { failureFrom, refuse } from "../../domain/Job.ts"
import type { JobSignals } from "../job/JobRunner.ts"
import { checkFirstOutput } from "../model/ModelCheck.ts"
import type { LlamaSpec, Loaded } from "./LlamaLoad.ts"
import { load } from "./LlamaLoad.ts"
import { makeLlamaTasks } from "./LlamaTasks.ts"

/**
 * Deterministic, and yields an end-of-answer token like any other: a valid model passes at every load. The probabilities
 * are those before sampling, see `LlamaTokens`.
 */
const likeliestToken = { temperature: 0, yieldEogToken: true } as const

const firstToken = ({ model }: Loaded): Token | undefined =>
  model.tokens.bos ?? model.tokenize("a")[0] ?? model.tokens.eos ?? undefined

/** Computes one token; the probabilities are those of the likeliest tokens. */
const checkToken = async (loaded: Loaded): Promise<void> => {
  const [slot] = loaded.free
  const token = firstToken(loaded)
  if (slot === undefined || token === undefined) return
  const probabilities: Array<number> = []
  for await (
    const computed of slot.sequence.evaluateWithMetadata(
      [token],
      { confidence: true, probabilities: true },
      likeliestToken
    )
  ) {
    const { confidence, probabilities: likeliest } = computed as {
      readonly confidence: number
      readonly probabilities?: ReadonlyMap<Token, number>
    }
    probabilities.push(...likeliest?.values() ?? [confidence])
    break
  }
  await slot.sequence.clearHistory()
  checkFirstOutput(probabilities)
}

const uncancelled: JobSignals = { isCancelled: () => false, progress: () => {} }

/** The first task of a model that does not generate. */
const firstJobOf = ({ description: { capabilities } }: Loaded): TaskJob | undefined => {
  if (capabilities.includes("rerank")) return { kind: "rerank", requests: [{ query: "a", documents: ["a"] }] }
  return capabilities.includes("embed") ? { kind: "embed", inputs: ["a"] } : undefined
}

const damaged = (failure: EngineFailure): never =>
  refuse({
    kind: "load_failed",
    message: failure.kind === "failed" ? failure.message : "The model could not compute a first text."
  })

const check = async (loaded: Loaded, runTask: ReturnType<typeof makeLlamaTasks>): Promise<void> => {
  if (loaded.description.capabilities.includes("generate")) return checkToken(loaded)
  const job = firstJobOf(loaded)
  if (job === undefined) return
  await runTask(job, uncancelled).catch((cause: unknown) => damaged(failureFrom(cause, "failed")))
}

/** A loaded model that has computed once, and its tasks; rejects with an `EngineFailure`. */
export const loadChecked = async (spec: LlamaSpec) => {
  const loaded = await load(spec)
  try {
    const runTask = makeLlamaTasks(loaded)
    await check(loaded, runTask)
    return { loaded, runTask }
  } catch (cause) {
    await loaded.llama.dispose()
    throw cause
  }
}
