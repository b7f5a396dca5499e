/**
 * Reasoning of earlier answers that only the provider which made it can read: thoughts with a signature, and encrypted ones.
 * Pure.
 *
 * **Details**
 *
 * Signed reasoning of a message has its `maker`, and goes to deployments of that provider and host alone. So does reasoning in
 * the caller's own body whose signature is known (`services/inference/ReasoningMakers`). Where the maker is not known, it goes
 * first to the deployment that the router chooses, which is taken to have made it. Where that fails, a deployment of another
 * host gets the request without it: the provider would reject it ("Invalid `signature` in `thinking` block"). Deployments of
 * other dialects never get it. Encrypted items of the Responses API name their maker too (`seal`), because a conversation is
 * longer than a request.
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

/** The maker of a signature or an encrypted text of an earlier answer, as `makerOf`; undefined: not known. */
export type MakerIn = (mark: string) => string | undefined

/** The signatures and encrypted texts of reasoning: of a block, or of a list of parts such as `reasoning_details`. */
export const marksIn = (value: unknown): ReadonlyArray<string> =>
  (Array.isArray(value) ? value : [value]).flatMap((part: unknown) => {
    const { data, signature = data } = (part ?? {}) as Fields
    return typeof signature === "string" && signature !== "" ? [signature] : []
  })

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

const isTroupe = ({ provider }: DeploymentOptions): boolean =>
  provider !== undefined && providerKindOf(provider).isTroupe === true

/** The maker of what another Troupe passes on: that Troupe, and the maker as it names it. */
export const makerBehind = (maker: string, options: DeploymentOptions): string => `${makerOf(options)}-${maker}`

/** The maker as another Troupe names it, empty if it is not known; undefined if it is of another deployment, or no Troupe. */
export const makerThere = (maker: string, options: DeploymentOptions): string | undefined => {
  if (!isTroupe(options)) return undefined
  const begin = makerBehind("", options)
  return maker.startsWith(begin) ? maker.slice(begin.length) : maker === "" ? "" : undefined
}

/** An encrypted content, with its maker and the id of its item there. */
export interface Sealed {
  readonly maker: string
  readonly id: string
  readonly content: string
}

const mark = "troupe"

/** An encrypted content that callers keep, and send with their next request. */
export const seal = ({ content, id, maker }: Sealed): string => `${mark}.${maker}.${id}.${content}`

const sealed = /^troupe\.([0-9a-z-]+)\.([^.]*)\.(.+)$/s

/** Undefined for a content that no deployment of this service made. */
export const unseal = (text: unknown): Sealed | undefined => {
  const [, maker, id, content] = typeof text === "string" ? sealed.exec(text) ?? [] : []
  return content === undefined ? undefined : { maker: maker!, id: id!, content }
}

/** Whether a deployment is sent a conversation without some of its encrypted items. */
const losesItems = (source: Source | undefined, options: DeploymentOptions): boolean => {
  const input = source?.responses?.body["input"]
  const found = Array.isArray(input)
    ? input.flatMap((item) => unseal((item as Fields | null)?.["encrypted_content"]) ?? [])
    : []
  return found.length > 0 && (!hasResponses(options) || found.some(({ maker }) => maker !== makerOf(options)))
}

/** Whether its provider is one whose signed reasoning messages can have. */
const readsSigned = (options: DeploymentOptions): boolean =>
  options.provider !== undefined && providerKindOf(options.provider).signsReasoning === true || isTroupe(options)

const isReadable = (maker: string, options: DeploymentOptions): boolean =>
  maker === makerOf(options) || makerThere(maker, options) !== undefined

