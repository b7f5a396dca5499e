/** Trees of parsed YAML: laying one over another, and finding things in them. Pure. */

/** A value of parsed YAML. */
export type Tree = unknown

/** Where in a tree. */
export type Path = ReadonlyArray<PropertyKey>

/** What a lone `key:` with nothing behind it means, too: nothing. */
const isNothing = (value: Tree): boolean => value === undefined || value === null

export const isMapping = (value: Tree): value is Record<string, Tree> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const own = (value: Tree, key: PropertyKey): Tree =>
  typeof value === "object" && value !== null && Object.hasOwn(value, key)
    ? (value as Record<PropertyKey, Tree>)[key]
    : undefined

/** The value at a path, or undefined. */
export const at = (value: Tree, path: Path): Tree => path.reduce<Tree>(own, value)

/** Whether a key with nothing behind it is left out; a model that was begun is not. */
const isLeftOut = (path: Path): boolean => path[0] !== "models" || path.length === 1

/** Mappings merge, key by key; everything else replaces; nothing leaves what is there. */
export const overlay = (base: Tree, over: Tree, path: Path = []): Tree => {
  if (isNothing(over)) return isMapping(base) ? overlay({}, base, path) : base
  if (!isMapping(over)) return over
  const under = isMapping(base) ? base : {}
  const entries: Array<[string, Tree]> = []
  for (const key of new Set([...Object.keys(under), ...Object.keys(over)])) {
    const inner = [...path, key]
    const value = overlay(own(under, key), own(over, key), inner)
    if (!isNothing(value)) entries.push([key, value])
    else if (!isLeftOut(inner)) entries.push([key, null])
  }
  return Object.fromEntries(entries)
}

/** Every scalar with its path. */
export const leaves = (value: Tree, path: Path = []): Array<[Path, Tree]> => {
  if (Array.isArray(value)) return value.flatMap((item, index) => leaves(item, [...path, index]))
  if (isMapping(value)) return Object.entries(value).flatMap(([key, item]) => leaves(item, [...path, key]))
  return [[path, value]]
}

/** A tree with every scalar changed. */
export const mapLeaves = (value: Tree, change: (scalar: Tree, path: Path) => Tree, path: Path = []): Tree => {
  const inner = (item: Tree, key: PropertyKey) => mapLeaves(item, change, [...path, key])
  if (Array.isArray(value)) return value.map(inner)
  return isMapping(value)
    ? Object.fromEntries(Object.entries(value).map(([key, item]) => [key, inner(item, key)]))
    : change(value, path)
}

/** Whether what is wrong at `path` of `over` laid over `base` stands in `over`: the value, or the mapping it lacks in. */
export const isFromOverlay = (base: Tree, over: Tree, path: Path): boolean => {
  if (isNothing(over)) return false
  if (path.length === 0) return true
  const holder = path.slice(0, -1)
  return !isNothing(at(over, path)) || (!isNothing(at(over, holder)) && isNothing(at(base, holder)))
}
