/**
 * Reasoning of earlier answers that only the provider which made it can read: thoughts with a signature, and encrypted ones.
 * Pure.
 *
 * **Details**
 *
 * A request goes first to the deployment that the router chooses, which is taken to have made it. Where that fails, a
 * deployment of another host gets the request without it: the provider would reject it ("Invalid `signature` in `thinking`
 * block"). Deployments of other dialects never get it.
 *
 * **Gotchas**
 *
 * Anthropic rejects thinking with a budget where the last call has no thoughts before it, so that such a request does not think.
 */
import type { Deployment, DeploymentOptions } from "./Deployment.ts"
import type { Generation } from "./Generation.ts"
import type { Source, UnknownField } from "./Source.ts"
import { dialectOf, valueAt, without, withoutFields } from "./Source.ts"

type Fields = Readonly<Record<string, unknown>>

const isSigned = (value: unknown): boolean => {
  const { signature = "", type } = (value ?? {}) as Fields
  return type === "redacted_thinking" || (type === "thinking" && signature !== "")
}

/** The fields of a request that only the provider which made them can read. */
const fieldsOf = (source: Source): ReadonlyArray<UnknownField> =>
  source.unknownFields?.filter(({ path }) =>
    path[0] === "messages" && (path.at(-1) === "reasoning_details" || isSigned(valueAt(source, path)))
  ) ?? []

/** The host of a deployment, as configured. */
const hostOf = (options: DeploymentOptions): string =>
  options.provider === undefined ? "" : `${options.provider} ${options.baseUrl ?? ""}`

/**
 * Whether an attempt at a deployment loses reasoning of earlier answers.
 *
 * @param tried the deployments that the request was sent to before, in order
 */
export const isLost = (source: Source, { options }: Deployment, tried: ReadonlyArray<Deployment>): boolean => {
  if (fieldsOf(source).length === 0) return false
  if (dialectOf(options) !== source.dialect) return true
  const maker = tried.find((one) => dialectOf(one.options) === source.dialect)
  return maker !== undefined && hostOf(maker.options) !== hostOf(options)
}

/** The value of a message of the last turn is the result of a call. */
const endsInResult = ({ body }: Source): boolean => {
  const messages = body["messages"]
  const content = Array.isArray(messages) ? (messages.at(-1) as Fields)["content"] : undefined
  return Array.isArray(content) && content.some((block) => (block as Fields)["type"] === "tool_result")
}

/** The generation without such reasoning. */
export const withoutIt = (generation: Generation): Generation => {
  const { source } = generation
  if (source === undefined) return generation
  const kept = withoutFields(source, fieldsOf(source))
  const { thinking } = kept.body as { readonly thinking?: Fields }
  return {
    ...generation,
    source: thinking?.["type"] === "enabled" && endsInResult(kept) ? without(kept, ["thinking"]) : kept
  }
}
