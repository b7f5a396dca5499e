/**
 * Finite automata over the characters of a text, from lengths, patterns and forbidden words, so that several
 * constraints can be combined.
 *
 * **Details**
 *
 * An automaton is deterministic: from each state a character leads to one state at most. State 0 is the start.
 */
import type { CodeRange } from "./Grammar.ts"
import { anyCode } from "./JsonValues.ts"

/** A transition: a set of characters, and the state after them. */
export interface Edge {
  /** Ordered, without overlaps. */
  readonly ranges: ReadonlyArray<CodeRange>
  readonly to: number
}

export interface AutomatonState {
  readonly accepts: boolean
  /** No two edges share a character. */
  readonly edges: ReadonlyArray<Edge>
}

export type Automaton = ReadonlyArray<AutomatonState>

/** States of one automaton: some milliseconds of work, and one grammar rule per state. */
export const mostStates = 10_000

const rangesOf = ({ edges }: AutomatonState): number => edges.reduce((sum, { ranges }) => sum + ranges.length, 0)

/** The characters of both sets. */
export const common = (a: ReadonlyArray<CodeRange>, b: ReadonlyArray<CodeRange>): ReadonlyArray<CodeRange> =>
  a.flatMap(([first, last]) =>
    b.map(([low, high]): CodeRange => [Math.max(first, low), Math.min(last, high)])
      .filter(([low, high]) => low <= high)
  )

/** The characters of any of the sets, in order. */
export const union = (ranges: ReadonlyArray<CodeRange>): ReadonlyArray<CodeRange> => {
  const merged: Array<CodeRange> = []
  for (const [first, last] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const previous = merged.at(-1)
    if (previous === undefined || first > previous[1] + 1) merged.push([first, last])
    else merged[merged.length - 1] = [previous[0], Math.max(previous[1], last)]
  }
  return merged
}

/** Every other character. */
export const complement = (ranges: ReadonlyArray<CodeRange>): ReadonlyArray<CodeRange> => {
  const gaps: Array<CodeRange> = []
  let from = 0
  for (const [first, last] of union(ranges)) {
    if (first > from) gaps.push([from, first - 1])
    from = last + 1
  }
  return common([...gaps, [from, 0x10ffff]], anyCode)
}

/** Texts with this number of characters. */
export const ofLength = (least: number, most: number | undefined): Automaton => {
  const last = most ?? least
  return Array.from({ length: last + 1 }, (_, length) => ({
    accepts: length >= least,
    edges: length < last || most === undefined ? [{ ranges: anyCode, to: Math.min(length + 1, last) }] : []
  }))
}

/** Every text except these. */
export const except = (words: ReadonlyArray<string>): Automaton => {
  const isWord: Array<boolean> = [false]
  const children: Array<Map<number, number>> = [new Map()]
  for (const word of words) {
    let at = 0
    for (const char of word) {
      const code = char.codePointAt(0)!
      const child = children[at]!.get(code) ?? children.push(new Map()) - 1
      children[at]!.set(code, child)
      isWord[child] ??= false
      at = child
    }
    isWord[at] = true
  }
  const free = children.length
  const states = children.map((branches, at): AutomatonState => {
    const codes = [...branches.keys()].map((code): CodeRange => [code, code])
    return {
      accepts: isWord[at] !== true,
      edges: [
        ...[...branches].map(([code, to]): Edge => ({ ranges: [[code, code]], to })),
        { ranges: complement(codes), to: free }
      ]
    }
  })
  return [...states, { accepts: true, edges: [{ ranges: anyCode, to: free }] }]
}

/**
 * The texts that both accept; undefined if that needs more than `mostStates` states.
 *
 * @param spend called with the number of compared pairs of edges; throws if there are too many
 */
export const intersect = (
  a: Automaton,
  b: Automaton,
  spend: (steps: number) => void = () => {}
): Automaton | undefined => {
  const states: Array<AutomatonState> = []
  const pairs: Array<readonly [number, number]> = [[0, 0]]
  const numbers = new Map([["0 0", 0]])
  const numberOf = (left: number, right: number): number => {
    const key = `${left} ${right}`
    const known = numbers.get(key) ?? pairs.push([left, right]) - 1
    numbers.set(key, known)
    return known
  }
  for (const [left, right] of pairs) {
    if (pairs.length > mostStates) return undefined
    const [stateA, stateB] = [a[left]!, b[right]!]
    spend(rangesOf(stateA) * rangesOf(stateB))
    states.push({
      accepts: stateA.accepts && stateB.accepts,
      edges: stateA.edges.flatMap((edgeA) =>
        stateB.edges.flatMap((edgeB) => {
          const ranges = common(edgeA.ranges, edgeB.ranges)
          return ranges.length === 0 ? [] : [{ ranges, to: numberOf(edgeA.to, edgeB.to) }]
        })
      )
    })
  }
  return states
}

/** Every text that the automaton does not accept. */
export const complementOf = (automaton: Automaton): Automaton => {
  const sink = automaton.length
  const states = automaton.map(({ accepts, edges }): AutomatonState => {
    const others = complement(edges.flatMap(({ ranges }) => ranges))
    return { accepts: !accepts, edges: others.length === 0 ? edges : [...edges, { ranges: others, to: sink }] }
  })
  return [...states, { accepts: true, edges: [{ ranges: anyCode, to: sink }] }]
}

/** Whether the automaton accepts no text. */
export const isEmpty = (automaton: Automaton): boolean => {
  const reached = new Set([0])
  for (const at of reached) {
    if (automaton[at]!.accepts) return false
    for (const { to } of automaton[at]!.edges) reached.add(to)
  }
  return true
}

/** Whether the automaton accepts a text. */
export const accepts = (automaton: Automaton, text: string): boolean => {
  let state = automaton[0]
  for (const char of text) {
    const code = char.codePointAt(0)!
    const edge = state?.edges.find(({ ranges }) => ranges.some(([first, last]) => first <= code && code <= last))
    state = edge === undefined ? undefined : automaton[edge.to]
  }
  return state?.accepts ?? false
}
