/**
 * Limits the number of ways in which the beginning of an answer can be parsed at the same time.
 *
 * **Details**
 *
 * While a text is parsed, alternatives that are objects or lists stay open until the text decides between them. If such
 * alternatives are nested, the open parses multiply, in a recursive schema without limit: llama.cpp would use all memory
 * of the machine. Alternatives are distinguishable if their first properties are required and have different names, or the
 * same name and no common value.
 */
import type { Located } from "./JsonSchemaKeywords.ts"
import { refuseAt } from "./JsonSchemaKeywords.ts"

/** The most parses of one text. */
const mostReadings = 256

/** The first property of an alternative, if it distinguishes the alternative. */
export interface Mark {
  readonly name: string
  /** JSON texts of its possible values; undefined for any. */
  readonly values: ReadonlySet<string> | undefined
}

const areApart = (a: Mark | undefined, b: Mark | undefined): boolean => {
  if (a === undefined || b === undefined) return false
  return a.name !== b.name ||
    (a.values !== undefined && b.values !== undefined && [...a.values].every((value) => !b.values!.has(value)))
}

/**
 * The most alternatives that can have the same beginning.
 *
 * @param marks one per alternative that is an object; undefined if it has no distinguishing property
 * @param lists how many alternatives are lists
 */
export const ambiguityOf = (marks: ReadonlyArray<Mark | undefined>, lists: number): number => {
  const alike = marks.filter((mark, index) => marks.some((other, at) => at !== index && !areApart(mark, other)))
  return Math.max(1, alike.length, lists)
}

/** Tracks how the values of a schema are nested. */
export interface Readings {
  /** Values entered before `leave` are inside this value. */
  readonly enter: (key: string, schema: Located) => void
  readonly leave: (readings: number) => void
  /** Refuses a schema whose ambiguity exceeds the limit. */
  readonly check: () => void
}

interface Value {
  readonly schema: Located
  readonly inner: Set<string>
  readings: number
}

export const makeAmbiguityBound = (): Readings => {
  const values = new Map<string, Value>()
  const open: Array<Value> = []
  const counted = new Map<string, number>()

  const tooMany = ({ schema }: Value): never =>
    refuseAt(
      schema.path,
      "has nested alternatives with the same beginning; make the first property of each alternative required, with a " +
        "const that distinguishes it"
    )

  /** The parses of a value with its nested values. */
  const count = (key: string, path: ReadonlyArray<string>): number => {
    const value = values.get(key)!
    const known = counted.get(key)
    if (known !== undefined) return known
    const circle = path.slice(path.indexOf(key))
    if (path.includes(key)) return circle.some((one) => values.get(one)!.readings > 1) ? tooMany(value) : 1
    const inner = [...value.inner].map((one) => count(one, [...path, key]))
    const all = value.readings * Math.max(1, ...inner)
    if (all > mostReadings) tooMany(value)
    counted.set(key, all)
    return all
  }

  return {
    enter(key, schema) {
      open.at(-1)?.inner.add(key)
      const value = values.get(key) ?? { schema, inner: new Set(), readings: 1 }
      values.set(key, value)
      open.push(value)
    },
    leave(readings) {
      const value = open.pop()!
      value.readings = Math.max(value.readings, readings)
    },
    check() {
      for (const key of values.keys()) count(key, [])
    }
  }
}
