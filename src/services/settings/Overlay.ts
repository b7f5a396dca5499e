/** Trees of parsed YAML: merges an overlay, finds and removes parts. Pure. */

/** A value of parsed YAML. */
export type Tree = unknown

/** Keys and indices that lead to a value. */
export type Path = ReadonlyArray<PropertyKey>

/** Also a `key:` without a value. */
const isAbsent = (value: Tree): boolean => value === undefined || value === null

export const isMapping = (value: Tree): value is Record<string, Tree> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const own = (value: Tree, key: PropertyKey): Tree =>
  typeof value === "object" && value !== null && Object.hasOwn(value, key)
    ? (value as Record<PropertyKey, Tree>)[key]
    : undefined

/** The value at a path, or undefined. */
export const at = (value: Tree, path: Path): Tree => path.reduce<Tree>(own, value)

/** Whether a key without a value is left out. Inside `models` it stays, so that it is reported. */
const isLeftOut = (path: Path): boolean => path[0] !== "models" || path.length === 1

/** Merges `over` into `base`: mappings merge by key, other values replace, absent values change nothing. */
export const overlay = (base: Tree, over: Tree, path: Path = []): Tree => {
  if (isAbsent(over)) return isMapping(base) ? overlay({}, base, path) : base
  if (!isMapping(over)) return over
  const under = isMapping(base) ? base : {}
  const entries: Array<[string, Tree]> = []
  for (const key of new Set([...Object.keys(under), ...Object.keys(over)])) {
    const inner = [...path, key]
    const value = overlay(own(under, key), own(over, key), inner)
    if (!isAbsent(value)) entries.push([key, value])
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

/** The tree with every scalar replaced. */
export const mapLeaves = (value: Tree, change: (scalar: Tree, path: Path) => Tree, path: Path = []): Tree => {
  const inner = (item: Tree, key: PropertyKey) => mapLeaves(item, change, [...path, key])
  if (Array.isArray(value)) return value.map(inner)
  return isMapping(value)
    ? Object.fromEntries(Object.entries(value).map(([key, item]) => [key, inner(item, key)]))
    : change(value, path)
}

/** Whether the value at `path` of the merged tree, or the mapping in which it is missing, comes from `over`. */
export const isFromOverlay = (base: Tree, over: Tree, path: Path): boolean => {
  if (isAbsent(over)) return false
  if (path.length === 0) return true
  const holder = path.slice(0, -1)
  return !isAbsent(at(over, path)) || (!isAbsent(at(over, holder)) && isAbsent(at(base, holder)))
}

/** The smallest part that can be removed: a field of a model, a model, a policy, or a section. */
const partOf = (path: Path): Path => {
  const [section, , field] = path
  if (section === "models") return path.slice(0, path.length === 3 && field !== "deployments" ? 3 : 2)
  return path.slice(0, section === "policies" ? 2 : 1)
}

const without = (tree: Tree, [key, ...rest]: Path): Tree => {
  if (Array.isArray(tree)) return tree.map((item, index) => index === key ? without(item, rest) : item)
  if (key === undefined || !isMapping(tree) || !Object.hasOwn(tree, key)) return tree
  const entries = Object.entries(tree).flatMap(([name, value]) => {
    if (name !== key) return [[name, value] as const]
    return rest.length === 0 ? [] : [[name, without(value, rest)] as const]
  })
  return Object.fromEntries(entries)
}

/** The field at a path, or the list that has the element: an element cannot be removed, since indices are in problems. */
const fieldOf = (path: Path): Path => {
  const last = path.findLastIndex((key) => typeof key !== "number")
  return path[0] === "models" && path[2] === "deployments" && path.length < 5 ? [] : path.slice(0, last + 1)
}

const isInDeployment = ([section, , field, index]: Path): boolean =>
  section === "models" && field === "deployments" && index !== undefined

const replaced = (tree: Tree, [key, ...rest]: Path, value: Tree): Tree => {
  if (key === undefined) return value
  if (Array.isArray(tree)) return tree.map((item, index) => index === key ? replaced(item, rest, value) : item)
  return isMapping(tree) ? { ...tree, [key]: replaced(own(tree, key), rest, value) } : tree
}

/** Removes one problem: its field first; then its deployment, model, policy or section. */
const withoutProblem = (tree: Tree, path: Path, round: number, placeholder: Tree): Tree => {
  if (round === 0) return without(tree, fieldOf(path))
  return round === 1 && isInDeployment(path)
    ? replaced(tree, path.slice(0, 4), placeholder)
    : without(tree, partOf(path))
}

/**
 * The tree without the smallest parts that contain these paths and without sections that become empty: what is left of an
 * invalid configuration can be checked.
 *
 * @param round 0 removes fields, 1 replaces deployments, and the next ones remove models, policies and sections
 * @param placeholder replaces an invalid deployment, so that the others keep their indices
 */
export const withoutParts = (tree: Tree, wrong: ReadonlyArray<Path>, round: number, placeholder: Tree): Tree => {
  const left = wrong.reduce<Tree>((rest, path) => withoutProblem(rest, path, round, placeholder), tree)
  if (!isMapping(left)) return {}
  return Object.fromEntries(
    Object.entries(left).filter(([, value]) => !isMapping(value) || Object.keys(value).length > 0)
  )
}
