/** Parsers of calls whose name and arguments have markers around them: `NamedForm`. */
import type { More, NamedForm, Params, Section } from "./ToolCallSyntax.ts"
import { skip, skipSpace } from "./ToolCallSyntax.ts"

/** The longest name of a tool with what surrounds it, characters. */
const longestHead = 300

const nameCharacters = /^[\p{L}\d_.:/-]+$/u

/** Where a call is read: the section, the tools' names, and whether the answer has ended. */
export interface Context {
  readonly section: Section
  readonly names: ReadonlySet<string>
  readonly ended: boolean
}

/** A name, and the length of the text up to its arguments. */
export interface NamedHead {
  readonly name: string
  readonly length: number
}

/** Kimi's names have the kind and the index of the call. */
const plainName = (name: string): string => /^functions\.(.+):\d+$/.exec(name)?.[1] ?? name

/** Without a marker before it, only the name of a tool is a name. */
const isNamePossible = ({ after = "", begin, nameEnd }: NamedForm, text: string, names: ReadonlySet<string>): boolean =>
  begin !== "" || [...names].some((name) => {
    if (name.startsWith(text)) return true
    if (!text.startsWith(name)) return false
    const rest = text.slice(name.length)
    return nameEnd === "" || nameEnd.startsWith(rest) ||
      (after !== "" && (after.startsWith(rest) || rest.startsWith(after)))
  })

/** Where the name ends; -1 if unknown. Without `nameEnd`, at the first argument or the end of the section. */
const nameEndOf = ({ nameEnd, params }: NamedForm, text: string, { ended, section }: Context): number => {
  if (nameEnd !== "") return text.indexOf(nameEnd)
  const ends = [params?.begin, section.close].map((end) => end === undefined || end === "" ? -1 : text.indexOf(end))
    .filter((at) => at >= 0)
  if (ends.length > 0) return Math.min(...ends)
  return ended ? text.trimEnd().length : -1
}

/** The name in a text that has something before or after it. */
const nameIn = ({ after, before }: NamedForm, written: string): string | undefined => {
  const from = before === undefined ? 0 : written.indexOf(before)
  if (from < 0) return undefined
  const named = written.slice(from + (before?.length ?? 0))
  return plainName((after === undefined ? named : named.split(after, 1)[0]!).trim())
}

/** Whether a call may have this name: without a marker before it, only that of a tool. */
const isName = (name: string, { begin }: NamedForm, { names, section }: Context): boolean =>
  nameCharacters.test(name) && ((begin !== "" && section.isLoose !== true) || names.has(name))

/** Reads the name of a call; undefined if there is none. */
export const readNamedHead = (rest: string, form: NamedForm, context: Context): NamedHead | More | undefined => {
  const { begin, nameEnd } = form
  const at = begin === "" ? skipSpace(rest, 0) : skip(rest, 0, begin)
  if (typeof at !== "number") return at
  const text = rest.slice(at, at + longestHead)
  const end = nameEndOf(form, text, context)
  if (end < 0) return text.length < longestHead && isNamePossible(form, text, context.names) ? "more" : undefined
  const name = nameIn(form, text.slice(0, end))
  return name !== undefined && isName(name, form, context) ? { name, length: at + end + nameEnd.length } : undefined
}

/** A marked argument, and the length of its text. */
export interface Param {
  readonly key: string
  readonly value: string
  /** Whether the call says that the value is a text; undefined if it does not say. */
  readonly isText: boolean | undefined
  readonly length: number
}

/** The end of a value: the first end marker that another argument or the end of the call follows. */
const valueEnd = (
  rest: string,
  from: number,
  close: string,
  followers: ReadonlyArray<string>,
  ended: boolean
): number | More => {
  for (let at = rest.indexOf(close, from); at >= 0; at = rest.indexOf(close, at + 1)) {
    const after = rest.slice(at + close.length).trimStart()
    if (followers.some((follower) => after.startsWith(follower))) return at
    // More text may be a follower.
    if (followers.length === 0 || followers.some((follower) => follower.startsWith(after))) return ended ? at : "more"
  }
  return "more"
}

const textAttribute = /(?:string="true|type="string)/
const otherAttribute = /(?:string="false|type=")/

const isTextBy = (attributes: string): boolean | undefined =>
  textAttribute.test(attributes) ? true : otherAttribute.test(attributes) ? false : undefined

/** Reads the argument at the beginning of the text; undefined if there is none. */
export const readParam = (
  rest: string,
  { ends }: NamedForm,
  params: Params,
  context: Context
): Param | More | undefined => {
  const { begin, end, keyEnd } = params
  const at = skip(rest, 0, begin)
  if (typeof at !== "number") return at
  const keyLength = rest.slice(at).indexOf(keyEnd)
  if (keyLength < 0) return "more"
  const [written = "", attributes = ""] = rest.slice(at, at + keyLength).split(/"(.*)/s, 2)
  const key = written.replace(/<\/arg_key[^>]*>\s*$/, "").trim()
  // The end of a call may begin like an argument.
  if (key.startsWith("/")) return undefined
  const from = at + keyLength + keyEnd.length
  const close = end.replace("{key}", key)
  const followers = [begin, ...ends, context.section.close].filter((text) => text !== "")
  const found = valueEnd(rest, from, close, followers, context.ended)
  if (typeof found !== "number") return found
  return { key, isText: isTextBy(attributes), value: rest.slice(from, found), length: found + close.length }
}
