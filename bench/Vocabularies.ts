/**
 * Vocabularies of a given size, in GPT-2's letters for bytes: the 256 bytes, and pseudo-random words, numbers and punctuation
 * with and without a space before them, about as long as those of real models.
 */
import { byteOfLetter } from "../src/workers/job/TextJoiner.ts"

const letterOfByte = new Map([...byteOfLetter].map(([letter, byte]) => [byte, letter]))
const lettersOf = (text: string): string => Array.from(Buffer.from(text), (byte) => letterOfByte.get(byte)!).join("")

const letters = "eeeeetttaaaooinnsshrdlcumwfgypbvkjxqz"
const punctuation = "\",:{}[].;()=<>/\\'-_+*&!?#"
const others = "äéñжшд的是人日本한국"

/** Of a real tokenizer's tokens, these shares have such texts. */
const wordOf = (random: () => number): string => {
  const kind = random()
  const alphabet = kind < 0.75 ? letters : kind < 0.85 ? others : punctuation
  const length = alphabet === letters ? 2 + Math.floor(random() * 9) : 1 + Math.floor(random() * 4)
  const text = Array.from({ length }, () => alphabet[Math.floor(random() * alphabet.length)]!).join("")
  const first = random()
  return first < 0.5 ? ` ${text}` : first < 0.65 ? text[0]!.toUpperCase() + text.slice(1) : text
}

/** @param random numbers from 0 to below 1 */
export const make = (size: number, random: () => number): ReadonlyArray<string> => {
  const tokens = new Set(Array.from({ length: 256 }, (_, byte) => letterOfByte.get(byte)!))
  while (tokens.size < size) tokens.add(lettersOf(wordOf(random)))
  return [...tokens]
}
