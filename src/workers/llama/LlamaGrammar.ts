/** Holds the llama engine's answers to a format, or to a call of a tool. */
import type { Llama, LlamaGrammar, LlamaGrammarEvaluationState, LlamaModel } from "node-llama-cpp"
import type { GenerateJob } from "../../domain/Job.ts"
import type { Grammar } from "../grammar/JsonGrammar.ts"
import { gbnfOf, grammarOf, toolGrammar } from "../grammar/JsonGrammar.ts"

type Library = typeof import("node-llama-cpp")

/** A caller asks for the same format again and again, and a large one takes tens of milliseconds. */
const grammarsKept = 16

/** What the answer is held to: a tool's call where there must be one, else the format. */
const wantedOf = ({ format, toolChoice, tools = [] }: GenerateJob) => {
  if (toolChoice !== undefined && toolChoice !== "auto" && toolChoice !== "none") {
    return { key: JSON.stringify([tools, toolChoice]), make: (): Grammar => toolGrammar(tools, toolChoice) }
  }
  return format === undefined ? undefined : { key: JSON.stringify(format), make: () => grammarOf(format) }
}

/** Keeps the grammars that were used last. */
export const makeGrammars = (library: Library, llama: Llama, model: LlamaModel) => {
  const kept = new Map<string, LlamaGrammar>()
  const grammarFor = async ({ key, make }: NonNullable<ReturnType<typeof wantedOf>>): Promise<LlamaGrammar> => {
    const grammar = kept.get(key) ?? await llama.createGrammar({ grammar: gbnfOf(make()) })
    kept.delete(key)
    kept.set(key, grammar)
    if (kept.size > grammarsKept) kept.delete(kept.keys().next().value!)
    return grammar
  }
  /** A state for one answer; undefined where it may be any text. Throws `invalid_request`. */
  return async (job: GenerateJob): Promise<LlamaGrammarEvaluationState | undefined> => {
    const wanted = wantedOf(job)
    return wanted === undefined
      ? undefined
      : new library.LlamaGrammarEvaluationState({ model, grammar: await grammarFor(wanted) })
  }
}
