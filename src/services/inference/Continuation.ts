/**
 * Aligns the text of a deployment that continues an interrupted answer with the text that was sent. Pure.
 *
 * **Details**
 *
 * A model that is asked to continue may go on, start over, repeat words or change white space. The text is held back until it
 * is certain where it follows what was sent; then the rest is passed on. Where that cannot be certain, the text diverges:
 * none of it is passed on. White space counts for nothing while texts are compared, and is passed on once.
 *
 * `exact`: the engine generates after the sent text itself, so that its text follows. `prefix`: the provider reads the
 * text as the beginning of its answer, unless the text begins again. `instructed`: the model was asked to repeat the last
 * words (`Generation.lastWordsOf`) and go on; its text follows if it repeats them, if it starts over, or if only a
 * continuation begins like that.
 */

/** How the next deployment reads the text so far. */
export type Reading = "exact" | "prefix" | "instructed"

/** Characters without white space that a repetition has at least, if it cannot be chance. */
const fewestRepeated = 12

/** Characters without white space that a text has at least, if its repetition means that the answer starts over. */
const fewestOfStart = 24

/** Characters without white space at the end of the text so far that a repetition may begin in. */
const mostRepeated = 2000

const isSpace = (character: string): boolean => character.trim() === ""

const isHighSurrogate = (text: string, index: number): boolean => (text.charCodeAt(index) & 0xfc00) === 0xd800
const isLowSurrogate = (text: string, index: number): boolean => (text.charCodeAt(index) & 0xfc00) === 0xdc00

/** The text that the next deployment gets: without white space at its end, and without half a character. */
export const prefixOf = (soFar: string): string => {
  const last = soFar.length - 1
  return (last >= 0 && isHighSurrogate(soFar, last) ? soFar.slice(0, last) : soFar).trimEnd()
}

/** Begins that only a continuation has: of a sentence that has begun before. */
const goesOn = /^(?: \S|[,;:!?)\]}]|\.(?!\w))/u

/** A place in the text so far from which on the new text is the same, up to its end. */
interface Repetition {
  /** Characters without white space. */
  readonly length: number
  /** Where the new text goes on. */
  readonly end: number
  readonly isWord: boolean
  /** The text so far begins with it too: the new text may start over. */
  readonly isBegin: boolean
}

/** Whether a repetition could be another one, so that it is not certain where the text goes on. */
const isAmbiguous = (best: Repetition, others: ReadonlyArray<Repetition>): boolean =>
  others.some((other) =>
    other !== best && (other.length >= fewestRepeated || (other.isWord && best.length < fewestOfStart))
  )

/** The text so far, and which of its places a new text may repeat. */
class Sent {
  /** Without white space. */
  readonly solid: string
  /** What precedes the prefix's end: white space and half a character, which the next deployment generates again. */
  readonly tail: string
  /** White space at the end. */
  readonly space: string
  readonly beginsWithSpace: boolean
  readonly #wordStarts = new Set<number>()

  constructor(text: string) {
    this.tail = text.slice(prefixOf(text).length)
    this.space = text.slice(text.trimEnd().length)
    this.beginsWithSpace = text !== text.trimStart()
    let solid = ""
    let wasSpace = true
    for (const unit of text.split("")) {
      const space = isSpace(unit)
      if (wasSpace && !space) this.#wordStarts.add(solid.length)
      if (!space) solid += unit
      wasSpace = space
    }
    this.solid = solid
  }

  /** Whether a text begins as only a continuation does. */
  goesOnWith(text: string): boolean {
    const { space } = this
    return space === "" ? goesOn.test(text) : !space.includes("\n") && text.startsWith(space)
  }

  /** Whether a repetition of the whole cannot be a part of the text: nothing separates the two. */
  get isManyWords(): boolean {
    return this.#wordStarts.size > 1 && this.solid.length >= fewestRepeated
  }

  isWordStart(place: number): boolean {
    return this.#wordStarts.has(place)
  }

  /** @param reading a prefix is not repeated in part */
  places(reading: Reading): ReadonlyArray<number> {
    const { solid } = this
    if (reading === "exact" || solid === "") return []
    const places = [0]
    if (reading === "prefix") return places
    for (let place = Math.max(1, solid.length - mostRepeated); place < solid.length; place++) {
      if (!isLowSurrogate(solid, place)) places.push(place)
    }
    return places
  }
}

/** Aligns the text of one attempt. */
export class Continuation {
  readonly #sent: Sent
  readonly #reading: Reading
  /** Places of the text so far that the new text repeats until now. */
  #places: ReadonlyArray<number>
  readonly #repetitions: Array<Repetition> = []
  #held = ""
  /** Characters of the held text without white space. */
  #solid = 0
  #state: "deciding" | "joining" | "passing" | "diverged" = "deciding"
  /** What was sent already and comes again. */
  #left: string
  #startsOver = false

