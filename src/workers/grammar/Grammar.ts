/**
 * Context-free grammars over characters, as plain data, and their text in llama.cpp's GBNF.
 *
 * **Details**
 *
 * A grammar is a list of rules, a rule a list of alternatives, an alternative a sequence of symbols. There are no
 * operators: repetitions and options are written as rules, so that `GrammarMatcher` and llama.cpp read the same few
 * constructs.
 *
 * **Gotchas**
 *
 * A rule must not be left-recursive: llama.cpp refuses such a grammar.
 */
import { refuse } from "../../domain/Job.ts"

/** Code points from the first to the last, inclusive. */
export type CodeRange = readonly [first: number, last: number]

/** One symbol of a sequence: these characters, one character of a set, or a rule by its index. */
export type GrammarSymbol =
  | { readonly text: string }
  | { readonly chars: ReadonlyArray<CodeRange> }
  | { readonly rule: number }

export type Sequence = ReadonlyArray<GrammarSymbol>

export interface Rule {
  readonly name: string
  readonly alternatives: ReadonlyArray<Sequence>
}

/** Rule 0 is the root. */
export interface Grammar {
  readonly rules: ReadonlyArray<Rule>
}

/** The most symbols of a grammar: tens of milliseconds and a few megabytes in llama.cpp. */
const mostSymbols = 50_000

export const text = (text: string): GrammarSymbol => ({ text })

export const chars = (...ranges: ReadonlyArray<CodeRange>): GrammarSymbol => ({ chars: ranges })

/** Makes a grammar rule by rule. */
export interface GrammarBuilder {
  /** Adds a rule with these alternatives; without any, it matches nothing, not even the empty text. */
  readonly rule: (name: string, alternatives: ReadonlyArray<Sequence>) => GrammarSymbol
  /** A rule that others may refer to before it is defined. */
  readonly declare: (name: string) => {
    readonly symbol: GrammarSymbol
    readonly define: (alternatives: ReadonlyArray<Sequence>) => void
  }
  /** The rule of this name, made at first use; it may refer to itself. */
  readonly shared: (name: string, alternatives: (self: GrammarSymbol) => ReadonlyArray<Sequence>) => GrammarSymbol
  /** The grammar of one sequence, without useless rules; undefined if no text matches. */
  readonly build: (root: Sequence) => Grammar | undefined
}

/**
 * @param path the field that an error names if the grammar is too large
 */
export const makeBuilder = (path: string): GrammarBuilder => {
  const rules: Array<{ readonly name: string; alternatives: ReadonlyArray<Sequence> }> = [{
    name: "root",
    alternatives: []
  }]
  const sharedRules = new Map<string, GrammarSymbol>()
  let symbols = 0

  const declare: GrammarBuilder["declare"] = (name) => {
    const index = rules.push({ name: `${name}-${rules.length}`, alternatives: [] }) - 1
    return {
      symbol: { rule: index },
      define(alternatives) {
        symbols += alternatives.reduce((sum, sequence) => sum + sequence.length + 1, 1)
        if (symbols > mostSymbols) refuse({ kind: "invalid_request", path, message: tooBig })
        rules[index]!.alternatives = alternatives
      }
    }
  }

  return {
    declare,
    rule(name, alternatives) {
      const { define, symbol } = declare(name)
      define(alternatives)
      return symbol
    },
    shared(name, alternatives) {
      const known = sharedRules.get(name)
      if (known !== undefined) return known
      const { define, symbol } = declare(name)
      sharedRules.set(name, symbol)
      define(alternatives(symbol))
      return symbol
    },
    build(root) {
      rules[0]!.alternatives = [root]
      return usefulOf({ rules })
    }
  }
}

const tooBig = `needs a grammar of more than ${mostSymbols.toLocaleString("en")} symbols; ` +
  "reduce maxLength, maxItems or the repetitions in a pattern"

/** Which rules have a text of finite length. */
const productiveOf = ({ rules }: Grammar): ReadonlySet<number> => {
  const productive = new Set<number>()
  const users = rules.map((): Set<number> => new Set())
  for (const [index, { alternatives }] of rules.entries()) {
    for (const symbol of alternatives.flat()) if ("rule" in symbol) users[symbol.rule]!.add(index)
  }
  const pending = rules.map((_, index) => index)
  for (let index = pending.pop(); index !== undefined; index = pending.pop()) {
    if (productive.has(index) || !rules[index]!.alternatives.some((one) => isProductive(one, productive))) continue
    productive.add(index)
    pending.push(...users[index]!)
  }
  return productive
}

const isProductive = (sequence: Sequence, productive: ReadonlySet<number>): boolean =>
  sequence.every((symbol) => !("rule" in symbol) || productive.has(symbol.rule))

/** The same grammar without rules that cannot terminate or cannot be reached. */
const usefulOf = (grammar: Grammar): Grammar | undefined => {
  const productive = productiveOf(grammar)
  if (!productive.has(0)) return undefined
  const newIndex = new Map([[0, 0]])
  const kept: Array<Rule> = []
  const moved = (symbol: GrammarSymbol): GrammarSymbol => {
    if (!("rule" in symbol)) return symbol
    if (!newIndex.has(symbol.rule)) newIndex.set(symbol.rule, newIndex.size)
    return { rule: newIndex.get(symbol.rule)! }
  }
  // Iteration over a Map includes entries that are added meanwhile.
  for (const index of newIndex.keys()) {
    const { alternatives, name } = grammar.rules[index]!
    kept.push({
      name,
      alternatives: alternatives.filter((one) => isProductive(one, productive)).map((one) => one.map(moved))
    })
  }
  return { rules: kept }
}

const hex = (code: number, digits: number): string => code.toString(16).toUpperCase().padStart(digits, "0")

const escaped = "\"\\[]"
const isPlain = (code: number): boolean => code >= 0x20 && code < 0x7f && code !== 0x5e && code !== 0x2d

const escapeCode = (code: number): string => {
  const char = String.fromCodePoint(code)
  if (escaped.includes(char)) return `\\${char}`
  if (isPlain(code)) return char
  if (code <= 0xff) return `\\x${hex(code, 2)}`
  return code <= 0xffff ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`
}

const gbnfSymbol = (symbol: GrammarSymbol, rules: Grammar["rules"]): string => {
  if ("rule" in symbol) return rules[symbol.rule]!.name
  if ("text" in symbol) return `"${Array.from(symbol.text, (char) => escapeCode(char.codePointAt(0)!)).join("")}"`
  const ranges = symbol.chars.map(([first, last]) =>
    first === last ? escapeCode(first) : `${escapeCode(first)}-${escapeCode(last)}`
  )
  return `[${ranges.join("")}]`
}

/** The grammar in llama.cpp's GBNF. */
export const gbnfOf = ({ rules }: Grammar): string =>
  rules.map(({ alternatives, name }) => {
    const texts = alternatives.map((sequence) => sequence.map((symbol) => gbnfSymbol(symbol, rules)).join(" "))
    return `${name} ::= ${texts.map((one) => one === "" ? "\"\"" : one).join(" | ")}\n`
  }).join("")
