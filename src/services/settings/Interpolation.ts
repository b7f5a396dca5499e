/** Text in a configuration file: `${NAME}` references to environment variables, and secrets, which are rejected. Pure. */

const reference = /\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g
const singleReference = /^\$\{[A-Za-z_][A-Za-z0-9_]*\}$/

/** Formats of API keys and other secrets. */
const secretFormats = [
  /^(?:sk|pk|rk|tk)-[\w-]{16,}$/,
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

/** Passwords in a URL, in which a reference is none. */
const urlPasswords = [/^\w[\w+.-]*:\/\/[^/\s:@]*:[^/\s@]+@/, /^\w[\w+.-]*:\/\/\S*[?&](?:ssl)?password=[^&\s]+/]

/** The text of a value beside its references; empty for a value that is no text. */
export const literalIn = (value: unknown): string =>
  typeof value === "string" ? value.replaceAll(reference, "").trim() : ""

/** Whether a value has the format of a literal secret. */
export const hasSecretFormat = (value: unknown): boolean => {
  const literal = literalIn(value)
  return literal !== "" && (secretFormats.some((format) => format.test((value as string).trim())) ||
    urlPasswords.some((format) => format.test(literal)))
}

/** Whether a value is exactly one reference. */
export const isSingleReference = (value: unknown): boolean => typeof value === "string" && singleReference.test(value)

/** The number or boolean that text would be in YAML without quotes; else the text. */
export const withoutQuotes = (text: unknown): unknown => {
  if (typeof text !== "string") return text
  if (/^-?\d+(?:\.\d+)?$/.test(text)) return Number(text)
  return text === "true" ? true : text === "false" ? false : text
}

/** Names of the variables that a value refers to. */
export const referencesIn = (value: unknown): ReadonlyArray<string> =>
  typeof value === "string" ? Array.from(value.matchAll(reference), ([, name]) => name!) : []

/**
 * Replaces each `${NAME}` by the value of the variable.
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
