/**
 * What restricts the tokens of one answer of an ONNX decoder: a format or a forced call for all of it, or the grammar of a call
 * that the model begins by itself, from its marker to its end.
 */
import type { GenerateJob } from "../../domain/Job.ts"
import { grammarOf, toolGrammar } from "../grammar/JsonGrammar.ts"
import type { Thoughts } from "../job/ThoughtSyntax.ts"
import type { CallChange, CallGrammar } from "../model/CallGrammar.ts"
import { callGrammarOf, forcedSyntaxOf } from "../model/CallGrammar.ts"
import type { CallSyntax } from "../model/TemplateCalls.ts"
import type { Guard, Guards } from "./OnnxGuard.ts"
import type { OnnxTokenizer } from "./OnnxTokenizer.ts"

/** Of the whole answer. Rejects with an `EngineFailure`. */
const guardOfAnswer = async (
  guards: Guards,
  job: GenerateJob,
  callSyntax: CallSyntax | undefined
): Promise<Guard | undefined> => {
  const { format, toolChoice, tools = [] } = job
  if (toolChoice === "required" || typeof toolChoice === "object") {
    const syntax = forcedSyntaxOf(job, callSyntax)
    const key = JSON.stringify([tools, toolChoice, syntax])
    return guards.guardFor(key, () => toolGrammar(tools, toolChoice, syntax))
  }
  return format === undefined ? undefined : guards.guardFor(JSON.stringify(format), () => grammarOf(format))
}

export class Restraint {
  readonly #guards: Guards
  readonly #job: GenerateJob
  readonly #calls: CallGrammar | undefined
  readonly #bytesOf: OnnxTokenizer["bytesOf"]
  /** A token may have a part of a character. */
  readonly #decoder = new TextDecoder()
  /** Of the next token; undefined if any can come. */
  guard: Guard | undefined

  private constructor(
    guards: Guards,
    job: GenerateJob,
    calls: CallGrammar | undefined,
    bytesOf: OnnxTokenizer["bytesOf"],
    guard: Guard | undefined
  ) {
    this.#guards = guards
    this.#job = job
    this.#calls = calls
    this.#bytesOf = bytesOf
    this.guard = guard
  }

  /**
   * @param syntax how the model writes calls; undefined if its template does not show it
   *
   * Rejects with an `EngineFailure`.
   */
  static async make(
    guards: Guards,
    job: GenerateJob,
    syntax: CallSyntax | undefined,
    thoughts: Thoughts | undefined,
    { bytesOf }: Pick<OnnxTokenizer, "bytesOf">
  ): Promise<Restraint> {
    const calls = callGrammarOf(job, syntax, thoughts)
    return new Restraint(guards, job, calls, bytesOf, await guardOfAnswer(guards, job, syntax))
  }

  /** Takes a token of the answer; the next one is chosen after the promise, if there is one. */
  accept(token: number): Promise<void> | undefined {
    this.guard?.accept(token)
    const change = this.#calls?.push(this.#decoder.decode(this.#bytesOf(token), { stream: true }))
    return change && this.#follow(change)
  }

  async #follow(change: CallChange): Promise<void> {
    this.guard = undefined
    if (change.type === "ends") return
    const key = JSON.stringify([this.#job.tools, change.syntax])
    this.guard = await this.#guards.guardFor(key, () => change.grammar)
  }
}
