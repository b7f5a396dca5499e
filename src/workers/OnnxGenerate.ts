/** One answer of an ONNX decoder: the prompt in pieces, then token after token. */
import type { GenerateJob } from "../services/Job.ts"
import { refuse } from "../services/Job.ts"
import type { Generation } from "./JobRunner.ts"
import { notAble } from "./JobRunner.ts"
import type { Cache, Decoder } from "./OnnxDecoder.ts"
import type { Loaded } from "./OnnxLoad.ts"
import type { Sampler } from "./Sampler.ts"
import { makeSampler } from "./Sampler.ts"

/** Tokens of a prompt that are computed before the next look at whether anyone still wants the answer. */
const promptPiece = 128

/** All jobs wait while a prompt becomes tokens, so one of megabytes is not made into any. */
const refuseWhatCannotFit = ({ messages }: GenerateJob, contextWindow: number, longestToken: number) => {
  const characters = messages.reduce((sum, { content }) => sum + content.length, 0)
  const promptTokens = Math.ceil(characters / longestToken)
  if (promptTokens >= contextWindow) {
    refuse({ kind: "context_length_exceeded", promptTokens, atLeast: true, contextWindow })
  }
}

async function* evaluate(
  decoder: Decoder,
  prompt: ReadonlyArray<number>,
  endTokens: ReadonlySet<number>,
  sampler: Sampler,
  isCancelled: () => boolean
): AsyncGenerator<number, void, undefined> {
  let cache: Cache = decoder.empty()
  let next = prompt
  while (next.length > promptPiece) {
    cache = await decoder.read(cache, next.slice(0, promptPiece))
    next = next.slice(promptPiece)
    if (isCancelled()) return
  }
  while (true) {
    const step = await decoder.step(cache, next)
    cache = step.cache
    const token = sampler.choose(step.logits)
    if (token === undefined) {
      return refuse({
        kind: "failed",
        message: "No token can come next: all are banned, or the model computes no numbers."
      })
    }
    if (endTokens.has(token)) return
    sampler.accept(token)
    yield token
    next = [token]
  }
}

/** Makes a job's prompt into tokens; throws an `EngineFailure` where that is the job's end. */
export const prepare = async (
  { contextWindow, tokenizer, work }: Loaded,
  job: GenerateJob,
  isCancelled: () => boolean
): Promise<Generation<number>> => {
  if (work.kind !== "generate") return notAble("generate")
  const sampler = makeSampler(job.sampling, work.decoder.vocabulary)
  refuseWhatCannotFit(job, contextWindow, tokenizer.longestToken)
  const prompt = tokenizer.encode(work.template.render(job.messages, job.tools))
  const room = contextWindow - prompt.length
  if (room <= 0) refuse({ kind: "context_length_exceeded", promptTokens: prompt.length, contextWindow })
  return {
    promptTokens: prompt.length,
    cachedTokens: 0,
    room,
    tokens: evaluate(work.decoder, prompt, work.endTokens, sampler, isCancelled),
    decode: (tokens, before) => tokenizer.decode(tokens, before.length === 0)
  }
}
