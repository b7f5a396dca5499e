/**
 * What the encodings of spans share: the names of attributes, the numbers of OTLP, and what they keep of frequent values.
 *
 * **Details**
 *
 * Most texts of an attribute are names of the configuration and words of this program. Their encodings are kept, the first ones of
 * each attribute, and are then copied.
 */
import type { Names } from "../../services/settings/TelemetrySettings.ts"
import type { Kind } from "./RecordedSpans.ts"

/** What attributes are by the older names. */
const olderNames: Readonly<Record<string, string>> = {
  "gen_ai.provider.name": "gen_ai.system",
  "gen_ai.usage.cache_write.input_tokens": "gen_ai.usage.cache_creation.input_tokens"
}

/** The names of an attribute. */
export const namesOf = (name: string, names: Names): ReadonlyArray<string> => {
  const older = names === "latest" ? undefined : olderNames[name]
  if (older === undefined) return [name]
  return names === "both" ? [older, name] : [older]
}

/** The numbers of OTLP. */
export const kinds: Readonly<Record<Kind, number>> = { internal: 1, server: 2, client: 3 }
export const failed = 2

/** What is kept at most: names, and texts of one attribute. */
const mostNames = 1_000
const mostTexts = 64
const longestText = 128

/** What finds a value: itself, or the text of a list of names; undefined: it is not kept. */
const keyOf = (value: unknown): string | undefined => {
  if (typeof value === "string") return value.length <= longestText ? value : undefined
  if (!Array.isArray(value) || !value.every((one) => typeof one === "string")) return undefined
  const key = `\0${value.join("\0")}`
  return key.length <= longestText ? key : undefined
}

/** Keeps what is made of the first names. */
export const keptNames = <A>(make: (name: string) => A): (name: string) => A => {
  const known = new Map<string, A>()
  return (name) => {
    const found = known.get(name)
    if (found !== undefined) return found
    const made = make(name)
    if (known.size < mostNames) known.set(name, made)
    return made
  }
}

/** Keeps the encodings of the first texts of one attribute. */
export class KeptTexts<A> {
  readonly #encode: (value: unknown) => A
  readonly #known = new Map<string, A>()

  constructor(encode: (value: unknown) => A) {
    this.#encode = encode
  }

  /** Undefined: it is not kept, and no other is from now on. */
  of(value: unknown): A | undefined {
    const key = keyOf(value)
    if (key === undefined) return undefined
    const known = this.#known.get(key)
    if (known !== undefined) return known
    if (this.#known.size >= mostTexts) return undefined
    const made = this.#encode(value)
    this.#known.set(key, made)
    return made
  }
}
