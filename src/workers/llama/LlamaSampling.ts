/** The options of the llama engine's sampler: penalties, biases and grammars. */
import type { Llama, LlamaGrammar, LlamaGrammarEvaluationState, LlamaModel, Token } from "node-llama-cpp"
import type { DecodingOptions, GenerateJob, SamplingOptions } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"
import type { Grammar } from "../grammar/JsonGrammar.ts"
import { gbnfOf, grammarOf, toolGrammar } from "../grammar/JsonGrammar.ts"
import { forcedSyntaxOf } from "../model/CallGrammar.ts"
import { biasesOf, penaltyWindow } from "../model/Sampler.ts"
import type { CallSyntax } from "../model/TemplateCalls.ts"
import type { Library } from "./LlamaBinary.ts"

/** The penalties, over the answer so far. */
export const penaltiesOf = (
  { frequencyPenalty = 0, presencePenalty = 0, repeatPenalty = 1 }: SamplingOptions,
  answer: Array<Token>,
  window = penaltyWindow
) =>
  frequencyPenalty === 0 && presencePenalty === 0 && repeatPenalty === 1 ? {} : {
    repeatPenalty: {
      punishTokens: () => window === 0 ? [] : answer.slice(-window),
      maxPunishTokens: window,
      penalty: repeatPenalty,
      frequencyPenalty,
      presencePenalty
    }
  }

/**
 * The samplers that few requests use.
 *
 * @param contextWindow the last tokens for all of them: llama.cpp takes none for the library's default
 */
export const furtherOf = ({ dry, xtc }: DecodingOptions, contextWindow: number) => ({
  ...(xtc === undefined ? {} : { xtc }),
  ...(dry === undefined ? {} : {
    dryRepeatPenalty: {
      strength: dry.multiplier,
      base: dry.base,
      allowedLength: dry.allowedLength,
      lastTokens: Math.min(dry.lastTokens ?? contextWindow, contextWindow),
      sequenceBreakers: [...dry.sequenceBreakers]
    }
  })
})

/** Which tokens cannot follow, whatever the caller's biases are. */
interface Excluded {
  /** Tokens that must not be sampled, except those that end the answer. */
  readonly never: ReadonlyArray<Token>
  /** Tokens that must not end the answer yet. */
  readonly ends: ReadonlyArray<Token>
  /** Whether a grammar decides where the answer ends. */
  readonly isGuarded: boolean
}

const refuseBannedEnd = (token: number): never =>
  refuse({
    kind: "invalid_request",
    path: `logitBias.${token}`,
    message: "Expected a token that does not end the answer: its format or the required tool call ends it. " +
      "Omit this bias, or make it more than -100"
  })

/** The biases, by token id. An id outside the vocabulary is refused. */
export const biasOf = (
  library: Library,
  model: LlamaModel,
  sampling: SamplingOptions,
  { ends, isGuarded, never }: Excluded
) => {
  if (sampling.logitBias === undefined && never.length === 0 && ends.length === 0) return {}
  const tokenBias = library.TokenBias.for(model)
  // `set` ignores tokens that end an answer.
  const { _biases } = tokenBias as unknown as { readonly _biases: Map<number, number> }
  for (const [token, logit] of biasesOf(sampling, model.fileInfo.metadata.tokenizer.ggml.tokens.length)) {
    // Where only the end can follow, a ban of it would leave no token.
    if (isGuarded && logit === Number.NEGATIVE_INFINITY && model.isEogToken(token as Token)) refuseBannedEnd(token)
    _biases.set(token, logit)
  }
  for (const token of never) tokenBias.set(token, "never")
  for (const token of ends) _biases.set(token, Number.NEGATIVE_INFINITY)
  return { tokenBias }
}

/** Callers repeat formats, and compiling a large one takes tens of milliseconds. */
const grammarsKept = 16

/** The constraint of the answer: a required tool call, else the format. */
const constraintOf = (job: GenerateJob, callSyntax: CallSyntax | undefined) => {
  const { format, toolChoice, tools = [] } = job
  if (toolChoice !== undefined && toolChoice !== "auto" && toolChoice !== "none") {
    const syntax = forcedSyntaxOf(job, callSyntax)
    return {
      key: JSON.stringify([tools, toolChoice, syntax]),
      make: (): Grammar => toolGrammar(tools, toolChoice, syntax)
    }
  }
  return format === undefined ? undefined : { key: JSON.stringify(format), make: () => grammarOf(format) }
}

/**
 * Compiles grammars, and keeps the ones used last.
 *
 * @param syntax how the model writes calls; default the common one
 */
export const makeGrammars = (library: Library, llama: Llama, model: LlamaModel, syntax: CallSyntax | undefined) => {
  const kept = new Map<string, LlamaGrammar>()
  const grammarFor = async ({ key, make }: NonNullable<ReturnType<typeof constraintOf>>): Promise<LlamaGrammar> => {
    const grammar = kept.get(key) ?? await llama.createGrammar({ grammar: gbnfOf(make()) })
    kept.delete(key)
    kept.set(key, grammar)
    if (kept.size > grammarsKept) kept.delete(kept.keys().next().value!)
    return grammar
  }
  const stateOf = async (constraint: NonNullable<ReturnType<typeof constraintOf>>) =>
    new library.LlamaGrammarEvaluationState({ model, grammar: await grammarFor(constraint) })
  return {
    /** The state for one answer; undefined if it may be any text. Throws `invalid_request`. */
    grammarOf: async (job: GenerateJob): Promise<LlamaGrammarEvaluationState | undefined> => {
      const constraint = constraintOf(job, syntax)
      return constraint && stateOf(constraint)
    },
    /** The state for a call within an answer, in this syntax. */
    callOf: (
      { tools = [] }: GenerateJob,
      { grammar, syntax }: { readonly grammar: Grammar; readonly syntax: CallSyntax }
    ): Promise<LlamaGrammarEvaluationState> => stateOf({ key: JSON.stringify([tools, syntax]), make: () => grammar })
  }
}
