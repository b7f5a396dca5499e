/** What one rendering of a chat template may take. */
import type { Value } from "./JinjaValues.ts"
import { isList, isMap, isText } from "./JinjaValues.ts"

/** Evaluated nodes and copied elements of one rendering. Published templates take up to 170 for each message. */
export const mostSteps = 3_000_000
/** Characters of any text that a template makes, the prompt among them. */
export const mostCharacters = 16_000_000
/** A template did more work than one may. */
export class OverBudget extends Error {}

/** Counts what one rendering does. */
export class Budget {
  private steps = 0

  spend(steps: number): void {
    this.steps += steps
    if (this.steps > mostSteps) throw new OverBudget(`it takes more than ${mostSteps} steps`)
  }

  /** A text of so many characters is about to be made. */
  text(characters: number): void {
    if (characters > mostCharacters) throw new OverBudget(`it makes a text of more than ${mostCharacters} characters`)
    this.spend(Math.ceil(characters / 1000))
  }

  /** What it takes to print a value, which may hold the same list many times. */
  print(value: Value): void {
    this.spend(1)
    if (isText(value)) this.text(value.value.length)
    else if (isList(value)) { for (const one of value.value) this.print(one) }
    else if (isMap(value)) { for (const one of value.value.values()) this.print(one) }
  }
}
