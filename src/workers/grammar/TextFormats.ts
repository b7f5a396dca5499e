/** The grammars of answers that are text: by a regular expression, from a list of texts, or by a caller's grammar. */
import type { TextFormat } from "../../domain/Job.ts"
import type { Budget } from "./Budget.ts"
import { parseGbnf } from "./GbnfText.ts"
import type { Grammar, GrammarBuilder, GrammarSymbol, Sequence } from "./Grammar.ts"
import { chars, makeBuilder, text } from "./Grammar.ts"
import { checkGrammar } from "./GrammarCheck.ts"
import { refuseAt } from "./JsonSchemaKeywords.ts"
import type { Automaton } from "./TextAutomaton.ts"

/** The texts that an automaton accepts. */
const textOf = (builder: GrammarBuilder, automaton: Automaton): GrammarSymbol => {
  const states = automaton.map(() => builder.declare("text"))
  for (const [index, { accepts, edges }] of automaton.entries()) {
    states[index]!.define([
      ...edges.map(({ ranges, to }): Sequence => [chars(...ranges), states[to]!.symbol]),
      ...(accepts ? [[]] : [])
    ])
  }
  return states[0]!.symbol
}

type Characters = ReadonlyArray<string>

const commonLength = (words: ReadonlyArray<Characters>): number => {
  const [first, ...others] = words
  const differs = first!.findIndex((char, at) => others.some((word) => word[at] !== char))
  return differs < 0 ? first!.length : differs
}

/** The words, with a common beginning written once: a text then has one parse. */
const wordsOf = (builder: GrammarBuilder, words: ReadonlyArray<Characters>): ReadonlyArray<Sequence> => {
  const byFirst = Map.groupBy(words, ([first]) => first ?? "")
  return [...byFirst].map(([first, group]): Sequence => {
    if (first === "") return []
    const length = commonLength(group)
    const begin = text(group[0]!.slice(0, length).join(""))
    return group.length === 1
      ? [begin]
      : [begin, builder.rule("choice", wordsOf(builder, group.map((word) => word.slice(length))))]
  })
}

/** Throws an `invalid_request` whose path begins with `format`. */
export const textGrammar = (format: TextFormat, budget: Budget): Grammar => {
  if (format.type === "grammar") return checkGrammar(parseGbnf(format.grammar, "format.grammar"), "format.grammar")
  const path = format.type === "regex" ? "format.pattern" : "format.choices"
  const builder = makeBuilder(path)
  if (format.type === "choice") {
    const words = [...new Set(format.choices)].map((choice) => Array.from(choice))
    return builder.build([builder.rule("choice", wordsOf(builder, words))])!
  }
  // The whole answer matches, as in vLLM. The pattern alone first, so that a group cannot close the one around it.
  budget.automatonOf(format.pattern, path)
  const symbol = textOf(builder, budget.automatonOf(`^(?:${format.pattern})$`, path))
  return builder.build([symbol]) ?? refuseAt(path, "matches no text")
}