  /** @param soFar the text that was sent, with the caller's own beginning of it */
  constructor(soFar: string, reading: Reading) {
    this.#sent = new Sent(soFar)
    this.#reading = reading
    this.#left = this.#sent.tail
    this.#places = this.#sent.places(reading)
    if (this.#places.length === 0) this.#state = "joining"
  }

  /** The text does not follow what was sent, or it is not certain how. */
  get hasDiverged(): boolean {
    return this.#state === "diverged"
  }

  /** Whether it is not known yet how the text follows. */
  get isDeciding(): boolean {
    return this.#state === "deciding"
  }

  /** The text began again, so that it is the whole answer. */
  get startsOver(): boolean {
    return this.#startsOver
  }

  /** The text to be passed on now. */
  push(text: string): string {
    if (this.#state !== "deciding") return this.#pass(text)
    const from = this.#held.length
    this.#held += text
    for (let index = from; index < this.#held.length; index++) {
      if (!isSpace(this.#held[index]!)) this.#compare(index)
      if (this.#places.length === 0) break
    }
    // What follows a period tells whether a sentence ends with it.
    return this.#places.length === 0 && this.#held !== "." ? this.#decide(false) : ""
  }

  /** The text to be passed on at the end. */
  end(): string {
    if (this.#state === "deciding") return this.#decide(true)
    if (this.#state === "joining" && isHalf(this.#left)) this.#state = "diverged"
    return ""
  }

  #compare(index: number): void {
    const { solid } = this.#sent
    const unit = this.#held[index]
    const at = this.#solid++
    const places = this.#places.filter((place) => solid[place + at] === unit)
    this.#places = places.filter((place) => place + at + 1 < solid.length)
    const [done] = places.slice(this.#places.length)
    if (done === undefined) return
    this.#repetitions.push({
      length: solid.length - done,
      end: index + 1,
      isWord: this.#sent.isWordStart(done),
      isBegin: this.#places[0] === 0
    })
  }

  #decide(isEnd: boolean): string {
    const held = this.#held
    if (this.#reading === "prefix") return this.#decidePrefix(isEnd)
    const [best] = this.#repetitions.toSorted((one, other) => other.length - one.length)
    if (best !== undefined && this.#isRepetition(best)) return this.#decideRepetition(best)
    const isNothing = isEnd && held.trim() === ""
    const isRepeated = this.#repetitions.some(({ isWord }) => isWord)
    return isNothing || (this.#sent.goesOnWith(held) && !isRepeated) ? this.#join(held) : this.#diverge()
  }

  #decideRepetition(best: Repetition): string {
    const isCertain = this.#isBegin(best) && !isAmbiguous(best, this.#repetitions)
    return isCertain ? this.#follow(best) : this.#diverge()
  }

  /** Whether the text does not go on before it repeats something. Models that think begin with line breaks. */
  #isBegin({ length }: Repetition): boolean {
    const held = this.#held
    if (this.#sent.goesOnWith(held)) return false
    return !this.#isSeparate(held) || (held.startsWith("\n") && length >= fewestOfStart)
  }

  /** Whether white space is before the text that the text so far does not begin with: the text may repeat itself. */
  #isSeparate(text: string): boolean {
    return !this.#sent.beginsWithSpace && isSpace(text[0] ?? "x")
  }

  #isRepetition({ isBegin, length }: Repetition): boolean {
    return length === this.#sent.solid.length || (length >= fewestRepeated && !isBegin)
  }

  /** A text that was read as the beginning goes on, unless it begins again without anything between. */
  #decidePrefix(isEnd: boolean): string {
    const held = this.#held
    const [whole] = this.#repetitions
    if (this.#isSeparate(held)) return this.#join(held)
    if (whole !== undefined) return this.#sent.isManyWords ? this.#follow(whole) : this.#diverge()
    return isEnd && this.#solid >= fewestRepeated && this.#places.length > 0 ? this.#diverge() : this.#join(held)
  }

  /** The text goes on after a repetition. */
  #follow({ end, length }: Repetition): string {
    this.#startsOver = length === this.#sent.solid.length
    this.#left = this.#sent.space
    return this.#join(this.#held.slice(end))
  }

  #join(text: string): string {
    this.#held = ""
    this.#state = "joining"
    return this.#pass(text)
  }

  #diverge(): string {
    this.#held = ""
    this.#state = "diverged"
    return ""
  }

  #pass(text: string): string {
    if (this.#state === "diverged") return ""
    if (this.#state === "passing") return text
    let from = 0
    while (from < text.length && this.#left !== "" && text[from] === this.#left[0]) {
      this.#left = this.#left.slice(1)
      from++
    }
    if (from === text.length && this.#left !== "") return ""
    return this.#left === "" ? this.#passRest(text.slice(from)) : this.#passOther(text.slice(from))
  }

  #passRest(text: string): string {
    this.#state = "passing"
    return text
  }

  /** The white space at the joint is another one: what was sent stays. */
  #passOther(text: string): string {
    if (isHalf(this.#left)) return this.#diverge()
    if (this.#reading === "exact") return this.#passRest(text)
    const rest = text.trimStart()
    if (rest === "") return ""
    return this.#passRest(rest)
  }
}

/** Whether half a character is left, whose other half has to follow. */
const isHalf = (left: string): boolean => left !== "" && isHighSurrogate(left, left.length - 1)
