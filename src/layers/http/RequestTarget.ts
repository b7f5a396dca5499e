/** The target of a request line in the one form that the router accepts. Pure. */
import { Result } from "effect"

/** Targets that may have another form: most have the canonical one. */
export const mayDiffer = /[%?]|^\/(?:v1|admin)\/(?:models|circuits)\//

/** Paths with a name that may contain slashes, and what may follow it. */
const namePaths = [/^(\/v1\/models\/)(.*)()$/, /^(\/admin\/(?:models|circuits)\/)(.*)(\/[^/]+)$/]

const encodeSlashes = (path: string): string => {
  for (const pattern of namePaths) {
    const [, before, name = "", after] = pattern.exec(path) ?? []
    if (name.includes("/")) return `${before}${name.replaceAll("/", "%2F")}${after}`
  }
  return path
}

const decodes = (text: string): boolean => {
  try {
    // The bundler drops the call if its result is not used.
    return decodeURIComponent(text).length <= text.length
  } catch {
    return false
  }
}

/** What is wrong with percent-encoding that does not decode. */
const encodingProblem = (place: string, text: string): string =>
  /%(?![0-9a-f]{2})/i.test(text)
    ? `${place} has a "%" without two hexadecimal digits. Write a percent sign as %25.`
    : `${place} has percent-encoded bytes that are not UTF-8. Encode it as UTF-8.`

/** A parameter's name in an error: at most 50 characters of it. */
const shown = (name: string): string => JSON.stringify(name.length > 50 ? `${name.slice(0, 50)}...` : name)

const queryProblem = (query: string): string | undefined => {
  if (!decodes(query)) return encodingProblem("The query", query)
  const seen = new Set<string>()
  for (const [name] of new URLSearchParams(query)) {
    if (seen.has(name) && !name.endsWith("[]")) return `The query has the parameter ${shown(name)} twice. Send it once.`
    seen.add(name)
  }
  return undefined
}

/**
 * The target of a request line in the one form that the router accepts, or what is wrong with it.
 *
 * **Details**
 *
 * Model names such as `org/name` may be sent with a raw slash or with `%2F`; the router accepts the second. A parameter that
 * is given twice is rejected, since one of its values would be ignored; names that end in `[]` are lists.
 */
export const canonicalTarget = (target: string): Result.Result<string, string> => {
  if (!mayDiffer.test(target)) return Result.succeed(target)
  const mark = target.indexOf("?")
  const path = mark < 0 ? target : target.slice(0, mark)
  const query = mark < 0 ? "" : target.slice(mark)
  if (!decodes(path)) return Result.fail(encodingProblem("The path", path))
  const problem = queryProblem(query.slice(1))
  return problem === undefined ? Result.succeed(`${encodeSlashes(path)}${query}`) : Result.fail(problem)
}
