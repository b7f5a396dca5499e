/**
 * Refuses grammars whose parsing could take unlimited time or memory.
 *
 * **Details**
 *
 * llama.cpp follows all parses of an answer at once, each with a stack of its own, and would use all memory of the machine if
 * they multiplied. Refused are rules that begin with themselves; recursive rules with alternatives that can begin with the
 * same character and both contain the recursion, since each character would double the parses; and grammars in which more
 * parses than a limit can be open without recursion.
 *
 * Which alternatives can begin alike is decided by their first character; for one that can be empty, by the characters
 * that can follow the rule. The count is an upper bound.
 */
import type { CodeRange, Grammar, GrammarSymbol, Rule, Sequence } from "./Grammar.ts"
import { refuseAt } from "./JsonSchemaKeywords.ts"

/** The most parses of one text. */
const mostParses = 1_000

/** Rules times sets of characters: some hundred milliseconds of work. */
const mostWork = 4_000_000

const ruleOf = (symbol: GrammarSymbol): number | undefined => "rule" in symbol ? symbol.rule : undefined

const nameOf = ({ name }: Rule): string => name.replace(/-\d+$/, "")

/** The characters with which a symbol that is no rule begins. */
const beginOf = (symbol: GrammarSymbol): ReadonlyArray<CodeRange> => {
  if ("chars" in symbol) return symbol.chars
  const code = "text" in symbol ? symbol.text.codePointAt(0) : undefined
  return code === undefined ? [] : [[code, code]]
}

const isEmptyText = (symbol: GrammarSymbol): boolean => "text" in symbol && symbol.text === ""

/** Changes of rules until nothing changes: some tenths of a second. */
const mostChanges = 500_000

/** Repeats a change of each rule until nothing changes. */
const untilStable = (path: string, count: number, change: (index: number) => boolean): void => {
  let steps = 0
  for (let isChanged = true; isChanged;) {
    isChanged = false
    steps += count
    if (steps > mostChanges) {
      refuseAt(
        path,
        "has too many rules that depend on each other; use fewer rules, or define each after the ones that use it"
      )
    }
    // Backwards: rules are mostly used before they are defined.
    for (let index = count - 1; index >= 0; index--) isChanged = change(index) || isChanged
  }
}

const nullableOf = ({ rules }: Grammar, path: string): ReadonlySet<number> => {
  const nullable = new Set<number>()
  const isNullable = (sequence: Sequence) =>
    sequence.every((symbol) => isEmptyText(symbol) || nullable.has(ruleOf(symbol) ?? -1))
  untilStable(path, rules.length, (index) => {
    if (nullable.has(index) || !rules[index]!.alternatives.some(isNullable)) return false
    nullable.add(index)
    return true
  })
  return nullable
}

/** Characters as bits: every character that the grammar does not tell apart has the same bit. */
const makeAlphabet = ({ rules }: Grammar) => {
  const edges = new Set<number>()
  for (const symbol of rules.flatMap(({ alternatives }) => alternatives.flat())) {
    for (const [first, last] of beginOf(symbol)) edges.add(first).add(last + 1)
  }
  const sorted = [...edges].sort((a, b) => a - b)
  const indexes = new Map(sorted.map((edge, index) => [edge, BigInt(index)]))
  return {
    size: sorted.length,
    bitsOf: (ranges: ReadonlyArray<CodeRange>): bigint =>
      ranges.reduce(
        (bits, [first, last]) => bits | ((1n << indexes.get(last + 1)!) - (1n << indexes.get(first)!)),
        0n
      )
  }
}

class Analysis {
  readonly rules: ReadonlyArray<Rule>
  readonly nullable: ReadonlySet<number>
  /** The rules of each rule. */
  readonly uses: ReadonlyArray<ReadonlySet<number>>
  readonly #bits: (symbol: GrammarSymbol) => bigint
  readonly #first: Array<bigint>
  readonly #follow: Array<bigint>
  /** The group of rules that contain each other, by rule. */
  readonly groups: ReadonlyArray<number>

