/**
 * The grammar of tool calls that a model may make: it applies from the marker of a call to its end.
 *
 * **Details**
 *
 * Without a grammar, a small model writes arguments that are no JSON, or names of tools that there are none. The grammar is that of
 * forced calls without the marker, so that the text before and after calls is free. In channels, the marker is the recipient
 * in the header of a message.
 *
 * **Gotchas**
 *
 * A call is left to the model if the token that completes its marker has more text than the syntax goes on with, if the model's calls
 * have no marker, and if a schema of the tools has no grammar.
 */
import type { GenerateJob } from "../../domain/Job.ts"
import type { Grammar, Matcher } from "../grammar/JsonGrammar.ts"
import { makeMatcher, toolGrammar } from "../grammar/JsonGrammar.ts"
import type { Thoughts } from "../job/ThoughtSyntax.ts"
import { findSection, openerOf } from "../job/ToolCallSyntax.ts"
import type { CallSyntax } from "./TemplateCalls.ts"

/** The recipient of a call, which the name of the function follows after a point. */
const recipient = "to=functions"

/** A forced call in channels: a message of its own. */
export const channelSyntax: CallSyntax = {
  before: "<|channel|>commentary to=functions.",
  between: " <|constrain|>json<|message|>",
  after: ""
}

/** A call in channels after its recipient. */
const afterRecipient = (header: string): CallSyntax => ({
  before: ".",
  between: header.includes("<|channel|>")
    ? channelSyntax.between
    : "<|channel|>commentary <|constrain|>json<|message|>",
  after: ""
})

/** A syntax after the beginning of it that has been written. */
const restOf = (syntax: CallSyntax, written: string): CallSyntax | undefined =>
  syntax.before.startsWith(written) ? { ...syntax, before: syntax.before.slice(written.length) } : undefined

/** Finds the beginning of a call in an answer. */
interface Trigger {
  /** Takes the text of a token: the syntax of the call after it, if it begins one. */
  readonly push: (text: string) => CallSyntax | undefined
  /** The call has ended. */
  readonly reset: () => void
}

/** Characters of the answer in which a marker is looked for. */
const kept = 100

/** In an answer with thoughts between markers, or without thoughts. */
class MarkerTrigger implements Trigger {
  readonly #marker: string
  readonly #syntax: CallSyntax
  /** The end of thoughts, before which markers are part of them; undefined after it. */
  #thoughtsEnd: string | undefined
  /** Thoughts that the answer may begin with. */
  #startOf: { readonly start: string; readonly end: string } | undefined
  #text = ""

  constructor(marker: string, syntax: CallSyntax, thoughts: Thoughts | undefined) {
    this.#marker = marker
    this.#syntax = syntax
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

  /** The syntax after the marker, which the last characters complete. */
  #afterMarker(added: number): CallSyntax | undefined {
    const end = this.#text.lastIndexOf(this.#marker) + this.#marker.length
    const isComplete = end >= this.#marker.length && this.#text.length - end < added
    return isComplete ? restOf(this.#syntax, this.#marker + this.#text.slice(end)) : undefined
  }

  push(text: string): CallSyntax | undefined {
    this.#text += text
    const begun = this.#isThinking() ? undefined : this.#afterMarker(text.length)
    if (this.#startOf === undefined) this.#text = this.#text.slice(-kept)
    return begun
  }

  reset(): void {
    this.#text = ""
  }
}

/** In an answer in channels. */
class HeaderTrigger implements Trigger {
  /** Of the message; undefined in its body. */
  #header: string | undefined

  constructor(isHeader: boolean) {
    if (isHeader) this.#header = ""
  }

  push(text: string): CallSyntax | undefined {
    if (text.includes("<|message|>")) this.#header = undefined
    else if (text.includes("<|start|>")) this.#header = ""
    else if (this.#header !== undefined) this.#header = (this.#header + text).slice(-kept)
    return this.#header?.endsWith(recipient) === true ? afterRecipient(this.#header) : undefined
  }

  reset(): void {
    this.#header = undefined
  }
}

/** What changes after a token: a grammar begins with a call in this syntax, or it has ended. */
export type CallChange =
  | { readonly type: "begins"; readonly grammar: Grammar; readonly syntax: CallSyntax }
  | { readonly type: "ends" }

export class CallGrammar {
  readonly #job: GenerateJob
  readonly #trigger: Trigger
  #matcher: Matcher | undefined
  #isGone = false

  constructor(job: GenerateJob, trigger: Trigger) {
    this.#job = job
    this.#trigger = trigger
  }

  /** Takes the text of a token; undefined if nothing changes after it. */
  push(text: string): CallChange | undefined {
    if (this.#isGone) return undefined
    if (this.#matcher !== undefined) return this.#continue(text, this.#matcher)
    const syntax = this.#trigger.push(text)
    return syntax && this.#begin(syntax)
  }

  /** Leaves this call and later ones to the model. */
  leave(): void {
    this.#matcher = undefined
    this.#isGone = true
  }

  #continue(text: string, matcher: Matcher): CallChange | undefined {
    matcher.push(text)
    if (matcher.canContinue()) return undefined
    this.#matcher = undefined
    this.#trigger.reset()
    return { type: "ends" }
  }

  #begin(syntax: CallSyntax): CallChange | undefined {
    try {
      const grammar = toolGrammar(this.#job.tools ?? [], "required", syntax)
      this.#matcher = makeMatcher(grammar)
      return { type: "begins", grammar, syntax }
    } catch {
      // A schema without a grammar.
      this.leave()
      return undefined
    }
  }
}

const triggerOf = (syntax: CallSyntax | undefined, thoughts: Thoughts | undefined): Trigger | undefined => {
  if (syntax === undefined) return undefined
  if (syntax === channelSyntax) return new HeaderTrigger(thoughts?.begins !== "text")
  const found = findSection(syntax.before)
  return found?.at === 0 ? new MarkerTrigger(openerOf(found.section), syntax, thoughts) : undefined
}

/** The grammar of a job's calls; undefined if the model is not free to call, or its calls have no marker. */
export const callGrammarOf = (
  job: GenerateJob,
  syntax: CallSyntax | undefined,
  thoughts: Thoughts | undefined
): CallGrammar | undefined => {
  const { format, toolChoice = "auto", tools = [] } = job
  if (tools.length === 0 || toolChoice !== "auto" || format !== undefined) return undefined
  const trigger = triggerOf(syntax, thoughts)
  return trigger && new CallGrammar(job, trigger)
}

/** How a forced call is written: a text that the answer continues is no header. */
export const forcedSyntaxOf = (
  { assistantPrefix = "" }: Pick<GenerateJob, "assistantPrefix">,
  syntax: CallSyntax | undefined
): CallSyntax | undefined => syntax === channelSyntax && assistantPrefix !== "" ? undefined : syntax
