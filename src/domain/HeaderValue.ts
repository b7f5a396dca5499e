/** Values that go into HTTP headers, as they come from environment variables and files. Pure. */

/** What editors, shells and secret stores leave around a value: white space, a byte order mark, zero-width spaces. */
const around = /^[\s\u200B-\u200D\u2060\uFEFF]+|[\s\u200B-\u200D\u2060\uFEFF]+$/g

const quoted = /^(?:"([^"]*)"|'([^']*)')$/

/** Without what surrounds it. */
export const trim = (text: string): string => text.replaceAll(around, "")

/** A key or token, also without quotes around it: no provider's keys have any. */
export const trimKey = (text: string): string => {
  const inner = trim(text)
  const [, double, single] = quoted.exec(inner) ?? []
  return trim(double ?? single ?? inner)
}

/** Why a value does not fit a header, as "it has a line break"; undefined where it does. Never shows the value. */
export const problemIn = (text: string): string | undefined => {
  if (text === "") return "it is empty"
  if (/[\r\n]/.test(text)) return "it has a line break"
  const other = /[^\t\u0020-\u007E]/u.exec(text)
  if (other === null) return undefined
  const code = other[0].codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")
  return `character ${other.index + 1} is U+${code}, which is not printable ASCII`
}
