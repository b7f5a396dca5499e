/**
 * The target of a request line: what is refused in it, and the one form that the router knows. Pure.
 *
 * **Details**
 *
 * Model names such as `org/name` may be sent with a raw slash or with `%2F`; the router takes the second. A parameter that
 * is given twice is refused, since one of its values would be ignored; names that end in `[]` are lists.
 */
import { Result } from "effect"

/** Paths in which a name that may contain slashes stands, with what may follow it. */
const named = [/^(\/v1\/models\/)(.*)()$/, /^(\/admin\/(?:models|circuits)\/)(.*)(\/[^/]+)$/]

const encodeSlashes = (path: string): string => {
  for (const pattern of named) {
    const [, before, name = "", after] = pattern.exec(path) ?? []
    if (name.includes("/")) return `${before}${name.replaceAll("/", "%2F")}${after}`
  }
  return path
}

const decodes = (text: string): boolean => {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}

/** What is wrong with percent-encoding that does not decode. */
const encodingProblem = (place: string, text: string): string =>
  /%(?![0-9a-f]{2})/i.test(text)
    ? `${place} has a "%" without two hexadecimal digits. Write a percent sign as %25.`
    : `${place} has percent-encoded bytes that are not UTF-8. Encode it as UTF-8.`

/** Of a parameter's name, which may be long. */
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

/** The target as the router takes it, or what is wrong with it. */
export const canonical = (target: string): Result.Result<string, string> => {
  if (!/[%?]|^\/(?:v1|admin)\/(?:models|circuits)\//.test(target)) return Result.succeed(target)
  const mark = target.indexOf("?")
  const path = mark < 0 ? target : target.slice(0, mark)
  const query = mark < 0 ? "" : target.slice(mark)
  if (!decodes(path)) return Result.fail(encodingProblem("The path", path))
  const problem = queryProblem(query.slice(1))
  return problem === undefined ? Result.succeed(`${encodeSlashes(path)}${query}`) : Result.fail(problem)
}
