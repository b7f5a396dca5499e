/**
 * Whether two questions may have the same answer, by rules: what makes them different although they are nearly the same
 * text, and so have nearly the same embedding. Pure.
 *
 * **Details**
 *
 * The facts of a question are its numbers with what they count, names (words with a capital letter), quotations, code,
 * negations, and words of time, place, quantity, direction, person, unit and their like (`QuestionWords`), in their order.
 * Questions with different facts never share an answer. Nor do questions whose other words
 *
 * - are the same in another order ("a dog bites a man", "a man bites a dog"),
 * - are those of the other question and more ("list files", "list hidden files"), or
 * - differ in one word on each side ("reset a password", "guess a password").
 *
 * **Gotchas**
 *
 * The rules are for English. In other languages with Latin letters they reject more, but know only negations; questions in
 * other letters have no facts, and are not compared. A name in lower case is a word like any other.
 */
import { determiners, facts, neutral, numbers, requests, synonyms } from "./QuestionWords.ts"

/** What the rules see in a question. */
export interface Facts {
  /** Equal for questions that may have the same answer. */
  readonly text: string
  /** Hashes of the other words, in their order. */
  readonly words: Uint32Array
}

/** FNV-1a, 32 bits. */
const hashOf = (text: string): number => {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  return hash >>> 0
}

/** Code, quotations, and everything else up to the next space. */
const pieces =
  /```[\s\S]*?```|`[^`]*`|"[^"]*"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|(?<![\p{L}\p{N}])'[^'\n]+'(?!\p{L})|[^\s"`“”„«»]+/gu

