/**
 * Converts a pattern to an automaton of the texts in which it is found.
 *
 * **Details**
 *
 * First the nodes become a nondeterministic automaton with empty moves (Thompson's construction), then every set of
 * states that can be reached at once becomes one state (the subset construction). `^` is an empty move at the start of
 * the text only, `$` one at its end only.
 */
import type { CodeRange } from "./Grammar.ts"
import { anyCode } from "./JsonValues.ts"
import type { Automaton, AutomatonState, Edge } from "./TextAutomaton.ts"
import { mostStates, union } from "./TextAutomaton.ts"
import type { PatternNode } from "./TextPattern.ts"
import { readPattern } from "./TextPattern.ts"

type Move = { readonly on: "free" | "start" | "end" | ReadonlyArray<CodeRange>; readonly to: number }

/** States of the nondeterministic automaton: a repeated group has its states once per repetition. */
const mostNetStates = 20_000

const tooBig = "needs too many states; use smaller repetitions, or fewer alternatives in them"

type Refuse = (message: string) => never

type Spend = (steps: number) => void

/** The states, and the moves from each. */
interface Net {
  readonly moves: Array<Array<Move>>
  readonly refuse: Refuse
}

const addState = ({ moves, refuse }: Net): number => moves.length < mostNetStates ? moves.push([]) - 1 : refuse(tooBig)

const addMove = ({ moves }: Net, from: number, on: Move["on"], to: number): void => {
  moves[from]!.push({ on, to })
}

type Repeat = Extract<PatternNode, { readonly kind: "repeat" }>

const addRepeat = (net: Net, { least, most, node }: Repeat, from: number): number => {
  let end = from
  for (let count = 0; count < least; count++) end = addNode(net, node, end)
  const out = addState(net)
  if (most === undefined) {
    addMove(net, end, "free", out)
    addMove(net, addNode(net, node, out), "free", out)
    return out
  }
  for (let count = least; count < most; count++) {
    addMove(net, end, "free", out)
    end = addNode(net, node, end)
  }
  addMove(net, end, "free", out)
  return out
}

/** Adds a node after a state; returns the state after the node. */
function addNode(net: Net, node: PatternNode, from: number): number {
  if (node.kind === "sequence") return node.nodes.reduce((end, one) => addNode(net, one, end), from)
  if (node.kind === "repeat") return addRepeat(net, node, from)
  const out = addState(net)
  if (node.kind === "choice") {
    for (const one of node.nodes) {
      const begin = addState(net)
      addMove(net, from, "free", begin)
      addMove(net, addNode(net, one, begin), "free", out)
    }
  } else {
    addMove(net, from, node.kind === "set" ? node.ranges : node.kind, out)
  }
  return out
}

const netOf = (pattern: PatternNode, refuse: Refuse) => {
  const net: Net = { moves: [], refuse }
  const start = addState(net)
  addMove(net, start, anyCode, start)
  const begin = addState(net)
  addMove(net, start, "free", begin)
  const found = addNode(net, pattern, begin)
  addMove(net, found, anyCode, found)
  return { moves: net.moves, start, found }
}

/** The characters of the sets, divided so that each piece is completely inside or outside every set. */
const piecesOf = (sets: ReadonlyArray<ReadonlyArray<CodeRange>>): ReadonlyArray<CodeRange> => {
  const cuts = [...new Set([...sets, anyCode].flat().flatMap(([first, last]) => [first, last + 1]))].sort((a, b) =>
    a - b
  )
  return cuts.slice(0, -1)
    .map((first, index): CodeRange => [first, cuts[index + 1]! - 1])
    .filter(([first]) => anyCode.some(([low, high]) => low <= first && first <= high))
}

/** Whether a piece is in the set; a piece is never partly in a set. */
const holds = (set: ReadonlyArray<CodeRange>, [code]: CodeRange): boolean =>
  set.some(([first, last]) => first <= code && code <= last)

/** Steps to read a character of a pattern, and to reach a state of its automaton. */
const characterWork = 20
const reachWork = 4

/** The states that moves with a character lead to, for each piece of the alphabet. */
const readingOf = (moves: Net["moves"], spend: Spend) => {
  const ranges = [...new Set(moves.flat().map(({ on }) => on).filter((on) => typeof on !== "string"))]
  const pieces = piecesOf(ranges)
  const piecesIn = new Map(ranges.map((set) => {
    spend(set.length * pieces.length)
    return [set, [...pieces.keys()].filter((index) => holds(set, pieces[index]!))]
  }))
  return {
    pieces,
    /** The states after each piece. */
    readingAll: (set: ReadonlyArray<number>): ReadonlyArray<ReadonlySet<number>> => {
      const after = pieces.map(() => new Set<number>())
      for (const { on, to } of set.flatMap((one) => moves[one]!)) {
        if (typeof on === "string") continue
        const within = piecesIn.get(on)!
        spend(2 * within.length)
        for (const piece of within) after[piece]!.add(to)
      }
      return after
    }
  }
}

/**
 * @param refuse called with the problem
 * @param spend counts steps, and throws if there are too many
 */
export const ofPattern = (source: string, refuse: Refuse, spend: Spend = () => {}): Automaton => {
  spend(source.length * characterWork)
  const { found, moves, start } = netOf(readPattern(source, refuse), refuse)
  spend(moves.length)
  const { pieces, readingAll } = readingOf(moves, spend)
  const sets: Array<ReadonlyArray<number>> = []
  const numbers = new Map<string, number>()
  const numberOf = (set: ReadonlyArray<number>): number => {
    const key = set.join(" ")
    const known = numbers.get(key) ?? sets.push(set) - 1
    numbers.set(key, known)
    return known
  }

  const closure = (from: Iterable<number>, ...free: ReadonlyArray<Move["on"]>): ReadonlyArray<number> => {
    const reached = new Set(from)
    for (const one of reached) {
      for (const { on, to } of moves[one]!) if (on === "free" || free.includes(on)) reached.add(to)
    }
    spend(reached.size * reachWork)
    return [...reached].sort((a, b) => a - b)
  }

  const edgesOf = (set: ReadonlyArray<number>): ReadonlyArray<Edge> => {
    const targets = new Map<number, Array<CodeRange>>()
    const known = new Map<string, number>()
    for (const [piece, after] of readingAll(set).entries()) {
      if (after.size === 0) continue
      const key = [...after].join(" ")
      const to = known.get(key) ?? numberOf(closure(after))
      known.set(key, to)
      const ranges = targets.get(to) ?? []
      ranges.push(pieces[piece]!)
      targets.set(to, ranges)
    }
    return [...targets].map(([to, ranges]) => ({ to, ranges: union(ranges) }))
  }

  // The start set is not numbered: moves that are valid at the start only must not be valid when the same set is
  // reached later.
  sets.push(closure([start], "start"))
  const states: Array<AutomatonState> = []
  for (const [index, set] of sets.entries()) {
    if (sets.length > mostStates) refuse(tooBig)
    const ends = index === 0 ? closure(set, "start", "end") : closure(set, "end")
    states.push({ accepts: ends.includes(found), edges: edgesOf(set) })
  }
  return states
}
