/** The part of a request that decides which deployments can answer it, and the capabilities that it requires. Pure. */
import type { EngineCapability } from "./EngineProtocol.ts"
import { engineCapabilities } from "./EngineProtocol.ts"
import type { EmbedRequest, Request, TokenizeRequest } from "./Inference.ts"
import { firstImage } from "./Message.ts"
import type { RoutingOptions } from "./RoutingOptions.ts"
import * as Source from "./Source.ts"

/** A capability that a request can need of its deployment. */
export type RequiredCapability = EngineCapability | "count" | Source.Capability

export const requiredCapabilities: ReadonlyArray<RequiredCapability> = [
  ...engineCapabilities,
  "count",
  ...Source.capabilities
]

/** One bit for each capability. */
export const bitsOf = (some: ReadonlyArray<RequiredCapability>): number =>
  some.reduce((bits, capability) => bits | 1 << requiredCapabilities.indexOf(capability), 0)

export interface RoutingRequest {
  readonly model: string
  /** All capabilities that the request needs of its deployment. */
  readonly capabilities: ReadonlyArray<RequiredCapability>
  /** The fields of the request that need a capability, for the error if no deployment has it. */
  pathsOf?(capability: string): ReadonlyArray<string>
  /** The caller's own request, with the fields of it that Troupe does not know. */
  readonly source?: Source.Source | undefined
  /** The most tokens to generate. */
  readonly maxTokens?: number | undefined
  readonly tenant?: string | undefined
  /** Options of this request, over the configuration of its model. */
  readonly route?: RoutingOptions | undefined
  /** Tokens of the prompt at least; left out, no context window is too small. */
  readonly promptTokens?: number | undefined
  /** The length of the prompt by `promptLengthOf`, for its cost. */
  readonly promptLength?: number | undefined
  /** The prompt as one text that begins as the engine's own prompt does; called only if the strategy needs it. */
  promptText?(): string
}

/** The version of a model that takes one request, where a rollout divides the model's requests. */
export interface Split {
  /** Deployments that take no requests, unless a request names them. */
  readonly withheld: ReadonlySet<string>
  /** The one of them that gets copies of requests; left out, none. */
  readonly copied?: string | undefined
  /** The version that takes this request: the deployment that is tried before the others. */
  readonly first?: string | undefined
  /** The deployment that is tried after the others. */
  readonly last?: string | undefined
  /** The hash of the session, of a request that is compared. */
  readonly session?: number | undefined
}

/** What a decision depends on besides the request and the deployments. */
export interface Moment {
  /** monotonic ms */
  readonly now: number
  /** A 32-bit random number: every random choice of the decision follows from it. */
  readonly seed: number
  /** Requests for the model that were routed before this one, for `round-robin`. */
  readonly turn: number
  /** The share of the prompt that each deployment has cached, by index, from 0 to 1; for `prefix`. */
  readonly prefixShares?: ArrayLike<number> | undefined
  /** Left out: the model has no rollout. */
  readonly split?: Split | undefined
}

/** Tokens of an answer without a limit. */
export const usualAnswer = 256

/** Estimate for text that has not been counted; usual for English. */
export const bytesPerToken = 4

/** Chinese, Japanese and Korean characters; full-width forms. One test costs nothing for a string of Latin-1 characters. */
const dense = /[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef]/
const allDense = new RegExp(dense, "g")

/**
 * The length of English text with as many tokens, characters: a Chinese, Japanese or Korean character is about one token,
 * as four characters of English are (Petrov et al., "Language Model Tokenizers Introduce Unfairness Between Languages", 2023).
 */
export const promptLengthOf = (text: string): number => {
  if (!dense.test(text)) return text.length
  return text.length + (bytesPerToken - 1) * text.match(allDense)!.length
}

/** Tokens of a text that has not been counted. */
export const estimateTokens = (bytes: number): number => Math.ceil(bytes / bytesPerToken)

