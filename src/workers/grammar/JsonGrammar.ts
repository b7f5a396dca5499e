/**
 * The grammars of structured output: of JSON or text in a given format, and of a call of a tool.
 *
 * **Details**
 *
 * A keyword that a grammar cannot express is refused by name, never ignored. See
 * `docs/structured-output.md` for what is supported, and `JsonSchemaGrammar` for how.
 *
 * **Example**
 *
 * ```ts
 * const grammar = grammarOf({ type: "json_schema", schema: { type: "integer", minimum: 0 } })
 * const matcher = makeMatcher(grammar)
 * matcher.allows("42") // true
 * matcher.allows("-1") // false
 * gbnfOf(grammar) // for llama.cpp
 * ```
 */
import type { OutputFormat, ToolChoice, ToolDefinition } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"
import type { CallSyntax } from "../model/TemplateCalls.ts"
import { commonSyntax } from "../model/TemplateCalls.ts"
import type { ArgumentSyntax } from "./ArgumentSyntax.ts"
import { makeBudget } from "./Budget.ts"
import type { Budget } from "./Budget.ts"
import { writeArguments } from "./CallArguments.ts"
import type { Grammar, GrammarBuilder, Sequence } from "./Grammar.ts"
import { makeBuilder, text } from "./Grammar.ts"
import { writeValue } from "./JsonSchemaGrammar.ts"
import { refuseAt } from "./JsonSchemaKeywords.ts"
import { anyObject } from "./JsonValues.ts"
import { textGrammar } from "./TextFormats.ts"

export type { Grammar } from "./Grammar.ts"
export { gbnfOf } from "./Grammar.ts"
export { makeMatcher, type Matcher } from "./GrammarMatcher.ts"

const nothingFits = "allows no value; look for bounds, types or required properties that exclude each other"

/**
 * The grammar of a format.
 *
 * Throws an `invalid_request` whose path begins with `format`.
 */
export const grammarOf = (format: OutputFormat, budget: Budget = makeBudget()): Grammar => {
  if (format.type !== "json_object" && format.type !== "json_schema") return textGrammar(format, budget)
  const path = "format.schema"
  const builder = makeBuilder(path)
  if (format.type === "json_object") return builder.build(anyObject(builder))!
  const document = { schema: format.schema, path, via: [] }
  const value = writeValue(builder, budget, document)
  return builder.build([value]) ?? refuseAt(path, nothingFits)
}

const anObject = { type: "object" }

const argumentsOf = (
  builder: GrammarBuilder,
  budget: Budget,
  { parameters }: ToolDefinition,
  path: string,
  syntax: ArgumentSyntax | undefined
): Sequence => {
  if (parameters === undefined && syntax === undefined) return anyObject(builder)
  const document = { schema: parameters ?? anObject, path, via: [] }
  const more = [{ schema: anObject, path, via: [] }]
  return [
    syntax === undefined
      ? writeValue(builder, budget, document, more)
      : writeArguments(builder, budget, syntax, document, more)
  ]
}

/** A name as it is written: within quotation marks it is JSON. */
const nameIn = ({ before }: CallSyntax, name: string): string =>
  before.endsWith("\"") ? JSON.stringify(name).slice(1, -1) : name

/**
 * The grammar of exactly one tool call.
 *
 * @param syntax how the model writes calls
 *
 * Throws an `invalid_request` whose path begins with `tools` or `toolChoice`.
 */
export const toolGrammar = (
  tools: ReadonlyArray<ToolDefinition>,
  choice: Extract<ToolChoice, "required" | object>,
  syntax: CallSyntax = commonSyntax,
  budget: Budget = makeBudget()
): Grammar => {
  const callable = [...tools.entries()].filter(([, { name }]) => choice === "required" || name === choice.name)
  if (callable.length === 0) {
    refuse(
      choice === "required"
        ? { kind: "invalid_request", path: "tools", message: "must not be empty when a tool must be called" }
        : { kind: "invalid_request", path: "toolChoice.name", message: "is not the name of any of the tools" }
    )
  }
  const builder = makeBuilder("tools")
  const calls = callable.map(([index, tool]): Sequence => {
    const path = `tools[${index}].parameters`
    // Each tool alone first, so that the error names the tool whose arguments are impossible.
    const alone = makeBuilder(path)
    if (alone.build(argumentsOf(alone, budget, tool, path, syntax.arguments)) === undefined) refuseAt(path, nothingFits)
    return [
      text(`${syntax.before}${nameIn(syntax, tool.name)}${syntax.between}`),
      ...argumentsOf(builder, budget, tool, path, syntax.arguments),
      ...(syntax.after === "" ? [] : [text(syntax.after)])
    ]
  })
  return builder.build([builder.rule("call", calls)])!
}
