/** How the llama engine samples: in order, with penalties and biases. */
import type { LlamaContext, LlamaModel, Token } from "node-llama-cpp"
import type { SamplingOptions } from "../services/Job.ts"
import { refuse } from "../services/Job.ts"

type Sample = (...args: Array<unknown>) => Promise<unknown>

/**
 * Samples one sequence at a time. The library samples all sequences of a batch at once on libuv's threads, from one
 * context that llama.cpp does not make safe for that: answers then mix. One thread in the pool is order enough.
 */
export const serialiseSampling = (context: LlamaContext): void => {
  if (process.env["UV_THREADPOOL_SIZE"] === "1") return
  const native = (context as unknown as { readonly _ctx?: { sampleToken?: Sample } })._ctx
  const sample = native?.sampleToken
  if (native === undefined || sample === undefined) {
    return refuse({ kind: "load_failed", message: "This version of node-llama-cpp is not the one that Troupe pins." })
  }
  let last: Promise<unknown> = Promise.resolve()
  Object.defineProperty(native, "sampleToken", {
    value: (...args: Array<unknown>) => {
      const next = last.then(() => sample.apply(native, args))
      last = next.catch(() => {})
      return next
    }
  })
}

/** How many of the answer's last tokens count for the penalties. */
const penaltyWindow = 64

/** The penalties, over what the answer has so far. */
export const penaltiesOf = (
  { frequencyPenalty = 0, presencePenalty = 0, repeatPenalty = 1 }: SamplingOptions,
  answer: Array<Token>
) =>
  frequencyPenalty === 0 && presencePenalty === 0 && repeatPenalty === 1 ? {} : {
    repeatPenalty: {
      punishTokens: () => answer.slice(-penaltyWindow),
      maxPunishTokens: penaltyWindow,
      penalty: repeatPenalty,
      frequencyPenalty,
      presencePenalty
    }
  }

/** -100 is what OpenAI's callers ban a token with. */
const banned = -100

/** The biases, by token id; an id that the vocabulary does not have is refused. */
export const biasOf = (library: typeof import("node-llama-cpp"), model: LlamaModel, { logitBias }: SamplingOptions) => {
  if (logitBias === undefined) return {}
  const tokenBias = library.TokenBias.for(model)
  const vocabulary = model.fileInfo.metadata.tokenizer.ggml.tokens.length
  for (const [id, bias] of Object.entries(logitBias)) {
    if (Number(id) >= vocabulary) {
      refuse({
        kind: "invalid_request",
        path: `logit_bias.${id}`,
        message: `Expected a token id below ${vocabulary}, the size of the model's vocabulary`
      })
    }
    tokenBias.set(Number(id) as Token, bias <= banned ? "never" : { logit: bias })
  }
  return { tokenBias }
}
