/** Texts of bounded length: what callers name stands in messages, records and logs, and must not make them long. Pure. */

/** Characters of a name that a caller chooses, in a message. */
export const longestName = 64

/** Characters of a path to a value, in a message. */
export const longestPath = 256

/** Characters of an error's message, whatever it quotes. */
export const longestMessage = 4_096

/** The text, cut to `most` UTF-16 code units with an ellipsis at its end; never in the middle of a character. */
export const cut = (text: string, most: number): string => {
  if (text.length <= most) return text
  const kept = text.slice(0, most - 1)
  return `${/[\uD800-\uDBFF]$/.test(kept) ? kept.slice(0, -1) : kept}…`
}

/** A name that a caller chooses, for a message. */
export const name = (text: string): string => cut(text, longestName)

/** The first names, and how many more there are. */
export const list = (names: ReadonlyArray<string>, most = 20): string => {
  const listed = names.slice(0, most).map(name).join(", ")
  return names.length > most ? `${listed} and ${names.length - most} more` : listed
}
