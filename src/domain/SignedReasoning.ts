/**
 * Reasoning of earlier answers that only the provider which made it can read: thoughts with a signature, and encrypted ones.
 * Pure.
 *
 * **Details**
 *
 * Signed reasoning of a message has its `maker`, and goes to deployments of that provider and host alone. In the caller's own
 * body, and in a message without a maker, it goes first to the deployment that the router chooses, which is taken to have made
 * it. Where that fails, a deployment of another host gets the request without it: the provider would reject it ("Invalid
 * `signature` in `thinking` block"). Deployments of other dialects never get it. Encrypted items of the Responses API name their
 * maker too (`seal`), because a conversation is longer than a request.
 *
 * **Gotchas**
 *
 * Anthropic rejects thinking with a budget where the last call has no thoughts before it, so that such a request does not think.
 */
import type { Deployment, DeploymentOptions } from "./Deployment.ts"
import type { Generation } from "./Generation.ts"
import { hashText } from "./Hashing.ts"
import type { Message, SignedReasoning } from "./Message.ts"
import { thoughtsOf } from "./Message.ts"
import { providerKindOf } from "./ProviderKind.ts"
import type { Source, UnknownField } from "./Source.ts"
import { dialectOf, hasResponses, valueAt, without, withoutFields } from "./Source.ts"

type Fields = Readonly<Record<string, unknown>>

/** The part of a request that may have such reasoning. */
export interface Request {
  readonly messages?: ReadonlyArray<Pick<Message, "reasoning">> | undefined
  readonly source?: Source | undefined
}

const isSigned = (value: unknown): boolean => {
  const { signature = "", type } = (value ?? {}) as Fields
  return type === "redacted_thinking" || (type === "thinking" && signature !== "")
}

/** What the ids of those `reasoning_details` begin with that this service made of signed reasoning. */
export const ownDetail = "troupe_"

/** Details of this service are in the messages, too, with their makers. */
const isOwn = (details: unknown): boolean =>
  Array.isArray(details) && details.every((detail) => String((detail as Fields | null)?.["id"]).startsWith(ownDetail))

/** The fields of a request that only the provider which made them can read. */
const fieldsOf = (source: Source): ReadonlyArray<UnknownField> =>
  source.unknownFields?.filter(({ path }) => {
    if (path[0] !== "messages") return false
    const value = valueAt(source, path)
    return path.at(-1) === "reasoning_details" ? !isOwn(value) : isSigned(value)
  }) ?? []

/** The host of a deployment, as configured. */
const hostOf = (options: DeploymentOptions): string =>
  options.provider === undefined ? "" : `${options.provider} ${options.baseUrl ?? ""}`

/** What identifies the provider and the host of a deployment in signed reasoning: a hash, since callers see it. */
export const makerOf = (options: DeploymentOptions): string => hashText(hostOf(options)).toString(36)

/** An encrypted content, with its maker and the id of its item there. */
export interface Sealed {
  readonly maker: string
  readonly id: string
  readonly content: string
}

const mark = "troupe"

/** An encrypted content that callers keep, and send with their next request. */
export const seal = ({ content, id, maker }: Sealed): string => `${mark}.${maker}.${id}.${content}`

const sealed = /^troupe\.([0-9a-z]+)\.([^.]*)\.(.+)$/s

/** Undefined for a content that no deployment of this service made. */
export const unseal = (text: unknown): Sealed | undefined => {
  const [, maker, id, content] = typeof text === "string" ? sealed.exec(text) ?? [] : []
  return content === undefined ? undefined : { maker: maker!, id: id!, content }
}

/** Whether a deployment is sent a conversation without some of its encrypted items. */
const losesItems = ({ responses }: Source, options: DeploymentOptions): boolean => {
  const input = responses?.body["input"]
  const found = Array.isArray(input)
    ? input.flatMap((item) => unseal((item as Fields | null)?.["encrypted_content"]) ?? [])
    : []
  return found.length > 0 && (!hasResponses(options) || found.some(({ maker }) => maker !== makerOf(options)))
}

/** Whether its provider is one whose signed reasoning messages can have. */
const readsSigned = ({ provider }: DeploymentOptions): boolean =>
  provider !== undefined && providerKindOf(provider).signsReasoning === true

/** The signed reasoning of a message that a deployment can read. */
export const readableBy = (
  { reasoning = [] }: Pick<Message, "reasoning">,
  options: DeploymentOptions
): ReadonlyArray<SignedReasoning> => {
  if (reasoning.length === 0 || !readsSigned(options)) return []
  const own = makerOf(options)
  return reasoning.filter(({ maker = own }) => maker === own)
}

/** Whether a deployment of another host than the first that could read it takes over. */
const isOther = (
  options: DeploymentOptions,
  tried: ReadonlyArray<Deployment>,
  reads: (options: DeploymentOptions) => boolean
): boolean => {
  const maker = tried.find((one) => reads(one.options))
  return maker !== undefined && hostOf(maker.options) !== hostOf(options)
}

const losesFields = (source: Source, options: DeploymentOptions, tried: ReadonlyArray<Deployment>): boolean => {
  if (fieldsOf(source).length === 0) return false
  const reads = (options: DeploymentOptions) => dialectOf(options) === source.dialect
  return !reads(options) || isOther(options, tried, reads)
}

const losesParts = (
  messages: NonNullable<Request["messages"]>,
  options: DeploymentOptions,
  tried: ReadonlyArray<Deployment>
): boolean => {
  const isUnread = (message: Pick<Message, "reasoning">) =>
    readableBy(message, options).length < message.reasoning!.length ||
    message.reasoning!.some(({ maker }) => maker === undefined) && isOther(options, tried, readsSigned)
  return messages.some((message) => (message.reasoning?.length ?? 0) > 0 && isUnread(message))
}

/**
 * Whether an attempt at a deployment loses reasoning of earlier answers.
 *
 * @param tried the deployments that the request was sent to before, in order
 */
export const isLost = (
  { messages = [], source }: Request,
  { options }: Deployment,
  tried: ReadonlyArray<Deployment>
): boolean =>
  (source !== undefined && (losesFields(source, options, tried) || losesItems(source, options))) ||
  losesParts(messages, options, tried)

/** The value of a message of the last turn is the result of a call. */
const endsInResult = ({ body }: Source): boolean => {
  const messages = body["messages"]
  const content = Array.isArray(messages) ? (messages.at(-1) as Fields)["content"] : undefined
  return Array.isArray(content) && content.some((block) => (block as Fields)["type"] === "tool_result")
}

/** The message with that reasoning alone which passes, and with the text of all of it. */
const withReasoning = (message: Message, passes: (one: SignedReasoning) => boolean): Message =>
  message.reasoning === undefined ? message : {
    ...message,
    thoughts: thoughtsOf(message),
    reasoning: message.reasoning.filter(passes)
  }

/**
 * The generation without such reasoning.
 *
 * @param isAll whether also without what is only for its maker; default false
 */
export const withoutIt = (generation: Generation, isAll = false): Generation => {
  const { source } = generation
  const messages = generation.messages.map((one) => withReasoning(one, ({ maker }) => !isAll && maker !== undefined))
  if (source === undefined) return { ...generation, messages }
  const kept = withoutFields(source, fieldsOf(source))
  const { thinking } = kept.body as { readonly thinking?: Fields }
  return {
    ...generation,
    messages,
    source: thinking?.["type"] === "enabled" && endsInResult(kept) ? without(kept, ["thinking"]) : kept
  }
}
