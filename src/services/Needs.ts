/** What a chat request needs of whoever answers it, and which of its fields need it. Pure. */
import { firstImage } from "./Content.ts"
import { requiredOf } from "./Extra.ts"
import type { Request } from "./Inference.ts"
import type { Need } from "./SelectionInput.ts"

const hasRequired = ({ extra }: Request): boolean =>
  extra !== undefined && extra.fields.some(({ optional }) => optional !== true)

export const needsOf = (request: Request): ReadonlyArray<Need> => {
  const { extra, format, logprobs, messages, tools = [] } = request
  const needs: Array<Need> = []
  if (tools.length > 0) needs.push("tools")
  if (format !== undefined) needs.push("format")
  if (logprobs !== undefined) needs.push("logprobs")
  if (firstImage(messages) !== undefined) needs.push("images")
  if (extra !== undefined && hasRequired(request)) needs.push(`${extra.dialect} fields`)
  return needs
}

/** The fields that need it. */
export const pathsOf = ({ extra, messages }: Request, need: string): ReadonlyArray<string> => {
  if (need === "images") return [firstImage(messages) ?? "messages"]
  return extra !== undefined && need === `${extra.dialect} fields` ? requiredOf(extra) : [need]
}
