/**
 * Turns a pattern into an automaton of the texts in which it is found.
 *
 * **Details**
 *
 * First the nodes become a net of states with free moves (Thompson's construction), then every set of states that can
 * be reached at once becomes one state (the subset construction). `^` is a free move at the start of the text only, `$`
 * one at its end only.
 */
import type { CodeRange } from "./Grammar.ts"
import { anyCode } from "./JsonText.ts"
import type { Automaton, AutomatonState, Edge } from "./TextAutomaton.ts"
import { mostStates, union } from "./TextAutomaton.ts"
import type { PatternNode } from "./TextPattern.ts"
import { readPattern } from "./TextPattern.ts"

type Move = { readonly on: "free" | "start" | "end" | ReadonlyArray<CodeRange>; readonly to: number }

/** States of the net: a repetition of a group is spelt out as many times. */
const mostNetStates = 20_000

/** Looks at a state of the net for a piece of the alphabet: some tenths of a second. */
const mostWork = 5_000_000

const tooBig = "takes too many states; use smaller repetitions, or fewer alternatives in them"

type Refuse = (message: string) => never

const netOf = (pattern: PatternNode, refuse: Refuse) => {
  const moves: Array<Array<Move>> = []
  const state = (): number => {
    if (moves.length >= mostNetStates) refuse(tooBig)
    return moves.push([]) - 1
  }
  const move = (from: number, on: Move["on"], to: number): void => void moves[from]!.push({ on, to })

  const repeat = (node: PatternNode, least: number, most: number | undefined, from: number): number => {
    let end = from
    for (let count = 0; count < least; count++) end = add(node, end)
    if (most === undefined) {
      const loop = state()
      move(end, "free", loop)
      move(add(node, loop), "free", loop)
      return loop
    }
    const out = state()
    for (let count = least; count < most; count++) {
      move(end, "free", out)
      end = add(node, end)
    }
    move(end, "free", out)
    return out
  }

  /** Adds a node after a state; gives the state after it. */
  const add = (node: PatternNode, from: number): number => {
    switch (node.kind) {
      case "sequence":
        return node.nodes.reduce((end, one) => add(one, end), from)
      case "repeat":
        return repeat(node.node, node.least, node.most, from)
      case "choice": {
        const out = state()
        for (const one of node.nodes) {
          const begin = state()
          move(from, "free", begin)
          move(add(one, begin), "free", out)
        }
        return out
      }
      default: {
        const out = state()
        move(from, node.kind === "set" ? node.ranges : node.kind, out)
        return out
      }
    }
  }

  const start = state()
  move(start, anyCode, start)
  const begin = state()
  move(start, "free", begin)
  const found = add(pattern, begin)
  move(found, anyCode, found)
  return { moves, start, found }
}

/** The sets' characters cut up so that each piece lies within or without every set. */
const piecesOf = (sets: ReadonlyArray<ReadonlyArray<CodeRange>>): ReadonlyArray<CodeRange> => {
  const cuts = [...new Set([...sets, anyCode].flat().flatMap(([first, last]) => [first, last + 1]))].sort((a, b) =>
    a - b
  )
  return cuts.slice(0, -1)
    .map((first, index): CodeRange => [first, cuts[index + 1]! - 1])
    .filter(([first]) => anyCode.some(([low, high]) => low <= first && first <= high))
}

/**
 * @param refuse is told what is not supported
 */
export const ofPattern = (source: string, refuse: Refuse): Automaton => {
  const { found, moves, start } = netOf(readPattern(source, refuse), refuse)
  const pieces = piecesOf(moves.flat().flatMap(({ on }) => typeof on === "string" ? [] : [on]))

  const closure = (from: Iterable<number>, ...free: ReadonlyArray<Move["on"]>): ReadonlyArray<number> => {
    const reached = new Set(from)
    for (const one of reached) {
      for (const { on, to } of moves[one]!) if (on === "free" || free.includes(on)) reached.add(to)
    }
    return [...reached].sort((a, b) => a - b)
  }

  const sets: Array<ReadonlyArray<number>> = []
  const numbers = new Map<string, number>()
  const numberOf = (set: ReadonlyArray<number>): number => {
    const key = set.join(" ")
    const known = numbers.get(key) ?? sets.push(set) - 1
    numbers.set(key, known)
    return known
  }

  const edgesOf = (set: ReadonlyArray<number>): ReadonlyArray<Edge> => {
    const targets = new Map<number, Array<CodeRange>>()
    const reading = set.flatMap((one) => moves[one]!)
    for (const piece of pieces) {
      const after = reading.filter(({ on }) =>
        typeof on !== "string" && on.some(([first, last]) => first <= piece[0] && piece[0] <= last)
      )
      if (after.length === 0) continue
      const to = numberOf(closure(after.map(({ to }) => to)))
      targets.set(to, [...(targets.get(to) ?? []), piece])
    }
    return [...targets].map(([to, ranges]) => ({ to, ranges: union(ranges) }))
  }

  // Not among the numbered: what is true at the start only must not be true of the same set later on.
  sets.push(closure([start], "start"))
  const states: Array<AutomatonState> = []
  let work = 0
  for (const [index, set] of sets.entries()) {
    work += set.length * pieces.length
    if (sets.length > mostStates || work > mostWork) refuse(tooBig)
    const ends = index === 0 ? closure(set, "start", "end") : closure(set, "end")
    states.push({ accepts: ends.includes(found), edges: edgesOf(set) })
  }
  return states
}
