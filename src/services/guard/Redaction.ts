/**
 * Replaces parts of texts by placeholders, and puts them back into answers, also where a placeholder comes in pieces. Pure.
 *
 * **Details**
 *
 * A value has one placeholder in a request, such as `[EMAIL_1]`, so that a model can refer to it. The numbers follow the
 * order of the values: the same conversation is redacted in the same way each time, and equal redacted requests have one
 * cached answer, into which each caller's own values are put.
 *
 * **Gotchas**
 *
 * A placeholder that a caller writes is no value of the redaction: its number is left out.
 */
import type { Rule } from "../../domain/GuardRule.ts"
import { dataRules, labels } from "../../domain/GuardRule.ts"
import type { Span } from "./AttackPatterns.ts"

const placeholder = /\[[A-Z_]{1,24}_\d{1,6}\]/g

/** The texts of a request that look like placeholders. */
export const placeholdersIn = (text: string): ReadonlyArray<string> => text.match(placeholder) ?? []

/** A part of a text that a rule found. */
export interface Match extends Span {
  readonly rule: Rule
}

const isData = new Set<Rule>(dataRules)

/** Matches in their order; of those that overlap, the first, and of those that begin together, the longest. */
const separate = (matches: ReadonlyArray<Match>): ReadonlyArray<Match> => {
  let end = 0
  return matches.toSorted((one, two) => one.from - two.from || two.to - one.to).filter(({ from, to }) => {
    const isFree = from >= end
    if (isFree) end = to
    return isFree
  })
}

/** What was replaced in one request. */
export class Redaction {
  readonly #placeholders = new Map<string, string>()
  readonly #values = new Map<string, string>()
  readonly #counts = new Map<string, number>()
  readonly #reserved: ReadonlySet<string>
  /** The names of what was replaced. */
  readonly labels = new Set<string>()

  /** @param reserved placeholders that the caller wrote */
  constructor(reserved: ReadonlySet<string> = new Set()) {
    this.#reserved = reserved
  }

  /** Whether answers can contain what was replaced. */
  get isReversible(): boolean {
    return this.#values.size > 0
  }

  /** The text without the matches. */
  replace(text: string, matches: ReadonlyArray<Match>): string {
    let replaced = ""
    let from = 0
    for (const match of separate(matches)) {
      const label = labels[match.rule]
      this.labels.add(label)
      const value = text.slice(match.from, match.to)
      replaced += text.slice(from, match.from) +
        (isData.has(match.rule) ? this.placeholderOf(label, value) : `[${label}]`)
      from = match.to
    }
    return from === 0 ? text : replaced + text.slice(from)
  }

  /** The text without these values, wherever they are. */
  replaceValues(text: string, values: ReadonlyArray<readonly [value: string, label: string]>): string {
    let replaced = text
    for (const [value, label] of values) {
      if (replaced.includes(value)) replaced = replaced.replaceAll(value, () => this.placeholderOf(label, value))
    }
    return replaced
  }

  /** The placeholder of a value. */
  placeholderOf(label: string, value: string): string {
    const known = this.#placeholders.get(value)
    if (known !== undefined) return known
    let count = this.#counts.get(label) ?? 0
    let made: string
    do made = `[${label}_${++count}]`
    while (this.#reserved.has(made))
    this.#counts.set(label, count)
    this.#placeholders.set(value, made)
    this.#values.set(made, value)
    this.labels.add(label)
    return made
  }

  /** A complete text with the values in place of their placeholders. */
  restore(text: string, encode: Encode = asText): string {
    return text.includes("[")
      ? text.replace(placeholder, (found) => {
        const value = this.#values.get(found)
        return value === undefined ? found : encode(value)
      })
      : text
  }

  /** Where the end of a text begins that may be the begin of a placeholder; the length of the text if none may. */
  heldFrom(text: string): number {
    const from = text.lastIndexOf("[")
    if (from < 0) return text.length
    const end = text.slice(from)
    for (const made of this.#values.keys()) if (made.length > end.length && made.startsWith(end)) return from
    return text.length
  }
}

/** How a value is written where its placeholder was. */
export type Encode = (value: string) => string

export const asText: Encode = (value) => value

/** Within a string of JSON. */
export const asJson: Encode = (value) => JSON.stringify(value).slice(1, -1)

/** Restores a text that comes in pieces. What may be the begin of a placeholder waits for the next piece. */
export class Restoring {
  readonly #redaction: Redaction
  readonly #encode: Encode
  #held = ""

  constructor(redaction: Redaction, encode: Encode = asText) {
    this.#redaction = redaction
    this.#encode = encode
  }

  push(piece: string): string {
    const text = this.#held + piece
    const from = this.#redaction.heldFrom(text)
    this.#held = text.slice(from)
    return this.#redaction.restore(text.slice(0, from), this.#encode)
  }

  /** The rest. */
  end(): string {
    const rest = this.#held
    this.#held = ""
    return rest
  }
}
