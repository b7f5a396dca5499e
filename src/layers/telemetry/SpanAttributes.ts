/**
 * What the encodings of spans share: the names of attributes, the numbers of OTLP, and what they keep of frequent values.
 *
 * **Details**
 *
 * Most values of an attribute are names of the configuration, words of this program and small numbers. Their encodings are kept, the
 * first ones of each attribute: most attributes of a span are then copied.
 */
import type { Names } from "../../services/settings/TelemetrySettings.ts"
import type { Kind } from "./RecordedSpans.ts"

/** What attributes are by the older names. */
const olderNames: Readonly<Record<string, string>> = {
  "gen_ai.provider.name": "gen_ai.system",
  "gen_ai.usage.cache_write.input_tokens": "gen_ai.usage.cache_creation.input_tokens"
}

/** The names of an attribute. */
const namesOf = (name: string, names: Names): ReadonlyArray<string> => {
  const older = names === "latest" ? undefined : olderNames[name]
  if (older === undefined) return [name]
  return names === "both" ? [older, name] : [older]
}

/** The numbers of OTLP. */
export const kinds: Readonly<Record<Kind, number>> = { internal: 1, server: 2, client: 3 }
export const failed = 2

/** What is kept at most: names, and values of one attribute. */
const mostNames = 1_000
const mostValues = 64
const longestValue = 128

/** What finds a value; undefined: it is not kept. Lists of texts are those of names. */
const keyOf = (value: unknown): unknown => {
  if (typeof value === "string") return value.length <= longestValue ? value : undefined
  if (typeof value !== "object") return value
  if (!Array.isArray(value) || !value.every((one) => typeof one === "string")) return undefined
  const key = `\0${value.join("\0")}`
  return key.length <= longestValue ? key : undefined
}

/** The encodings of one attribute. */
class Attribute<A> {
  readonly #names: ReadonlyArray<string>
  readonly #encode: (names: ReadonlyArray<string>, value: unknown) => A
  readonly #known = new Map<unknown, A>()

  constructor(names: ReadonlyArray<string>, encode: (names: ReadonlyArray<string>, value: unknown) => A) {
    this.#names = names
    this.#encode = encode
  }

  of(value: unknown): A {
    const key = keyOf(value)
    const known = key === undefined ? undefined : this.#known.get(key)
    if (known !== undefined) return known
    const made = this.#encode(this.#names, value)
    if (key !== undefined && this.#known.size < mostValues) this.#known.set(key, made)
    return made
  }
}

/** The encodings of attributes. */
export class Attributes<A> {
  readonly #names: Names
  readonly #encode: (names: ReadonlyArray<string>, value: unknown) => A
  readonly #attributes = new Map<string, Attribute<A>>()

  /** @param encode an attribute under all of its names */
  constructor(names: Names, encode: (names: ReadonlyArray<string>, value: unknown) => A) {
    this.#names = names
    this.#encode = encode
  }

  of(name: string, value: unknown): A {
    const found = this.#attributes.get(name)
    if (found !== undefined) return found.of(value)
    const made = new Attribute(namesOf(name, this.#names), this.#encode)
    if (this.#attributes.size < mostNames) this.#attributes.set(name, made)
    return made.of(value)
  }
}

/** The encodings of the names of spans. */
export const keptNames = <A>(encode: (name: string) => A): (name: string) => A => {
  const known = new Map<string, A>()
  return (name) => {
    const found = known.get(name)
    if (found !== undefined) return found
    const made = encode(name)
    if (known.size < mostNames) known.set(name, made)
    return made
  }
}
