/** What of a configuration can be understood without the parts that are wrong, so that the rest is checked too. Pure. */
import type { Path, Tree } from "./Overlay.ts"
import { isMapping } from "./Overlay.ts"

/** The smallest part that others do not stand on: a model's own field, a model, a policy, or a section. */
const partOf = (path: Path): Path => {
  const [section, , field] = path
  if (section === "models") return path.slice(0, path.length === 3 && field !== "deployments" ? 3 : 2)
  return path.slice(0, section === "policies" ? 2 : 1)
}

const without = (tree: Tree, [key, ...rest]: Path): Tree => {
  if (key === undefined || !isMapping(tree) || !Object.hasOwn(tree, key)) return tree
  const entries = Object.entries(tree).flatMap(([name, value]) => {
    if (name !== key) return [[name, value] as const]
    return rest.length === 0 ? [] : [[name, without(value, rest)] as const]
  })
  return Object.fromEntries(entries)
}

/** The tree without the parts that hold these paths; sections that become empty go too. */
export const pruned = (tree: Tree, wrong: ReadonlyArray<Path>): Tree => {
  const left = wrong.reduce((rest, path) => without(rest, partOf(path)), tree)
  if (!isMapping(left)) return {}
  return Object.fromEntries(
    Object.entries(left).filter(([, value]) => !isMapping(value) || Object.keys(value).length > 0)
  )
}
