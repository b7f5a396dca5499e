/** How the llama engine samples: in order, with penalties and biases, within a grammar, and with raw probabilities. */
import type { Llama, LlamaContext, LlamaGrammar, LlamaGrammarEvaluationState, LlamaModel, Token } from "node-llama-cpp"
import type { GenerateJob, SamplingOptions } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"
import type { Grammar } from "../grammar/JsonGrammar.ts"
import { gbnfOf, grammarOf, toolGrammar } from "../grammar/JsonGrammar.ts"
import { biasesOf, penaltyWindow } from "../model/Sampler.ts"

type Library = typeof import("node-llama-cpp")

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

/** Private parts of the library, in the pinned version. */
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

/** The most of the likeliest tokens that are reported. */
const mostReported = 20

/** The likeliest tokens with their probabilities, and the chosen one's. */
const shorten = (all: Probabilities, chosen: Token): Probabilities => {
  const first = all.slice(0, 2 * mostReported)
  for (let at = first.length; at < all.length; at += 2) {
    if (all[at] === chosen) return [...first, chosen, all[at + 1]!]
  }
  return first
}

const tokenOf = (sampled: Awaited<ReturnType<Sample>>): Token => typeof sampled === "number" ? sampled : sampled[0]

/**
 * Patches the library's sampler in two ways.
 *
 * Sequences are sampled one after another: the library samples all sequences of a batch concurrently on libuv's
 * threads, from one context that is not thread-safe, so that answers would mix. A pool of one thread does not need
 * this.
 *
 * The probabilities of a token that is sampled with `confidence` are those before temperature, penalties and biases, over
 * the whole vocabulary. This does not change which token is sampled.
 */
export const patchSampler = (llama: Llama, model: LlamaModel, context: LlamaContext): void => {
  const { context: native, makeSampler } = internalsOf(llama, model, context)
  const sample = native.sampleToken.bind(native)
  let greedy: Sampler | undefined
  const sampleRaw = () => {
    greedy ??= makeSampler()
    greedy.applyConfig({ temperature: 0 })
    return greedy
  }
  const sampleWithProbabilities: Sample = async (logits, sampler) => {
    const raw = await sample(logits, sampleRaw(), true, true)
    const chosen = tokenOf(await sample(logits, sampler))
    return typeof raw === "number" ? chosen : [chosen, shorten(raw[1], chosen), raw[2]]
  }
  const sampleNative: Sample = (logits, sampler, _, confidence) =>
    confidence === true ? sampleWithProbabilities(logits, sampler) : sample(logits, sampler)
  let last: Promise<unknown> = Promise.resolve()
  const inOrder: Sample = (...args) => {
    const next = last.then(() => sampleNative(...args))
    last = next.catch(() => {})
    return next
  }
  Object.defineProperty(native, "sampleToken", {
    value: process.env["UV_THREADPOOL_SIZE"] === "1" ? sampleNative : inOrder
  })
}

/** The penalties, over the answer so far. */
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
 * The biases, by token id. An id outside the vocabulary is refused.
 *
 * @param never tokens that must not be sampled
 */
export const biasOf = (
  library: Library,
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

/** Callers repeat formats, and compiling a large one takes tens of milliseconds. */
const grammarsKept = 16

/** The constraint of the answer: a required tool call, else the format. */
const constraintOf = ({ format, toolChoice, tools = [] }: GenerateJob) => {
  if (toolChoice !== undefined && toolChoice !== "auto" && toolChoice !== "none") {
    return { key: JSON.stringify([tools, toolChoice]), make: (): Grammar => toolGrammar(tools, toolChoice) }
  }
  return format === undefined ? undefined : { key: JSON.stringify(format), make: () => grammarOf(format) }
}

/** Compiles grammars, and keeps the ones used last. */
export const makeGrammars = (library: Library, llama: Llama, model: LlamaModel) => {
  const kept = new Map<string, LlamaGrammar>()
  const grammarFor = async ({ key, make }: NonNullable<ReturnType<typeof constraintOf>>): Promise<LlamaGrammar> => {
    const grammar = kept.get(key) ?? await llama.createGrammar({ grammar: gbnfOf(make()) })
    kept.delete(key)
    kept.set(key, grammar)
    if (kept.size > grammarsKept) kept.delete(kept.keys().next().value!)
    return grammar
  }
  /** The state for one answer; undefined if it may be any text. Throws `invalid_request`. */
  return async (job: GenerateJob): Promise<LlamaGrammarEvaluationState | undefined> => {
    const constraint = constraintOf(job)
    return constraint === undefined
      ? undefined
      : new library.LlamaGrammarEvaluationState({ model, grammar: await grammarFor(constraint) })
  }
}
