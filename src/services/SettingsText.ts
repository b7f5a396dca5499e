/** Texts in a configuration file: references to environment variables, and secrets that must not be there. */

const reference = /\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g
const loneReference = /^\$\{[A-Za-z_][A-Za-z0-9_]*\}$/

/** Shapes of keys that providers hand out. */
const keyShapes = [
  /^(?:sk|pk|rk)-[\w-]{16,}$/,
  /^(?:AKIA|ASIA)[A-Z0-9]{16}$/,
  /^AIza[\w-]{30,}$/,
  /^(?:ghp|gho|ghu|ghs|ghr)_\w{20,}$/,
  /^github_pat_\w{20,}$/,
  /^glpat-[\w-]{16,}$/,
  /^hf_\w{20,}$/,
  /^gsk_\w{20,}$/,
  /^xox[abprs]-[\w-]{10,}$/,
  /^eyJ[\w-]+\.[\w-]+\.[\w-]+$/,
  /^Bearer\s+\S+$/i,
  /-----BEGIN [A-Z ]*PRIVATE KEY-----/
]

/** Names of fields that hold secrets. */
const secretName =
  /(?:api[-_]?key|secret|password|passphrase|credentials?|authorization|(?:access|auth|bearer)[-_]?token)$/i

/** Whether a value in a file is, or is named like, a secret that is spelled out. */
export const looksLikeSecret = (key: PropertyKey | undefined, value: unknown): boolean => {
  if (typeof value !== "string" || value === "" || value.replaceAll(reference, "").trim() === "") return false
  return keyShapes.some((shape) => shape.test(value.trim())) || (typeof key === "string" && secretName.test(key))
}

/** A scalar that is one reference and nothing else takes the type its text has, as if it stood in the file. */
const typed = (text: string): unknown => {
  if (/^-?\d+(?:\.\d+)?$/.test(text)) return Number(text)
  return text === "true" ? true : text === "false" ? false : text
}

/**
 * Puts environment variables in the place of `${NAME}`, in every text of a tree.
 *
 * @param onMissing called for each reference to a variable that is not set
 */
export const interpolate = (
  value: unknown,
  variables: Readonly<Record<string, string | undefined>>,
  onMissing: (path: ReadonlyArray<PropertyKey>, name: string) => void,
  path: ReadonlyArray<PropertyKey> = []
): unknown => {
  const inner = (item: unknown, key: PropertyKey) => interpolate(item, variables, onMissing, [...path, key])
  if (Array.isArray(value)) return value.map(inner)
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, inner(item, key)]))
  }
  if (typeof value !== "string") return value
  const text = value.replaceAll(reference, (_, name: string) => {
    const found = variables[name]
    if (found === undefined) onMissing(path, name)
    return found ?? ""
  })
  return loneReference.test(value) ? typed(text) : text
}
