/** The syntax of tool calls for `ToolCalls`: the markers of each style, and parsers of a call's incomplete JSON. */

/** One way to write calls. */
export interface Style {
  /** Before the first call; empty if the answer begins with the call. */
  readonly open: string
  /** Between `open` and the first call. */
  readonly list: string
  readonly separator: string
  readonly close: string
}

const marked: ReadonlyArray<Style> = [
  { open: "<tool_call>", list: "", separator: "", close: "</tool_call>" },
  { open: "<|python_tag|>", list: "", separator: ";", close: "" },
  { open: "[TOOL_CALLS]", list: "[", separator: ",", close: "]" }
]

export const bare: Style = { open: "", list: "", separator: ";", close: "" }

/** Texts that begin a call. If they are control tokens, an engine must include them in the text. */
export const markers: ReadonlyArray<string> = marked.flatMap(({ close, open }) => [open, close])
  .filter((text) => text.length > 1)

/** Undecided until more text arrives. */
export type More = "more"

export const skipSpace = (text: string, at: number): number => at + /^\s*/.exec(text.slice(at))![0].length

/** The end of `wanted` if the text continues with it after white space. */
export const skip = (text: string, at: number, wanted: string): number | More | undefined => {
  const begin = skipSpace(text, at)
  if (text.startsWith(wanted, begin)) return begin + wanted.length
  return wanted.startsWith(text.slice(begin)) ? "more" : undefined
}

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

/** Reads a call up to its arguments; undefined if its name does not come before them. */
export const readHead = (text: string): Head | More | undefined => {
  let name = ""
  let at = skip(text, 0, "{")
  while (typeof at === "number") {
    const key = readKey(text, at)
    if (typeof key !== "object") return key
    if (name !== "" && /^(?:arguments|parameters)$/.test(key.value)) {
      const begin = skip(text, key.end, "{")
      return typeof begin === "number" ? { name, at: begin - 1 } : begin
    }
    if (!/^(?:name|type)$/.test(key.value)) return undefined
    const value = readString(text, key.end)
    if (typeof value !== "object") return value
    if (key.value === "name") name = value.value
    at = skip(text, value.end, ",")
  }
  return at
}

/** The call in a complete JSON object. */
export const callOf = (text: string): { readonly name: string; readonly arguments: string } | undefined => {
  try {
    const { arguments: given, name, parameters } = JSON.parse(text) as Record<string, unknown>
    const value = given ?? parameters ?? {}
    if (typeof name !== "string" || name === "") return undefined
    return { name, arguments: typeof value === "string" ? value : JSON.stringify(value) }
  } catch {
    return undefined
  }
}

/** The number of characters at the end that may belong to a call: white space, and the beginning of a marker. */
export const heldLength = (text: string): number => {
  const mark = marked.flatMap(({ open }) =>
    Array.from({ length: Math.min(open.length - 1, text.length) }, (_, index) => index + 1)
      .filter((length) => text.endsWith(open.slice(0, length)))
  )
  const length = Math.max(0, ...mark)
  return text.length - text.slice(0, text.length - length).trimEnd().length
}

export const findMarker = (text: string) =>
  marked.map((style) => ({ style, at: text.indexOf(style.open) }))
    .filter(({ at }) => at >= 0)
    .sort((a, b) => a.at - b.at)[0]
