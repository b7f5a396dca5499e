/**
 * The Responses API of providers: requests of that API go to a deployment's own endpoint, where it has one. Pure.
 *
 * **Details**
 *
 * A dialect of chats gets the endpoint beside its own. Which requests go there, `Source.isResponse` says; others, and those that
 * continue the text of another deployment, are chats. The provider is sent the caller's body with the items of the whole
 * conversation, and stores nothing.
 *
 * Items have no ids at the provider, except those that other items refer to. Reasoning goes back in its encrypted form, to the
 * host that made it, with the id that it had there: OpenAI compares the two ("Encrypted content item_id did not match the
 * target item id") and does not know items that it has not stored.
 */
import { Result } from "effect"
import type { Generation } from "../../domain/Generation.ts"
import { providerKindOf } from "../../domain/ProviderKind.ts"
import { makerOf, unseal } from "../../domain/SignedReasoning.ts"
import { isOwnHost } from "../../domain/Source.ts"
import type { Host } from "../openai/EncodeRequest.ts"
import { reasons } from "../openai/Reasoning.ts"
import type { Fields } from "../shared/Json.ts"
import { isObject, listOf, textAt } from "../shared/Json.ts"
import type { Call, Dialect, FetchedImages, Generating, Target } from "../shared/ProviderDialect.ts"
import { ofContent } from "../shared/SignedFields.ts"
import { isReadable, summaryOf } from "./Compaction.ts"
import { buffered, events, usageIn } from "./DecodeNative.ts"

const encrypted = "reasoning.encrypted_content"

/** The encrypted content of an item for this host; undefined if it is of another one. */
const contentFor = (target: Target, content: unknown): Fields | undefined => {
  const sealed = unseal(content)
  if (sealed === undefined) {
    // Signed reasoning of another API is in the messages.
    return typeof content === "string" && ofContent(content).length === 0 ? { encrypted_content: content } : undefined
  }
  if (sealed.maker !== makerOf(target.options)) return undefined
  return { ...(sealed.id === "" ? {} : { id: sealed.id }), encrypted_content: sealed.content }
}

const reasoningFor = (target: Target, item: Fields): Fields | undefined => {
  const { content, encrypted_content: _, id, summary } = item
  const own = contentFor(target, item["encrypted_content"])
  if (own !== undefined) return { type: "reasoning", summary: listOf(summary), ...own }
  // A model whose reasoning is not encrypted reads the text.
  return isOwnHost(target.options) || !Array.isArray(content)
    ? undefined
    : { type: "reasoning", id, summary: listOf(summary), content }
}

const compactionFor = (target: Target, { encrypted_content: content }: Fields): Fields | undefined => {
  if (isReadable(content as string)) {
    return {
      type: "message",
      role: "developer",
      content: [{ type: "input_text", text: summaryOf(content as string) }]
    }
  }
  const own = contentFor(target, content)
  return own && { type: "compaction", ...own }
}

const partFor = (part: unknown, fetched: FetchedImages | undefined): unknown => {
  if (!isObject(part)) return part
  const { logprobs: _, ...kept } = part
  const image = fetched?.get(textAt(part, "image_url") ?? "")
  if (image !== undefined) return { ...kept, image_url: `data:${image.mediaType};base64,${image.data}` }
  return part["file_id"] === null
    ? Object.fromEntries(Object.entries(kept).filter(([, value]) => value !== null))
    : kept
}

/** Items that nothing refers to by their id. */
const withoutId: ReadonlySet<unknown> = new Set([
  "message",
  "function_call",
  "function_call_output",
  "custom_tool_call",
  "custom_tool_call_output"
])

/** A stored item as the provider gets it; undefined if it is left out. */
const itemFor = (target: Target, item: Fields, fetched: FetchedImages | undefined): Fields | undefined => {
  if (item["type"] === "reasoning") return reasoningFor(target, item)
  if (item["type"] === "compaction") return compactionFor(target, item)
  if (!withoutId.has(item["type"])) return item
  const { id: _, status: __, ...kept } = item
  const partsIn = (name: string): Fields =>
    Array.isArray(kept[name]) ? { [name]: listOf(kept[name]).map((part) => partFor(part, fetched)) } : {}
  return { ...kept, ...partsIn("content"), ...partsIn("output") }
}

/** What the answer includes: encrypted reasoning always, where the model reasons. */
const includeOf = ({ include }: Fields, target: Target): Fields => {
  const given = listOf(include)
  if (given.includes(encrypted) || !reasons(target)) return given.length === 0 ? {} : { include: given }
  return { include: [...given, encrypted] }
}

/** The limit of the answer, as the request or the deployment has it. */
const limitOf = ({ maxTokens }: Generation, body: Fields, target: Target): Fields => {
  const limit = maxTokens ?? (body["max_output_tokens"] === undefined ? target.options.maxTokens : undefined)
  return limit === undefined ? {} : { max_output_tokens: limit }
}

/** Fields of a request that are Troupe's own. */
const own: ReadonlySet<string> = new Set(["keep_alive", "priority", "troupe"])

/** The encoder for a host. */
const makeRequests = ({ headers }: Host) =>
(
  generation: Generation,
  target: Target,
  stream: boolean,
  fetched: FetchedImages | undefined
): Result.Result<Call> => {
  const given = generation.source?.responses?.body ?? {}
  const body = Object.fromEntries(Object.entries(given).filter(([name]) => !own.has(name) && name !== "include"))
  return Result.succeed({
    path: providerKindOf(target.options.provider).responses!,
    headers: headers(target),
    body: {
      ...body,
      model: target.options.model,
      input: listOf(given["input"]).flatMap((item) => itemFor(target, item as Fields, fetched) ?? []),
      store: false,
      ...limitOf(generation, given, target),
      ...includeOf(given, target),
      ...(stream ? { stream } : {})
    }
  })
}

/** The codec of the endpoint at a host. */
const generating = (host: Host): Generating => {
  const whole = makeRequests(host)
  return {
    request: (generation, target, stream) => whole(generation, target, stream, undefined),
    whole,
    events,
    buffered,
    usageIn
  }
}

/**
 * A dialect with the Responses API.
 *
 * @param host whose headers the endpoint has
 */
export const withResponses = (dialect: Dialect, host: Host): Dialect => ({ ...dialect, respond: generating(host) })
