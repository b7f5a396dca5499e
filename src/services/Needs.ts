/** What a chat request needs of whoever answers it, and which of its fields need it. Pure. */
import { firstImage } from "./Content.ts"
import { requiredOf } from "./Extra.ts"
import type { Request } from "./Inference.ts"
import type { Need } from "./SelectionInput.ts"

/** The fields of a request that may need something. */
type Asked = Pick<Request, "extra" | "format" | "logprobs" | "messages" | "toolChoice" | "tools">

const hasRequired = ({ extra }: Asked): boolean =>
  extra !== undefined && extra.fields.some(({ optional }) => optional !== true)

export const needsOf = (request: Asked): ReadonlyArray<Need> => {
  const { extra, format, logprobs, messages, toolChoice, tools = [] } = request
  const needs: Array<Need> = []
  // Tools that must not be called are left out where a model does not know any.
  if (tools.length > 0 && toolChoice !== "none") needs.push("tools")
  if (format !== undefined) needs.push("format")
  if (logprobs !== undefined) needs.push("logprobs")
  if (firstImage(messages) !== undefined) needs.push("images")
  if (extra !== undefined && hasRequired(request)) needs.push(`${extra.dialect} fields`)
  return needs
}

/** The fields that need it. */
export const pathsOf = ({ extra, messages }: Asked, need: string): ReadonlyArray<string> => {
  if (need === "images") return [firstImage(messages) ?? "messages"]
  return extra !== undefined && need === `${extra.dialect} fields` ? requiredOf(extra) : [need]
}