  constructor(grammar: Grammar, path: string) {
    this.rules = grammar.rules
    this.nullable = nullableOf(grammar, path)
    this.uses = grammar.rules.map(({ alternatives }) =>
      new Set(alternatives.flat().flatMap((symbol) => ruleOf(symbol) ?? []))
    )
    const alphabet = makeAlphabet(grammar)
    if (alphabet.size * grammar.rules.length > mostWork) {
      refuseAt(path, "has too many rules with different sets of characters; use fewer rules or fewer sets")
    }
    const begins = new Map<GrammarSymbol, bigint>()
    this.#bits = (symbol) => {
      const known = begins.get(symbol) ?? alphabet.bitsOf(beginOf(symbol))
      begins.set(symbol, known)
      return known
    }
    this.#first = grammar.rules.map(() => 0n)
    this.#follow = grammar.rules.map(() => 0n)
    untilStable(path, grammar.rules.length, (index) => this.#addFirst(index))
    untilStable(path, grammar.rules.length, (index) => this.#addFollow(grammar.rules.length - 1 - index))
    this.groups = groupsOf(this.uses)
  }

  isNullable(symbol: GrammarSymbol): boolean {
    return isEmptyText(symbol) || this.nullable.has(ruleOf(symbol) ?? -1)
  }

  #beginOf(sequence: Sequence, at = 0): bigint {
    let bits = 0n
    for (let index = at; index < sequence.length; index++) {
      const symbol = sequence[index]!
      const rule = ruleOf(symbol)
      bits |= rule === undefined ? this.#bits(symbol) : this.#first[rule]!
      if (!this.isNullable(symbol)) break
    }
    return bits
  }

  #addFirst(index: number): boolean {
    const before = this.#first[index]!
    const after = this.rules[index]!.alternatives.reduce((bits, one) => bits | this.#beginOf(one), before)
    this.#first[index] = after
    return after !== before
  }

  #addFollow(index: number): boolean {
    let isChanged = false
    for (const sequence of this.rules[index]!.alternatives) {
      let rest = this.#follow[index]!
      for (let at = sequence.length - 1; at >= 0; at--) {
        const symbol = sequence[at]!
        const rule = ruleOf(symbol)
        if (rule !== undefined && (this.#follow[rule]! | rest) !== this.#follow[rule]!) {
          this.#follow[rule]! |= rest
          isChanged = true
        }
        const begin = rule === undefined ? this.#bits(symbol) : this.#first[rule]!
        rest = this.isNullable(symbol) ? rest | begin : begin
      }
    }
    return isChanged
  }

  /** The alternatives of a rule that can begin with the same character as another one. */
  conflictsOf(index: number): ReadonlyArray<Sequence> {
    const { alternatives } = this.rules[index]!
    if (alternatives.length < 2) return []
    const begins = alternatives.map((sequence) =>
      this.#beginOf(sequence) | (sequence.every((symbol) => this.isNullable(symbol)) ? this.#follow[index]! : 0n)
    )
    let once = 0n
    let twice = 0n
    for (const bits of begins) {
      twice |= once & bits
      once |= bits
    }
    return alternatives.filter((_, at) => (begins[at]! & twice) !== 0n)
  }
}

type Edges = ReadonlyArray<ReadonlySet<number>>

/** The rules in the order in which their visits end, each after the ones that it uses. Without recursion: grammars are deep. */
const endsOf = (edges: Edges): ReadonlyArray<number> => {
  const seen = new Set<number>()
  const ends: Array<number> = []
  for (const start of edges.keys()) {
    const path = [{ rule: start, next: [start].values() as Iterator<number> }]
    for (let last = path.at(-1); last !== undefined; last = path.at(-1)) {
      const { done, value } = last.next.next()
      if (done === true) {
        path.pop()
        if (path.length > 0) ends.push(last.rule)
      } else if (!seen.has(value)) {
        seen.add(value)
        path.push({ rule: value, next: edges[value]!.values() })
      }
    }
  }
  return ends
}

/** Strongly connected components, by Kosaraju's algorithm: the number of each rule's component. */
const groupsOf = (edges: Edges): ReadonlyArray<number> => {
  const users = edges.map((): Set<number> => new Set())
  for (const [rule, used] of edges.entries()) for (const one of used) users[one]!.add(rule)
  const groups = edges.map(() => -1)
  for (const start of endsOf(edges).toReversed()) {
    if (groups[start] !== -1) continue
    const members = new Set([start])
    for (const member of members) {
      groups[member] = start
      for (const user of users[member]!) if (groups[user] === -1) members.add(user)
    }
  }
  return groups
}

/** The rules with which a rule's text can begin. */
const leftmostOf = (analysis: Analysis): ReadonlyArray<ReadonlySet<number>> =>
  analysis.rules.map(({ alternatives }) =>
    new Set(alternatives.flatMap((sequence) => {
      const end = sequence.findIndex((symbol) => !analysis.isNullable(symbol))
      return sequence.slice(0, end < 0 ? sequence.length : end + 1).flatMap((symbol) => ruleOf(symbol) ?? [])
    }))
  )