/** The signed reasoning of a message that a deployment can read. */
export const readableBy = (
  { reasoning = [] }: Pick<Message, "reasoning">,
  options: DeploymentOptions
): ReadonlyArray<SignedReasoning> => {
  if (reasoning.length === 0 || !readsSigned(options)) return []
  return reasoning.filter(({ maker }) => maker === undefined || isReadable(maker, options))
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

/** The fields of the caller's body that a deployment must not get. */
const lostFields = (
  source: Source,
  options: DeploymentOptions,
  tried: ReadonlyArray<Deployment>,
  makerIn: MakerIn
): ReadonlyArray<UnknownField> => {
  const fields = fieldsOf(source)
  const reads = (options: DeploymentOptions) => dialectOf(options) === source.dialect
  if (fields.length === 0) return fields
  // A sealed signature is in the messages, too, with its maker.
  const sealedIn = (mark: string): string | undefined => unseal(mark)?.maker
  if (!reads(options)) {
    return fields.filter(({ path }) =>
      !marksIn(valueAt(source, path)).some((mark) => {
        const maker = sealedIn(mark)
        return maker !== undefined && isReadable(maker, options)
      })
    )
  }
  const own = makerOf(options)
  const losesUnknown = isOther(options, tried, reads)
  return fields.filter(({ path }) => {
    const makers = marksIn(valueAt(source, path)).flatMap((mark) => makerIn(mark) ?? sealedIn(mark) ?? [])
    return makers.length === 0 ? losesUnknown : makers.some((maker) => maker !== own)
  })
}

/** The signatures and encrypted texts in the caller's own body whose maker is not known, in the order of the body. */
export const unknownMarks = (source: Source, makerIn: MakerIn): ReadonlyArray<string> =>
  fieldsOf(source).flatMap(({ path }) =>
    marksIn(valueAt(source, path)).filter((mark) => unseal(mark) === undefined && makerIn(mark) === undefined)
  )

const losesParts = (messages: NonNullable<Request["messages"]>, options: DeploymentOptions, keepsUnknown: boolean) => {
  const isUnread = (message: Pick<Message, "reasoning">) =>
    readableBy(message, options).length < message.reasoning!.length ||
    message.reasoning!.some(({ maker }) => maker === undefined) && !keepsUnknown
  return messages.some((message) => (message.reasoning?.length ?? 0) > 0 && isUnread(message))
}

/** What an attempt loses of the reasoning of earlier answers. */
export interface Loss {
  /** Also what is only for its maker: a provider has rejected it. */
  readonly isAll: boolean
  /** Reasoning of messages whose maker is not known stays. */
  readonly keepsUnknown: boolean
  /** Of the caller's own body. */
  readonly fields: ReadonlyArray<UnknownField>
}

/**
 * What an attempt at a deployment loses of the reasoning of earlier answers; undefined: nothing.
 *
 * @param tried the deployments that the request was sent to before, in order
 */
export const lossOf = (
  { messages = [], source }: Request,
  { options }: Deployment,
  tried: ReadonlyArray<Deployment>,
  makerIn: MakerIn
): Loss | undefined => {
  const keepsUnknown = readsSigned(options) && !isOther(options, tried, readsSigned)
  const fields = source === undefined ? [] : lostFields(source, options, tried, makerIn)
  const isLost = fields.length > 0 || losesItems(source, options) || losesParts(messages, options, keepsUnknown)
  return isLost ? { isAll: false, keepsUnknown, fields } : undefined
}

/** The loss of all of it. */
export const wholeLoss = ({ source }: Request): Loss => ({
  isAll: true,
  keepsUnknown: false,
  fields: source === undefined ? [] : fieldsOf(source)
})

const blocksOf = (message: unknown): ReadonlyArray<Fields> => {
  const content = (message as Fields | undefined)?.["content"]
  return Array.isArray(content) ? content as ReadonlyArray<Fields> : []
}

/** Whether the last message is the result of a call that has no thoughts before it. */
const endsUnthought = ({ body }: Source): boolean => {
  const messages = body["messages"]
  if (!Array.isArray(messages) || !blocksOf(messages.at(-1)).some(({ type }) => type === "tool_result")) return false
  return !blocksOf(messages.findLast((message) => (message as Fields)["role"] === "assistant")).some(isSigned)
}

/** The message with that reasoning alone which passes, and with the text of all of it. */
const withReasoning = (message: Message, passes: (one: SignedReasoning) => boolean): Message =>
  message.reasoning === undefined ? message : {
    ...message,
    thoughts: thoughtsOf(message),
    reasoning: message.reasoning.filter(passes)
  }

/** The caller's body without these fields, and without messages that had nothing else. */
const withoutReasoning = (source: Source, fields: ReadonlyArray<UnknownField>): Source => {
  const kept = withoutFields(source, fields)
  const messages = (kept.body["messages"] ?? []) as ReadonlyArray<unknown>
  const isEmptied = (message: unknown, index: number) =>
    (message as Fields)["content"] === undefined &&
    fields.some(({ path }) => path[1] === index && path[2] === "content")
  const empty = messages.flatMap((message, index) => isEmptied(message, index) ? [{ path: ["messages", index] }] : [])
  const { thinking } = kept.body as { readonly thinking?: Fields }
  const spoken = empty.length === 0 ? kept : withoutFields(kept, empty)
  return thinking?.["type"] === "enabled" && endsUnthought(spoken) ? without(spoken, ["thinking"]) : spoken
}

/** The request without encrypted reasoning of the Responses API. A summary of the conversation stays. */
const withoutItems = (source: Source): Source => {
  const { responses } = source
  const input = responses?.body["input"]
  if (responses === undefined || !Array.isArray(input)) return source
  const kept = input.map((item: unknown) => {
    const { encrypted_content: content, ...others } = (item ?? {}) as Fields
    return others["type"] === "reasoning" && content !== undefined ? others : item
  })
  return { ...source, responses: { ...responses, body: { ...responses.body, input: kept } } }
}

/** The generation without what an attempt loses. */
export const withoutIt = (generation: Generation, { fields, isAll, keepsUnknown }: Loss): Generation => {
  const { source } = generation
  const passes = ({ maker }: SignedReasoning) => !isAll && (maker !== undefined || keepsUnknown)
  const messages = generation.messages.map((one) => withReasoning(one, passes))
  if (source === undefined) return { ...generation, messages }
  const kept = fields.length === 0 ? source : withoutReasoning(source, fields)
  return { ...generation, messages, source: isAll ? withoutItems(kept) : kept }
}
