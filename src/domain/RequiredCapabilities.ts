/** What a chat request needs of whoever answers it, and which of its fields need it. Pure. */
import type { Request, TokenizeRequest } from "./Inference.ts"
import { firstImage } from "./Message.ts"
import type { RequiredCapability } from "./RoutingRequest.ts"

/** The fields of a request that may need something. */
type Asked = Pick<Request, "format" | "logprobs" | "messages" | "source" | "toolChoice" | "tools">

/** The dialect whose unknown fields the request needs, if any. */
const needsOfFields = ({ source }: Pick<Request, "source">): ReadonlyArray<RequiredCapability> =>
  source?.unknownFields?.some(({ optional }) => optional !== true) === true ? [`${source.dialect} fields`] : []

export const needsOf = (request: Asked): ReadonlyArray<RequiredCapability> => {
  const { format, logprobs, messages, toolChoice, tools = [] } = request
  const needs: Array<RequiredCapability> = ["generate"]
  // Tools that must not be called are left out where a model does not know any.
  if (tools.length > 0 && toolChoice !== "none") needs.push("tools")
  if (format !== undefined) needs.push("format")
  if (logprobs !== undefined) needs.push("logprobs")
  if (firstImage(messages) !== undefined) needs.push("images")
  needs.push(...needsOfFields(request))
  return needs
}

/** The fields that need it. */
export const pathsOf = ({ messages }: Pick<Request, "messages">, need: string): ReadonlyArray<string> => {
  if (need === "images") return [firstImage(messages) ?? "messages"]
  return [need === "generate" || need === "count" ? "model" : need]
}

/** What counting the tokens of a conversation needs. */
export const needsOfCount = (request: Asked): ReadonlyArray<RequiredCapability> => [
  "count",
  ...needsOf(request).filter((need) => need !== "generate")
]

/** What embedding needs. */
export const needsOfEmbedding = (request: Pick<Request, "source">): ReadonlyArray<RequiredCapability> => [
  "embed",
  ...needsOfFields(request)
]

/** What making a text, or a conversation with images and tools, into tokens needs. */
export const needsOfTokenize = ({ input }: TokenizeRequest): ReadonlyArray<RequiredCapability> => {
  if (typeof input === "string") return ["tokenize"]
  const needs: Array<RequiredCapability> = ["tokenize"]
  if ((input.tools ?? []).length > 0) needs.push("tools")
  if (firstImage(input.messages) !== undefined) needs.push("images")
  return needs
}

/** The field that needs it. */
export const pathOfTokenize = ({ input }: TokenizeRequest, need: string): string => {
  if (typeof input === "string" || need === "tokenize") return "model"
  return need === "images" ? `input.${firstImage(input.messages)}` : `input.${need}`
}