const checkLeftRecursion = (analysis: Analysis, path: string): void => {
  const leftmost = leftmostOf(analysis)
  const groups = groupsOf(leftmost)
  const sizes = sizesOf(groups)
  for (const [index, rule] of analysis.rules.entries()) {
    if (!leftmost[index]!.has(index) && sizes.get(groups[index]!) === 1) continue
    const name = nameOf(rule)
    refuseAt(
      path,
      name === "repeat"
        ? "repeats an element that can be empty, without end; let the element have at least one character"
        : `has a left-recursive rule: ${name} can begin with itself. Write it as a repetition, such as ` +
          `${name} ::= item ("," item)*`
    )
  }
}

const sizesOf = (groups: ReadonlyArray<number>): ReadonlyMap<number, number> => {
  const sizes = new Map<number, number>()
  for (const group of groups) sizes.set(group, (sizes.get(group) ?? 0) + 1)
  return sizes
}

/** A rule that uses its group before the end of a sequence: each use adds to the stack of a parse. */
const embeddingGroups = ({ groups, rules }: Analysis): ReadonlySet<number> => {
  const embedding = new Set<number>()
  for (const [index, { alternatives }] of rules.entries()) {
    for (const sequence of alternatives) {
      for (const symbol of sequence.slice(0, -1)) {
        const rule = ruleOf(symbol)
        if (rule !== undefined && groups[rule] === groups[index]) embedding.add(groups[index]!)
      }
    }
  }
  return embedding
}

const checkRecursion = (analysis: Analysis, conflicts: Conflicts, path: string): void => {
  const embedding = embeddingGroups(analysis)
  for (const [index, rule] of analysis.rules.entries()) {
    const group = analysis.groups[index]!
    if (!embedding.has(group)) continue
    const recursive = conflicts[index]!.filter((sequence) =>
      sequence.length === 0 || sequence.some((symbol) => analysis.groups[ruleOf(symbol) ?? -1] === group)
    )
    if (recursive.length < 2) continue
    refuseAt(
      path,
      `has a recursive rule with alternatives that can begin alike (near ${
        nameOf(rule)
      }), so that the ways to read an ` +
        "answer multiply; let each alternative begin with a different character"
    )
  }
}

type Conflicts = ReadonlyArray<ReadonlyArray<Sequence>>

/** The rules at the end of a rule's sequences, and theirs: they are read in place of the rule. */
const tailsOf = (rules: ReadonlyArray<Rule>, index: number): ReadonlySet<number> => {
  const tails = new Set([index])
  for (const one of tails) {
    for (const sequence of rules[one]!.alternatives) {
      const last = sequence.at(-1)
      const rule = last === undefined ? undefined : ruleOf(last)
      if (rule !== undefined) tails.add(rule)
    }
    if (tails.size > mostParses) break
  }
  return tails
}

/** An upper bound of the parses that are open at once within each rule. */
const checkParses = ({ rules }: Analysis, conflicts: Conflicts, path: string): void => {
  const counted = new Map<number, number>()
  const open = new Set<number>()
  let work = 0
  const inner = (sequence: Sequence): ReadonlyArray<number> =>
    sequence.map((symbol, at) => {
      const rule = ruleOf(symbol)
      if (rule === undefined) return 1
      return at === sequence.length - 1 ? 0 : count(rule)
    })
  const count = (index: number): number => {
    const known = counted.get(index)
    if (known !== undefined) return known
    // A recursion adds to the stacks, not to their number: see `checkRecursion`.
    if (open.has(index)) return 1
    open.add(index)
    const tails = tailsOf(rules, index)
    work += tails.size
    if (work > mostWork) refuseAt(path, "has too many rules that end in other rules; use fewer rules")
    const isAmbiguous = [...tails].some((one) => conflicts[one]!.length > 0)
    let parses = 1
    for (const one of tails) {
      for (const sequence of isAmbiguous ? rules[one]!.alternatives : []) {
        parses += inner(sequence).reduce((sum, here) => sum + here, 0)
      }
      for (const sequence of isAmbiguous ? [] : rules[one]!.alternatives) parses = Math.max(parses, ...inner(sequence))
    }
    open.delete(index)
    if (parses > mostParses) {
      refuseAt(
        path,
        `may be read in more than ${mostParses} ways at once (near ${nameOf(rules[index]!)}); let alternatives and ` +
          "repetitions begin with different characters than what follows them"
      )
    }
    counted.set(index, parses)
    return parses
  }
  count(0)
}

/** The grammar, if its parsing is limited. Throws an `invalid_request`. */
export const checkGrammar = (grammar: Grammar, path: string): Grammar => {
  const analysis = new Analysis(grammar, path)
  checkLeftRecursion(analysis, path)
  const conflicts = grammar.rules.map((_, index) => analysis.conflictsOf(index))
  checkRecursion(analysis, conflicts, path)
  checkParses(analysis, conflicts, path)
  return grammar
}
