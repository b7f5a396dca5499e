/**
 * The grammar of tool calls that a model may make: it applies from the marker of a call to its end.
 *
 * **Details**
 *
 * Without a grammar, a small model writes arguments that are no JSON, or names of tools that there are none. The grammar is that of
 * forced calls without the marker, so that the text before and after calls is free.
 *
 * **Gotchas**
 *
 * A call is left to the model if its marker does not end with a token, if the model's calls have no marker, and if a schema of
 * the tools has no grammar.
 */
import type { LlamaGrammarEvaluationState } from "node-llama-cpp"
import type { GenerateJob } from "../../domain/Job.ts"
import type { Matcher } from "../grammar/JsonGrammar.ts"
import { makeMatcher, toolGrammar } from "../grammar/JsonGrammar.ts"
import type { Thoughts } from "../job/ThoughtSyntax.ts"
import { findSection } from "../job/ToolCallSyntax.ts"
import type { CallSyntax } from "../model/TemplateCalls.ts"

/** Compiles the grammar of one call for the engine. */
export type CompileCall = (job: GenerateJob, syntax: CallSyntax) => Promise<LlamaGrammarEvaluationState>

/** The marker of a call, and its syntax after the marker; undefined if calls have no marker. */
const splitMarker = (
  syntax: CallSyntax | undefined
): { readonly marker: string; readonly rest: CallSyntax } | undefined => {
  const found = syntax && findSection(syntax.before)
  if (syntax === undefined || found?.at !== 0 || found.section.open === "") return undefined
  const { open: marker } = found.section
  return { marker, rest: { ...syntax, before: syntax.before.slice(marker.length) } }
}

/** Characters of the answer in which the end of a marker is looked for. */
const kept = 100

export class CallGrammar {
  readonly #job: GenerateJob
  readonly #marker: string
  readonly #syntax: CallSyntax
  readonly #compile: CompileCall
  /** The end of thoughts, before which markers are part of them; undefined after it. */
  #thoughtsEnd: string | undefined
  /** Thoughts that the answer may begin with. */
  #startOf: { readonly start: string; readonly end: string } | undefined
  #text = ""
  #matcher: Matcher | undefined
  #isGone = false

  constructor(
    job: GenerateJob,
    marker: string,
    syntax: CallSyntax,
    compile: CompileCall,
    thoughts: Thoughts | undefined
  ) {
    this.#job = job
    this.#marker = marker
    this.#syntax = syntax
    this.#compile = compile
    if (thoughts?.style.type === "pair" && thoughts.begins === "within") this.#thoughtsEnd = thoughts.style.pair.end
    if (thoughts?.style.type === "pair" && thoughts.begins === "before") {
      const { end, start } = thoughts.style.pair
      this.#startOf = { start, end }
    }
  }

  /** Whether the answer so far is within thoughts. */
  #isThinking(): boolean {
    if (this.#startOf !== undefined) {
      const begun = this.#text.trimStart()
      if (begun.startsWith(this.#startOf.start)) this.#thoughtsEnd = this.#startOf.end
      if (begun.length >= this.#startOf.start.length) this.#startOf = undefined
    }
    if (this.#thoughtsEnd !== undefined && this.#text.includes(this.#thoughtsEnd)) this.#thoughtsEnd = undefined
    return this.#thoughtsEnd !== undefined
  }

  /**
   * Takes the text of a token.
   *
   * @returns the grammar that begins after it, `free` if the grammar ends with it, or undefined if nothing changes
   */
  async push(text: string): Promise<LlamaGrammarEvaluationState | "free" | undefined> {
    if (this.#isGone) return undefined
    if (this.#matcher !== undefined) return this.#continue(text, this.#matcher)
    this.#text += text
    const isThinking = this.#isThinking()
    const begins = !isThinking && this.#text.endsWith(this.#marker)
    if (this.#startOf === undefined) this.#text = this.#text.slice(-kept)
    return begins ? this.#begin() : undefined
  }

  #continue(text: string, matcher: Matcher): "free" | undefined {
    matcher.push(text)
    if (matcher.canContinue()) return undefined
    this.#matcher = undefined
    this.#text = ""
    return "free"
  }

  async #begin(): Promise<LlamaGrammarEvaluationState | undefined> {
    try {
      this.#matcher = makeMatcher(toolGrammar(this.#job.tools ?? [], "required", this.#syntax))
      return await this.#compile(this.#job, this.#syntax)
    } catch {
      // A schema without a grammar: the call is the model's.
      this.#matcher = undefined
      this.#isGone = true
      return undefined
    }
  }
}

/** The grammar of a job's calls; undefined if the model is not free to call, or its calls have no marker. */
export const callGrammarOf = (
  job: GenerateJob,
  syntax: CallSyntax | undefined,
  compile: CompileCall,
  thoughts: Thoughts | undefined
): CallGrammar | undefined => {
  const { format, toolChoice = "auto", tools = [] } = job
  const split = splitMarker(syntax)
  return split === undefined || tools.length === 0 || toolChoice !== "auto" || format !== undefined
    ? undefined
    : new CallGrammar(job, split.marker, split.rest, compile, thoughts)
}
