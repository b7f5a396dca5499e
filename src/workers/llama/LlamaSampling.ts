/** How the llama engine samples: in order, with penalties and biases, and with the probabilities before all of it. */
import type { Llama, LlamaContext, LlamaModel, Token } from "node-llama-cpp"
import type { SamplingOptions } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"
import { biasesOf, penaltyWindow } from "../model/SamplingOptions.ts"

/** A native sampler, which holds its options and its random state. */
interface Sampler {
  readonly applyConfig: (options: { readonly temperature: number }) => void
}

/** Tokens and their probabilities by turns, likeliest first. */
type Probabilities = ReadonlyArray<number>

type Sample = (
  logits: number,
  sampler: Sampler,
  probabilities?: boolean,
  confidence?: boolean
) => Promise<Token | [Token, Probabilities, number]>

interface Internals {
  readonly context: { sampleToken: Sample }
  readonly makeSampler: () => Sampler
}

/** What the library does not show, of the one version that is pinned. */
const internalsOf = (llama: Llama, model: LlamaModel, context: LlamaContext): Internals => {
  const inside = { llama, model, context } as unknown as {
    readonly llama: { readonly _bindings?: { readonly AddonSampler?: new(model: unknown) => Sampler } }
    readonly model: { readonly _model?: unknown }
    readonly context: { readonly _ctx?: { sampleToken?: Sample } }
  }
  const AddonSampler = inside.llama._bindings?.AddonSampler
  const native = inside.context._ctx
  const nativeModel = inside.model._model
  if (AddonSampler === undefined || nativeModel === undefined || native?.sampleToken === undefined) {
    return refuse({ kind: "load_failed", message: "This version of node-llama-cpp is not the one that Troupe pins." })
  }
  return { context: native as Internals["context"], makeSampler: () => new AddonSampler(nativeModel) }
}

/** How many of the likeliest tokens are told at most. */
const mostTold = 20

/** The likeliest tokens with their probabilities, and the chosen one's. */
const shorten = (all: Probabilities, chosen: Token): Probabilities => {
  const first = all.slice(0, 2 * mostTold)
  for (let at = first.length; at < all.length; at += 2) {
    if (all[at] === chosen) return [...first, chosen, all[at + 1]!]
  }
  return first
}

const tokenOf = (sampled: Awaited<ReturnType<Sample>>): Token => typeof sampled === "number" ? sampled : sampled[0]

/**
 * Changes how the library samples in two ways.
 *
 * One sequence at a time: the library samples all sequences of a batch at once on libuv's threads, from one context
 * that llama.cpp does not make safe for that: answers then mix. One thread in the pool is order enough.
 *
 * And the probabilities of a token that is sampled with `confidence` are those before temperature, penalties, biases
 * and all else, over the whole vocabulary; how it is sampled does not change by that.
 */
export const mendSampling = (llama: Llama, model: LlamaModel, context: LlamaContext): void => {
  const { context: native, makeSampler } = internalsOf(llama, model, context)
  const sample = native.sampleToken.bind(native)
  let greedy: Sampler | undefined
  const sampleRaw = () => {
    greedy ??= makeSampler()
    greedy.applyConfig({ temperature: 0 })
    return greedy
  }
  const sampleWithTruth: Sample = async (logits, sampler) => {
    const raw = await sample(logits, sampleRaw(), true, true)
    const chosen = tokenOf(await sample(logits, sampler))
    return typeof raw === "number" ? chosen : [chosen, shorten(raw[1], chosen), raw[2]]
  }
  const sampleTrue: Sample = (logits, sampler, _, confidence) =>
    confidence === true ? sampleWithTruth(logits, sampler) : sample(logits, sampler)
  let last: Promise<unknown> = Promise.resolve()
  const inOrder: Sample = (...args) => {
    const next = last.then(() => sampleTrue(...args))
    last = next.catch(() => {})
    return next
  }
  Object.defineProperty(native, "sampleToken", {
    value: process.env["UV_THREADPOOL_SIZE"] === "1" ? sampleTrue : inOrder
  })
}

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

/**
 * The biases, by token id; an id that the vocabulary does not have is refused.
 *
 * @param never tokens that are not chosen at all
 */
export const biasOf = (
  library: typeof import("node-llama-cpp"),
  model: LlamaModel,
  sampling: SamplingOptions,
  never: ReadonlyArray<Token>
) => {
  if (sampling.logitBias === undefined && never.length === 0) return {}
  const tokenBias = library.TokenBias.for(model)
  for (const [token, logit] of biasesOf(sampling, model.fileInfo.metadata.tokenizer.ggml.tokens.length)) {
    tokenBias.set(token as Token, logit === Number.NEGATIVE_INFINITY ? "never" : { logit })
  }
  for (const token of never) tokenBias.set(token, "never")
  return { tokenBias }
}
