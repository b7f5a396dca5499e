/**
 * The limit of the work that building one grammar may take, over all of its schemas.
 *
 * **Details**
 *
 * A grammar is built on the engine's thread, where all answers wait meanwhile, from untrusted schemas: each part can be
 * small and the product enormous. Every step whose number can multiply is counted, and one limit applies to the grammar
 * with all of its tools. A repeated pattern costs nothing, since its automaton is kept.
 */
import { refuse } from "../../domain/Job.ts"
import { ofPattern } from "./PatternAutomaton.ts"
import type { Automaton } from "./TextAutomaton.ts"

/** A step is one transition of an automaton for one piece of the alphabet, or similar work. The limit takes some tenths of a second. */
export const mostSteps = 5_000_000

export interface Budget {
  /** Counts steps; refuses the schema at this path when the limit is exceeded. */
  readonly spend: (steps: number, path: string) => void
  /** The automaton of the texts that match a pattern. */
  readonly automatonOf: (pattern: string, path: string) => Automaton
  readonly spent: () => number
}

const tooMuch =
  "takes too much work, together with the schemas before it in the request; use fewer or simpler patterns, enums " +
  "and alternatives, or fewer tools"

export const makeBudget = (): Budget => {
  const automata = new Map<string, Automaton>()
  let spent = 0
  const refuseAt = (path: string, message: string): never => refuse({ kind: "invalid_request", path, message })
  const spend = (steps: number, path: string): void => {
    spent += steps
    if (spent > mostSteps) refuseAt(path, tooMuch)
  }
  return {
    spend,
    spent: () => spent,
    automatonOf(pattern, path) {
      const automaton = automata.get(pattern) ?? ofPattern(
        pattern,
        (message) => refuseAt(path, message),
        (steps) => spend(steps, path)
      )
      automata.set(pattern, automaton)
      return automaton
    }
  }
}
