/**
 * How much work a grammar may take, over all of its schemas.
 *
 * **Details**
 *
 * A grammar is made on the engine's thread, where every answer waits for it, out of schemas that may be hostile: each
 * part may be small, and the whole enormous. So every step whose number can multiply counts, and one sum is the limit
 * of a whole grammar, all tools together. A pattern that comes again costs nothing, since its automaton is kept.
 */
import { refuse } from "../../domain/Job.ts"
import { ofPattern } from "./PatternAutomaton.ts"
import type { Automaton } from "./TextAutomaton.ts"

/** Looks at a move of an automaton for a piece of the alphabet, or what takes as long: some tenths of a second. */
export const mostWork = 5_000_000

export interface Work {
  /** Counts, and refuses what is too much. */
  readonly spend: (looks: number, path: string) => void
  /** The texts in which a pattern is found. */
  readonly automatonOf: (pattern: string, path: string) => Automaton
  readonly spent: () => number
}

const tooMuch =
  "takes too much work, with all that is before it in the request; use fewer or simpler patterns, enums " +
  "and alternatives, or fewer tools"

export const makeWork = (): Work => {
  const automata = new Map<string, Automaton>()
  let spent = 0
  const refuseAt = (path: string, message: string): never => refuse({ kind: "invalid_request", path, message })
  const spend = (looks: number, path: string): void => {
    spent += looks
    if (spent > mostWork) refuseAt(path, tooMuch)
  }
  return {
    spend,
    spent: () => spent,
    automatonOf(pattern, path) {
      const automaton = automata.get(pattern) ?? ofPattern(
        pattern,
        (message) => refuseAt(path, message),
        (looks) => spend(looks, path)
      )
      automata.set(pattern, automaton)
      return automaton
    }
  }
}
