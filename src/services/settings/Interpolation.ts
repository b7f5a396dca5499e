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
  /-----BEGIN [A-Z ]*PRIVATE KEY-----/,
  // A password in a URL.
  /^\w[\w+.-]*:\/\/[^/\s:@]*:[^/\s@]+@/
]

/** Names of fields that hold secrets. */
const secretName =
  /(?:^key|^token|api[-_]?key|secret|password|passphrase|credentials?|authorization|(?:access|auth|bearer)[-_]?token)$/i

/** Whether a value in a file is, or is named like, a secret that is spelled out. */
export const looksLikeSecret = (key: PropertyKey | undefined, value: unknown): boolean => {
  if (typeof value !== "string" || value === "" || value.replaceAll(reference, "").trim() === "") return false
  return keyShapes.some((shape) => shape.test(value.trim())) || (typeof key === "string" && secretName.test(key))
}

/** Whether a text is one `${NAME}` and nothing else. */
export const isLoneReference = (value: unknown): boolean => typeof value === "string" && loneReference.test(value)

/** The number or truth value that a text spells, as if it stood in the file without quotes; else the text. */
export const typed = (text: unknown): unknown => {
  if (typeof text !== "string") return text
  if (/^-?\d+(?:\.\d+)?$/.test(text)) return Number(text)
  return text === "true" ? true : text === "false" ? false : text
}

/** The variables that a text refers to. */
export const referencesIn = (value: unknown): ReadonlyArray<string> =>
  typeof value === "string" ? Array.from(value.matchAll(reference), ([, name]) => name!) : []

/**
 * A text with environment variables in the place of `${NAME}`.
 *
 * @param onMissing called for each reference to a variable that is not set
 */
export const interpolate = (
  value: unknown,
  variables: Readonly<Record<string, string | undefined>>,
  onMissing: (name: string) => void
): unknown =>
  typeof value !== "string" ? value : value.replaceAll(reference, (_, name: string) => {
    const found = variables[name]
    if (found === undefined) onMissing(name)
    return found ?? ""
  })
