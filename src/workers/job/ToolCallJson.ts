/** Parsers of calls that arrive as JSON: the name and the place of the arguments, and calls in another order. */
import type { More } from "./ToolCallSyntax.ts"
import { skip, skipSpace } from "./ToolCallSyntax.ts"

/** Finds the end of a JSON object that arrives in pieces. */
export const makeScan = () => {
  let depth = 0
  let inString = false
  let escaped = false
  const readInString = (character: string) => {
    if (escaped) escaped = false
    else if (character === "\\") escaped = true
    else inString = character !== "\""
  }
  return (text: string): number | undefined => {
    for (let at = 0; at < text.length; at++) {
      const character = text[at]!
      if (inString) readInString(character)
      else if (character === "\"") inString = true
      else if (character === "{") depth++
      else if (character === "}" && --depth === 0) return at + 1
    }
    return undefined
  }
}

export const endOfObject = (text: string, begin: number): number | More => {
  const length = makeScan()(text.slice(begin))
  return length === undefined ? "more" : begin + length
}

const jsonString = /"(?:[^"\\]|\\.)*"/sy

const readString = (text: string, at: number): { value: string; end: number } | More | undefined => {
  const begin = skip(text, at, "\"")
  if (typeof begin !== "number") return begin
  jsonString.lastIndex = begin - 1
  const found = jsonString.exec(text)
  if (found === null) return "more"
  try {
    return { value: JSON.parse(found[0]) as string, end: jsonString.lastIndex }
  } catch {
    return undefined
  }
}

/** A call's name, and the start of its arguments. */
interface Head {
  readonly name: string
  readonly at: number
}

const readKey = (text: string, at: number) => {
  const key = readString(text, at)
  if (typeof key !== "object") return key
  const end = skip(text, key.end, ":")
  return typeof end === "number" ? { value: key.value, end } : end
}

const nameKeys = new Set(["name", "tool_name"])
const argumentKeys = new Set(["arguments", "parameters"])
const otherKeys = new Set(["type", "id", "tool_call_id"])

/** The object has to be read as a whole: its fields are a call's, in another order or form. */
type Whole = "whole"

/** The beginning of the arguments, which may be a text. */
const argumentsAt = (text: string, at: number): number | More | Whole => {
  const begin = skip(text, at, "{")
  return typeof begin === "number" ? begin - 1 : begin ?? "whole"
}

/** The end of a field before the arguments, and the name if it is one. */
const readField = (
  text: string,
  key: string,
  at: number
): { name?: string; end: number } | More | Whole | undefined => {
  if (argumentKeys.has(key) || key === "function") return "whole"
  if (!nameKeys.has(key) && !otherKeys.has(key)) return undefined
  const value = readString(text, at)
  if (typeof value !== "object") return value
  return nameKeys.has(key) ? { name: value.value, end: value.end } : { end: value.end }
}

/** Reads a call up to its arguments; undefined if its fields are not those of a call. */
export const readHead = (text: string): Head | More | Whole | undefined => {
  let name = ""
  let at = skip(text, 0, "{")
  while (typeof at === "number") {
    const key = readKey(text, at)
    if (typeof key !== "object") return key
    if (name !== "" && argumentKeys.has(key.value)) {
      const begin = argumentsAt(text, key.end)
      return typeof begin === "number" ? { name, at: begin } : begin
    }
    const field = readField(text, key.value, key.end)
    if (typeof field !== "object") return field
    name = field.name ?? name
    at = skip(text, field.end, ",")
    if (at === undefined && text[skipSpace(text, field.end)] === "}") return "whole"
  }
  return at
}

export interface Call {
  readonly name: string
  /** JSON text. */
  readonly arguments: string
}

type Fields = Readonly<Record<string, unknown>>

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const callFrom = (name: unknown, given: unknown): Call | undefined =>
  typeof name !== "string" || name === ""
    ? undefined
    : { name, arguments: typeof given === "string" ? given : JSON.stringify(given ?? {}) }

/** A call whose only key is the tool's name, as Apertus writes it. */
const singleKey = (fields: Fields, names: ReadonlySet<string>): Call | undefined => {
  const [[name, value] = [], ...more] = Object.entries(fields)
  return name !== undefined && more.length === 0 && names.has(name) && isFields(value)
    ? callFrom(name, value)
    : undefined
}

const callIn = (fields: Fields, names: ReadonlySet<string>): Call | undefined => {
  const { arguments: args, function: inner, name, parameters, tool_name } = fields
  if (isFields(inner)) return callIn(inner, names)
  return callFrom(name ?? tool_name ?? inner, args ?? parameters) ?? singleKey(fields, names)
}

/**
 * The call in a complete JSON object: its fields in any order, in `function`, or the tool's name as the only key.
 *
 * @param names of the tools
 */
export const callOf = (text: string, names: ReadonlySet<string>): Call | undefined => {
  try {
    const fields: unknown = JSON.parse(text)
    return isFields(fields) ? callIn(fields, names) : undefined
  } catch {
    return undefined
  }
}
