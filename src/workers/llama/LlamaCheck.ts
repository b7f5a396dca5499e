/** Loads a GGUF model and has it compute once, so that damaged weights are found at the load. */
import type { Token } from "node-llama-cpp"
import type { EngineFailure, WholeJob } from "../../domain/Job.ts"
import { failureFrom, refuse } from "../../domain/Job.ts"
import type { Watch } from "../job/JobRunner.ts"
import { checkFirstOutput } from "../model/OutputCheck.ts"
import type { LlamaSpec, Loaded } from "./LlamaLoad.ts"
import { load } from "./LlamaLoad.ts"
import { makeWhole } from "./LlamaTasks.ts"

/**
 * Draws nothing at random, and yields a token that ends an answer as any other: a sound model passes on every load. The
 * probabilities are those before sampling, see `mendSampling`.
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
    const computed of slot.sequence.evaluateWithMetadata([token], { confidence: true }, likeliestToken)
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

const unwatched: Watch = { isCancelled: () => false, progress: () => {} }

/** What a model that cannot go on with a text is asked first. */
const firstJobOf = ({ description: { abilities } }: Loaded): WholeJob | undefined => {
  if (abilities.includes("rerank")) return { kind: "rerank", query: "a", documents: ["a"] }
  return abilities.includes("embed") ? { kind: "embed", inputs: ["a"] } : undefined
}

const damaged = (failure: EngineFailure): never =>
  refuse({
    kind: "load_failed",
    message: failure.kind === "failed" ? failure.message : "The model could not compute a first text."
  })

const check = async (loaded: Loaded, whole: ReturnType<typeof makeWhole>): Promise<void> => {
  if (loaded.description.abilities.includes("generate")) return checkToken(loaded)
  const job = firstJobOf(loaded)
  if (job === undefined) return
  await whole(job, unwatched).catch((cause: unknown) => damaged(failureFrom(cause, "failed")))
}

/** A loaded model that computed once, and its jobs that are answered whole; rejects with an `EngineFailure`. */
export const loadChecked = async (spec: LlamaSpec) => {
  const loaded = await load(spec)
  try {
    const whole = makeWhole(loaded, spec)
    await check(loaded, whole)
    return { loaded, whole }
  } catch (cause) {
    await loaded.llama.dispose()
    throw cause
  }
}
