/**
 * How large a configuration file may be, its aliases expanded. Pure.
 *
 * **Details**
 *
 * The parser shares what an alias stands for, so a short text can stand for more values than memory holds ("billion
 * laughs"), all of which later steps visit. Each shared value is measured once.
 */

/** Of a file: its text, the aliases and merge keys in it, and what it stands for. */
export const most = { characters: 2 ** 20, aliases: 1_000, values: 100_000, levels: 100 }

/** An alias where a value may begin; also within quotes and comments, which is more than the parser finds. */
const alias = /(?:^|[\s,:[{-])\*[^\s,[\]{}]+/g

/** Why a text is not even parsed. */
export const problemOfText = (text: string): string | undefined => {
  if (text.length > most.characters) return `The file is larger than ${most.characters} characters`
  // Each may copy the keys of a mapping while the text is parsed.
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

/** Why a parsed file is not used. */
export const problemOfTree = (tree: unknown): string | undefined => {
  const { levels, values } = sizeOf(tree, new Map())
  if (values > most.values) {
    return `The file has more than ${most.values} values after its aliases (*name) are expanded. Use fewer aliases`
  }
  return levels > most.levels ? `Mappings and lists are nested deeper than ${most.levels} levels` : undefined
}
