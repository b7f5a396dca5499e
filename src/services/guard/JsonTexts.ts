/**
 * Changes texts that are the JSON of an object or a list, as the arguments and results of tools: their strings and numbers, so
 * that escapes hide nothing and the text stays JSON. Pure.
 */
import * as ExactNumber from "../../domain/ExactNumber.ts"
import { isNestedDeeper, mostLevels } from "../../domain/JsonScan.ts"
import * as TextWalk from "./TextWalk.ts"

const begin = /^\s*[[{]/

/** The object or list of a text; undefined if the text is not its JSON, or is nested too deeply. */
export const jsonOf = (text: string): unknown => {
  if (!begin.test(text)) return undefined
  try {
    const json = ExactNumber.parse(text)
    return isNestedDeeper(json, mostLevels) ? undefined : json
  } catch {
    return undefined
  }
}

/**
 * The text with other strings and numbers.
 *
 * @param isHidden whether a text has what its parsed JSON does not have: of fields with one name, only the last is read
 */
export const changeText = (
  text: string,
  json: unknown,
  [string, number]: readonly [string: (text: string) => string, number: (text: string) => string],
  isHidden: (text: string) => boolean
): string => {
  const changed = TextWalk.changeJson(json, (inner) => string(inner), (inner) => number(inner))
  return changed !== json || isHidden(text) ? JSON.stringify(changed) : text
}
