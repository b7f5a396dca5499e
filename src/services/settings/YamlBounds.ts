/**
 * Limits of the size of a configuration file, with its aliases expanded. Pure.
 *
 * **Details**
 *
 * The parser shares the value of an alias, so short text can stand for more values than memory can hold ("billion
 * laughs"), and later steps visit all of them. Each shared value is measured once.
 */

/** Limits of the text, its aliases and merge keys, and of the parsed tree. */
export const most = { characters: 2 ** 20, aliases: 1_000, values: 100_000, levels: 100 }

/** An alias at the beginning of a value. Also matches in quotes and comments, so the count is an upper bound. */
const alias = /(?:^|[\s,:[{-])\*[^\s,[\]{}]+/g

/** Why text is not parsed. */
export const problemOfText = (text: string): string | undefined => {
  if (text.length > most.characters) return `The file is larger than ${most.characters} characters`
  // Each alias may copy the keys of a mapping during parsing.
  const aliases = text.match(alias)?.length ?? 0
  return aliases > most.aliases ? `The file has more than ${most.aliases} aliases (*name)` : undefined
}

interface Size {
  readonly values: number
  readonly levels: number
}

const scalar: Size = { values: 1, levels: 0 }

const sizeOf = (value: unknown, known: Map<object, Size>): Size => {
  if (typeof value !== "object" || value === null) return scalar
  const found = known.get(value)
  if (found !== undefined) return found
  let values = 1
  let levels = 0
  for (const inner of Object.values(value)) {
    const size = sizeOf(inner, known)
    values += size.values
    levels = Math.max(levels, size.levels)
  }
  const size = { values, levels: levels + 1 }
  known.set(value, size)
  return size
}

/** Why a parsed file is rejected. */
export const problemOfTree = (tree: unknown): string | undefined => {
  const { levels, values } = sizeOf(tree, new Map())
  if (values > most.values) {
    return `The file has more than ${most.values} values after its aliases (*name) are expanded. Use fewer aliases`
  }
  return levels > most.levels ? `Mappings and lists are nested deeper than ${most.levels} levels` : undefined
}