const isQuoted = (piece: string): boolean => /^["`“„«']/.test(piece)

const otherLetters = /(?!\p{Script=Latin})\p{L}/u

/** Without the punctuation around a word; signs of numbers, currencies and code remain. */
const bare = (piece: string): string =>
  piece.replace(/^[([{,.;:!?…'-]+(?=[\p{L}])|^[([{,;:!?…']+/u, "").replace(/[)\]},.;:!?…']+$/u, "")

const endsSentence = (piece: string): boolean => /[.!?:]['")\]]*$/.test(piece)

/** Letters, and at most apostrophes and hyphens between them. */
const isPlain = (word: string): boolean => /^\p{L}+(?:['-]\p{L}+)*$/u.test(word)

const hasInnerCapital = (word: string): boolean => /^.+\p{Lu}/u.test(word)

const isCapitalised = (word: string): boolean => /^\p{Lu}/u.test(word)

const contractions: ReadonlyMap<string, ReadonlyArray<string>> = new Map([
  ["can't", ["not"]],
  ["cant", ["not"]],
  ["won't", ["will", "not"]],
  ["shan't", ["will", "not"]],
  ["dont", ["not"]],
  ["doesnt", ["not"]],
  ["cannot", ["not"]]
])

/** The words of a word with an apostrophe. */
const uncontracted = (word: string): ReadonlyArray<string> => {
  const known = contractions.get(word)
  if (known !== undefined) return known
  if (word.endsWith("n't")) return [word.slice(0, -3), "not"]
  if (word.endsWith("'ll")) return [word.slice(0, -3), "will"]
  return [word.replace(/'(?:s|m|re|ve|d)?$/, "")]
}

/** Without the endings of plurals and of the third person. */
const stem = (word: string): string => {
  if (word.length > 4 && word.endsWith("ies")) return `${word.slice(0, -3)}y`
  if (word.length > 4 && /(?:ch|sh|x|ss)es$/.test(word)) return word.slice(0, -2)
  return word.length > 3 && word.endsWith("s") && !word.endsWith("ss") ? word.slice(0, -1) : word
}

const withoutSeparators = (number: string): string =>
  /^\D*\d{1,3}(?:,\d{3})+(?:\.\d+)?\D*$/.test(number) ? number.replaceAll(",", "") : number

/** Reads the words of a question in their order. */
class Reading {
  readonly #facts: Array<string> = []
  readonly #words: Array<string> = []
  #startsSentence = true
  /** The next word is what a number counts. */
  #counts = false
  /** A "to", or its like, that the next word makes a direction. */
  #direction = false
  /** A question begins with "can", and not as a polite request. */
  #can = false

  /** @param piece a word with its punctuation, a quotation or code */
  add(piece: string): void {
    if (isQuoted(piece)) this.#fact(piece.slice(1, -1), "\"")
    else {
      const word = bare(piece)
      if (word === "") this.#symbols(piece)
      else this.#piece(word)
    }
    this.#startsSentence = endsSentence(piece)
  }

  end(): Facts {
    return { text: this.#facts.join("\n"), words: Uint32Array.from(this.#words, hashOf) }
  }

  #fact(text: string, kind = ""): void {
    if (this.#direction) this.#facts.push("to")
    if (this.#can) this.#facts.push("can")
    this.#direction = this.#can = false
    this.#facts.push(kind + text)
  }

  /** Signs such as `<` are facts; punctuation is none. */
  #symbols(piece: string): void {
    if (/[^\p{P}\s]|[%&*/@#\\]/u.test(piece)) this.#fact(piece)
  }

  #piece(word: string): void {
    const counts = this.#counts
    this.#counts = false
    if (/\p{N}/u.test(word)) {
      this.#fact(withoutSeparators(word.toLowerCase()), "#")
      this.#counts = true
    } else if (!isPlain(word) || hasInnerCapital(word)) this.#fact(word.replace(/'s$/, ""), "=")
    else this.#plain(word, counts)
  }

  #plain(given: string, counts: boolean): void {
    const isName = isCapitalised(given) && !this.#isCommon(given.toLowerCase())
    for (const part of given.toLowerCase().split("-")) {
      for (const word of uncontracted(part)) {
        if (isName) this.#fact(stem(word), "=")
        else this.#word(word, counts)
      }
    }
  }

  /** Whether a capital letter says nothing: a word that every sentence may begin with. */
  #isCommon(word: string): boolean {
    const [first = ""] = uncontracted(word)
    const isKnown = neutral.has(first) || facts.has(first) || numbers.has(first)
    return isKnown || (this.#startsSentence && requests.has(first))
  }

  #word(word: string, counts: boolean): void {
    if (word === "") return
    const number = numbers.get(word)
    const fact = facts.get(word)
    if (number !== undefined) {
      this.#fact(number, "#")
      this.#counts = true
    } else if (word === "to" || word === "towards") this.#direction = true
    else if (fact !== undefined) this.#fact(fact)
    else if (neutral.has(word)) this.#neutral(word)
    else this.#content(stem(word), counts)
  }

  #neutral(word: string): void {
    if (this.#can && word !== "you") this.#facts.push("can")
    this.#can = this.#startsSentence && (word === "can" || word === "could")
    if (this.#direction && determiners.has(word)) this.#facts.push("to")
    this.#direction = false
  }

  #content(word: string, counts: boolean): void {
    if (this.#can) this.#facts.push("can")
    this.#direction = this.#can = false
    const known = synonyms.get(word) ?? word
    if (counts) this.#fact(known)
    else this.#words.push(known)
  }
}

/** Undefined for a question in letters that the rules do not know. */
export const factsOf = (question: string): Facts | undefined => {
  if (otherLetters.test(question)) return undefined
  const reading = new Reading()
  for (const [piece] of question.replaceAll("’", "'").matchAll(pieces)) reading.add(piece)
  return reading.end()
}

const isEqual = (one: Uint32Array, other: Uint32Array): boolean =>
  one.length === other.length && one.every((word, index) => word === other[index])

/** The number of words that the other does not have. */
const lacking = (words: Uint32Array, other: Uint32Array): number => {
  const left = Array.from(other)
  let count = 0
  for (const word of words) {
    const index = left.indexOf(word)
    if (index < 0) count++
    else left.splice(index, 1)
  }
  return count
}

/** Whether the words of two questions with the same facts let them have the same answer. */
export const wordsAgree = (one: Uint32Array, other: Uint32Array): boolean => {
  if (isEqual(one, other)) return true
  const onlyOne = lacking(one, other)
  const onlyOther = lacking(other, one)
  return onlyOne > 0 && onlyOther > 0 && onlyOne + onlyOther > 2
}
