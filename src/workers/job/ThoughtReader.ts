/**
 * Separates a model's thoughts from its answer, however the text is split into pieces.
 *
 * **Details**
 *
 * A pair of markers counts at the beginning of an answer only: a later one is text, as in an answer about such markers. White
 * space around thoughts is left out, and so is the beginning of a marker where the answer is cut. Thoughts that do not end are thoughts up to the end of the answer. The parts, joined, do
 * not depend on the pieces.
 */
import { ChannelReader } from "./ChannelReader.ts"
import type { Pair, ThoughtPart, ThoughtReader, Thoughts } from "./ThoughtSyntax.ts"
import { heldLength } from "./ThoughtSyntax.ts"

/** `begun` thoughts have had a character other than white space; `ended` is after them, before the text. */
type State = "before" | "within" | "begun" | "ended" | "text"

/** Reads thoughts between a pair of markers. */
class PairReader implements ThoughtReader {
  readonly #pair: Pair
  #state: State
  #rest = ""
  #parts: Array<ThoughtPart> = []

  constructor(pair: Pair, state: "before" | "within" | "text") {
    this.#pair = pair
    this.#state = state
  }

  isWithin(): boolean {
    return this.#state === "within" || this.#state === "begun"
  }

  push(text: string): ReadonlyArray<ThoughtPart> {
    this.#rest += text
    this.#parts = []
    while (this.#rest !== "" && this.#step());
    return this.#parts
  }

  flush(isCut: boolean): ReadonlyArray<ThoughtPart> {
    this.#parts = []
    const held = isCut ? this.#heldLength() : 0
    const length = this.#rest.length - held
    if (this.isWithin()) this.#take("thoughts", this.#rest.slice(0, length).trimEnd().length)
    else this.#take("text", length)
    this.#take("skipped", this.#rest.length)
    return this.#parts
  }

  /** Characters at the end that a marker may begin with. */
  #heldLength(): number {
    if (this.isWithin()) return heldLength(this.#rest, [this.#pair.end])
    return this.#state === "before" && this.#rest.trimStart() !== "" ? this.#rest.length : 0
  }

  #take(type: "text" | "thoughts" | "skipped", length: number): void {
    if (length > 0) this.#parts.push({ type, text: this.#rest.slice(0, length) })
    this.#rest = this.#rest.slice(length)
  }

  /** Skips white space at the beginning; whether something else follows. */
  #skipSpace(): boolean {
    this.#take("skipped", this.#rest.length - this.#rest.trimStart().length)
    return this.#rest !== ""
  }

  /** True if the next step can run. */
  #step(): boolean {
    switch (this.#state) {
      case "before":
        return this.#before()
      case "within":
        if (!this.#skipSpace()) return false
        return this.#within()
      case "begun":
        return this.#within()
      case "ended":
        if (!this.#skipSpace()) return false
        this.#state = "text"
        return true
      case "text":
        this.#take("text", this.#rest.length)
        return false
    }
  }

  #before(): boolean {
    const { start } = this.#pair
    const space = this.#rest.length - this.#rest.trimStart().length
    const found = this.#rest.slice(space)
    if (found.startsWith(start)) {
      this.#take("skipped", space + start.length)
      this.#state = "within"
      return true
    }
    if (start.startsWith(found)) return false
    this.#state = "text"
    return true
  }

  #within(): boolean {
    const { end } = this.#pair
    const at = this.#rest.indexOf(end)
    if (at >= 0) {
      this.#take("thoughts", this.#rest.slice(0, at).trimEnd().length)
      this.#take("skipped", this.#rest.indexOf(end) + end.length)
      this.#state = "ended"
      return true
    }
    const sure = this.#rest.slice(0, this.#rest.length - heldLength(this.#rest, [end])).trimEnd().length
    if (sure > 0) this.#state = "begun"
    this.#take("thoughts", sure)
    return false
  }
}

/** @param hasTools whether a message to a function is a call */
export const makeThoughtReader = ({ begins, style }: Thoughts, hasTools: boolean): ThoughtReader =>
  style.type === "pair"
    ? new PairReader(style.pair, begins)
    : new ChannelReader(begins === "text" ? "text" : undefined, hasTools)
