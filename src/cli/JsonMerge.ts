/**
 * Sets values in JSON with comments and trailing commas, as editors write it: comments, order and layout of the rest stay.
 *
 * **Details**
 *
 * Objects are merged member by member; any other value replaces the one before it.
 */
import type { Json, JsonObject } from "./AgentSettings.ts"

interface Member {
  readonly name: string
  readonly value: Node
}

interface Node {
  readonly start: number
  readonly end: number
  /** Undefined for a value that is no object. */
  readonly members?: ReadonlyArray<Member>
  /** Of an object: after its last member, with the comma and the comments that follow. */
  readonly tail?: number
  readonly hasTrailingComma?: boolean
}

/** White space and comments. */
const gap = /(?:[\s\uFEFF]|\/\/[^\n]*|\/\*[^]*?\*\/)*/y
const text = /"(?:[^"\\\n]|\\.)*"/y
const scalar = /[-+\w.]+/y

/** Reads where values are in a text. Throws a `SyntaxError` for what is no JSON. */
class Reader {
  readonly #source: string
  #at = 0

  constructor(source: string) {
    this.#source = source
  }

  /** The whole text. */
  document(): Node {
    this.#skip()
    const node = this.#value()
    this.#skip()
    if (this.#at < this.#source.length) this.#fail("the end of the file")
    return node
  }

  #fail(expected: string): never {
    const line = this.#source.slice(0, this.#at).split("\n").length
    throw new SyntaxError(`line ${line}: expected ${expected}`)
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#source)?.[0]
    if (found !== undefined) this.#at += found.length
    return found
  }

  #skip(): void {
    this.#match(gap)
  }

  #takes(character: string): boolean {
    if (this.#source[this.#at] !== character) return false
    this.#at++
    return true
  }

  #value(): Node {
    const start = this.#at
    if (this.#takes("{")) return this.#object(start)
    if (this.#takes("[")) this.#array()
    else if (this.#match(text) === undefined && this.#match(scalar) === undefined) this.#fail("a value")
    return { start, end: this.#at }
  }

  #array(): void {
    this.#skip()
    while (!this.#takes("]")) {
      this.#value()
      this.#skip()
      if (!this.#takes(",") && this.#source[this.#at] !== "]") this.#fail("a comma or ]")
      this.#skip()
    }
  }

  #member(): Member {
    const name = this.#match(text) ?? this.#fail("a name in quotes")
    this.#skip()
    if (!this.#takes(":")) this.#fail("a colon")
    this.#skip()
    return { name: JSON.parse(name) as string, value: this.#value() }
  }

  #object(start: number): Node {
    const members: Array<Member> = []
    let hasTrailingComma = false
    this.#skip()
    while (!this.#takes("}")) {
      members.push(this.#member())
      this.#skip()
      hasTrailingComma = this.#takes(",")
      if (!hasTrailingComma && this.#source[this.#at] !== "}") this.#fail("a comma or }")
      this.#skip()
    }
    const end = this.#at
    const tail = start + this.#source.slice(start, end - 1).trimEnd().length
    return { start, end, members, tail, hasTrailingComma }
  }
}

interface Edit {
  readonly at: number
  readonly removed: number
  readonly text: string
}

const isObject = (value: Json): value is JsonObject => typeof value === "object" && !Array.isArray(value)

const indentAt = (source: string, at: number): string =>
  /^[ \t]*/.exec(source.slice(source.lastIndexOf("\n", at - 1) + 1))![0]

const written = (value: Json, indent: string): string => JSON.stringify(value, null, 2).replaceAll("\n", `\n${indent}`)

const added = (source: string, node: Node, values: ReadonlyArray<readonly [string, Json]>): ReadonlyArray<Edit> => {
  const outer = indentAt(source, node.start)
  const last = node.members!.at(-1)
  const isOnItsLine = last !== undefined && source.slice(node.start, last.value.start).includes("\n")
  const indent = isOnItsLine ? indentAt(source, last.value.start) : `${outer}  `
  const lines = values.map(([name, value]) => `\n${indent}${JSON.stringify(name)}: ${written(value, indent)}`)
  const end = source.slice(node.tail, node.end - 1).includes("\n") ? "" : `\n${outer}`
  const insertion = { at: node.tail!, removed: 0, text: lines.join(",") + end }
  return last === undefined || node.hasTrailingComma === true
    ? [insertion]
    : [{ at: last.value.end, removed: 0, text: "," }, insertion]
}

const editsOf = (source: string, node: Node, values: JsonObject): ReadonlyArray<Edit> => {
  const missing: Array<readonly [string, Json]> = []
  const edits: Array<Edit> = []
  for (const [name, value] of Object.entries(values)) {
    // The last one of a repeated name is the one that parsers take.
    const found = node.members!.findLast((member) => member.name === name)?.value
    if (found === undefined) missing.push([name, value])
    else if (found.members !== undefined && isObject(value)) edits.push(...editsOf(source, found, value))
    else {
      const text = written(value, indentAt(source, found.start))
      edits.push({ at: found.start, removed: found.end - found.start, text })
    }
  }
  return missing.length === 0 ? edits : [...edits, ...added(source, node, missing)]
}

/**
 * The text with these values.
 *
 * @param source JSON; an empty text is an empty object
 * @throws `SyntaxError` if the text is no JSON object
 */
export const merge = (source: string, values: JsonObject): string => {
  if (source.trim() === "") return `${JSON.stringify(values, null, 2)}\n`
  const node = new Reader(source).document()
  if (node.members === undefined) throw new SyntaxError("expected an object")
  // From the end, so that positions before an edit stay; of two at one position the comma comes first.
  const edits = editsOf(source, node, values).map((edit, index) => ({ ...edit, index }))
    .toSorted((one, other) => other.at - one.at || other.index - one.index)
  return edits.reduce(
    (text, { at, removed, text: insertion }) => text.slice(0, at) + insertion + text.slice(at + removed),
    source
  )
}
