/**
 * Shortens, escapes and trims untrusted text for messages, terminals, logs and HTTP headers. Pure.
 *
 * **Gotchas**
 *
 * Engine processes import this module, so it must not import `effect`: see `domain/EngineProtocol`.
 */

/** Characters of a name that a caller chooses, in a message. */
const longestName = 64

/** Characters of a path to a value, in a message. */
export const longestPath = 256

/** Characters of an error's message, quotations included. */
export const longestMessage = 4_096

/** The text, cut to `most` UTF-16 code units with an ellipsis at its end; never in the middle of a character. */
export const cut = (text: string, most: number): string => {
  if (text.length <= most) return text
  const kept = text.slice(0, most - 1)
  return `${/[\uD800-\uDBFF]$/.test(kept) ? kept.slice(0, -1) : kept}…`
}

/** A name that a caller chooses, for a message. */
export const cutName = (text: string): string => cut(text, longestName)

/** The first names, and how many more there are. */
export const cutList = (names: ReadonlyArray<string>, most = 20): string => {
  const listed = names.slice(0, most).map(cutName).join(", ")
  return names.length > most ? `${listed} and ${names.length - most} more` : listed
}

/**
 * Control characters except tab and line feed, and those that reorder text: Unicode's `Cc`, and bidirectional controls. A
 * model file's name, template or error may use them to move the cursor, change the title, or hide what was printed.
 */
// oxlint-disable-next-line no-control-regex
const unsafe = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g

const escaped = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`

/** The text with each unsafe character written as `\u001b`; tabs and line feeds stay. */
export const plainText = (text: string): string => text.replaceAll(unsafe, escaped)

/** Like `plainText`, on one line: tabs and line feeds become spaces. */
export const plainLine = (text: string): string => plainText(text.replaceAll(/[\t\n\r]+/g, " "))

/** What editors, shells and secret stores add around a value: white space, a byte order mark, zero-width spaces. */
const around = /^[\s\u200B-\u200D\u2060\uFEFF]+|[\s\u200B-\u200D\u2060\uFEFF]+$/g

const quoted = /^(?:"([^"]*)"|'([^']*)')$/

/** A header's value without white space and invisible characters around it. */
export const trimValue = (text: string): string => text.replaceAll(around, "")

/** A key or token, also without quotes around it: no provider's keys contain quotes. */
export const trimKey = (text: string): string => {
  const inner = trimValue(text)
  const [, double, single] = quoted.exec(inner) ?? []
  return trimValue(double ?? single ?? inner)
}

/** Why a value does not fit a header, as "it has a line break"; undefined where it does. Never shows the value. */
export const headerProblem = (text: string): string | undefined => {
  if (text === "") return "it is empty"
  if (/[\r\n]/.test(text)) return "it has a line break"
  const other = /[^\t\u0020-\u007E]/u.exec(text)
  if (other === null) return undefined
  const code = other[0].codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")
  return `character ${other.index + 1} is U+${code}, which is not printable ASCII`
}