/** Tokens of the prompt, counted or estimated; 0 if its length is unknown. */
export const promptTokensOf = ({ promptLength, promptTokens }: RoutingRequest): number =>
  promptTokens ?? (promptLength === undefined ? 0 : estimateTokens(promptLength))

/** The fields of a request that may require a capability. */
type CapabilityFields = Pick<
  Request,
  "completion" | "format" | "logprobs" | "messages" | "source" | "toolChoice" | "tools"
>

const none: ReadonlyArray<RequiredCapability> = []

/** Of a chat without tools and other extras. */
const onlyText: ReadonlyArray<RequiredCapability> = ["generate"]

/** Whether there are images. A content of one text has none. */
export const hasImages = (messages: Request["messages"]): boolean =>
  messages.some(({ content }) => typeof content !== "string") && firstImage(messages) !== undefined

/** The dialect whose fields the request needs, if any. */
const requiredByFields = ({ source }: Pick<Request, "source">): ReadonlyArray<RequiredCapability> => {
  const required = Source.capabilityFor(source)
  return required === undefined ? none : [required]
}

/** The capabilities that a chat request requires in addition to text. */
const extrasOf = (request: CapabilityFields): ReadonlyArray<RequiredCapability> => {
  const { completion, format, logprobs, messages, toolChoice, tools = none } = request
  const extras: Array<RequiredCapability> = []
  // Tools that must not be called are left out where a model does not know any.
  if (tools.length > 0 && toolChoice !== "none") extras.push("tools")
  if (format !== undefined) extras.push("format")
  if (logprobs !== undefined) extras.push("logprobs")
  if (completion?.echo === true) extras.push("echo")
  if (hasImages(messages)) extras.push("images")
  extras.push(...requiredByFields(request))
  return extras
}

/** The capabilities that a chat request requires. */
export const requiredByChat = (request: CapabilityFields): ReadonlyArray<RequiredCapability> => {
  const extras = extrasOf(request)
  if (request.completion !== undefined) return ["complete", ...extras]
  return extras.length === 0 ? onlyText : ["generate", ...extras]
}

/** The paths of the fields that require the capability. */
export const pathsOf = ({ messages }: Pick<Request, "messages">, capability: string): ReadonlyArray<string> => {
  if (capability === "images") return [firstImage(messages) ?? "messages"]
  return [capability === "generate" || capability === "complete" || capability === "count" ? "model" : capability]
}

/** The capabilities that counting the tokens of a conversation requires. */
export const requiredByCount = (request: CapabilityFields): ReadonlyArray<RequiredCapability> => [
  "count",
  ...requiredByChat(request).filter((capability) => capability !== "generate")
]

/** The capabilities that embedding requires. */
export const requiredByEmbedding = (
  request: Pick<EmbedRequest, "source" | "tokens">
): ReadonlyArray<RequiredCapability> => [
  "embed",
  ...(request.tokens === undefined ? none : ["embedTokens" as const]),
  ...requiredByFields(request)
]

/** The capabilities that tokenizing a text or a conversation requires. */
export const requiredByTokenize = ({ input }: TokenizeRequest): ReadonlyArray<RequiredCapability> => {
  if (typeof input === "string") return ["tokenize"]
  const required: Array<RequiredCapability> = ["tokenize"]
  if ((input.tools ?? []).length > 0) required.push("tools")
  if (hasImages(input.messages)) required.push("images")
  return required
}

/**
 * The results of the request that only the requested model has, if any: vectors and token ids of another model cannot be
 * used with them, and do not show it. A count of tokens is an estimate that any model may give.
 */
export const boundToModel = ({ capabilities }: Pick<RoutingRequest, "capabilities">): string | undefined => {
  if (capabilities.includes("embed")) return "vectors"
  return capabilities.includes("tokenize") ? "token ids" : undefined
}

/** The path of the field that requires the capability. */
export const pathOfTokenize = ({ input }: TokenizeRequest, capability: string): string => {
  if (typeof input === "string" || capability === "tokenize") return "model"
  return capability === "images" ? `input.${firstImage(input.messages)}` : `input.${capability}`
}
