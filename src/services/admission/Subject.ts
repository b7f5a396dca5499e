/** Who asks for what and how much, as limits and budgets count it. Pure. */
import type { Source } from "../../domain/Source.ts"

/** What a limit or a budget counts by. */
export const dimensions = ["key", "user", "tenant", "model", "endpoint"] as const
export type Dimension = (typeof dimensions)[number]

/** A request's values of the dimensions; empty where it has none. */
export interface Subject extends Readonly<Record<Dimension, string>> {
  /** The name of the key, whose id is `key`: rules apply to keys by name, and counters count by id. */
  readonly keyName?: string | undefined
}

/** What keys of copies of requests begin with: no id of a virtual key does. */
const copies = "shadow:"

/** The key that copies of a model's requests have in the ledger. */
export const keyOfCopies = (model: string): string => `${copies}${model}`

/** Whether a copy of a caller's request was counted, for which no caller pays. */
export const isCopy = ({ key }: Pick<Subject, "key">): boolean => key.startsWith(copies)

/** Separates the values of a counter's name: no value has it. */
const separator = "\u001f"

/** The name of a counter: requests with the same values of these dimensions share it. */
export const counterOf = (by: ReadonlyArray<Dimension>, subject: Subject): string => {
  const [only = "key", second] = by
  if (by.length === 0) return ""
  if (second === undefined) return subject[only]
  return by.map((dimension) => subject[dimension]).join(separator)
}

const describeBy = (by: ReadonlyArray<Dimension>, valueOf: (dimension: Dimension) => string): string =>
  by.length === 0 ? "all requests" : by.map((dimension) => `${dimension} ${valueOf(dimension) || "(none)"}`).join(", ")

/**
 * As `key team-a, endpoint chat`, for errors and logs. The name of a user, which may be personal, is not in it: `user of key
 * team-a`.
 */
export const describe = (by: ReadonlyArray<Dimension>, subject: Subject): string =>
  describeBy(
    by,
    (dimension) => dimension === "user" && subject.user !== "" ? `of key ${subject.key}` : subject[dimension]
  )

/** As `user alice, key app (key_1)`, for reports to administrators. */
export const describeUser = (by: ReadonlyArray<Dimension>, subject: Subject): string =>
  describeBy(by, (dimension) =>
    dimension === "key" && subject.keyName !== undefined
      ? `${subject.keyName} (${subject.key})`
      : subject[dimension])

/** More than providers count for one image. */
const tokensPerImage = 5_000

/** More than a template adds to a message. */
const tokensPerMessage = 16

/** A request, with all that its prompt is made of. */
export interface Prompt {
  readonly messages?: ReadonlyArray<unknown> | undefined
  readonly source?: Source | undefined
}

type Fields = Readonly<Record<string, unknown>>

const isImageData = (parent: Fields, text: string): boolean =>
  text.startsWith("data:image/") || String(parent["media_type"] ?? parent["mediaType"]).startsWith("image/")

const imageTypes = new Set<unknown>(["image", "image_url", "input_image"])

/** The images that a value is: an object, or a list of base64 in Ollama's API. */
const imagesIn = (name: string, value: unknown, source: Source | undefined): number => {
  if (!Array.isArray(value)) return imageTypes.has((value as Fields | null)?.["type"]) ? 1 : 0
  return name === "images" && source?.dialect === "ollama" ? value.length : 0
}

/** Fields of a request that are no part of the prompt. */
const notInPrompt = new Set(["identity", "route", "source", "keepAlive", "tenant"])

/** The longest text that is counted without a look at what it is, characters. */
const shortText = 1_000

/**
 * The text of a request whose prompt is searched for images: their data is left out.
 *
 * @param source whose body is given; undefined for a request of a program
 */
const withoutImages = (
  given: unknown,
  source: Source | undefined
): { readonly text: string; readonly images: number } => {
  let images = 0
  const text = JSON.stringify(given, function(this: Fields, key, value: unknown) {
    if (typeof value === "string") return value.length > shortText && isImageData(this, value) ? "" : value
    if (source === undefined && notInPrompt.has(key)) return undefined
    if (typeof value === "bigint") return String(value)
    const found = imagesIn(key, value, source)
    images += found
    return found > 0 && Array.isArray(value) ? undefined : value
  })
  return { text, images }
}

/** The text of a body that a dialect has parsed. Images are named so in all dialects: most bodies need no search. */
const textOfBody = (source: Source): { readonly text: string; readonly images: number } => {
  const text = JSON.stringify(source.body)
  return text.includes("image") ? withoutImages(source.body, source) : { text, images: 0 }
}

const mostTokens = (text: string, images: number, messages: number): number =>
  Buffer.byteLength(text) + tokensPerMessage * (messages + 1) + tokensPerImage * images

/** Of a request to a Responses API, whose items may have no translation. */
const mostOfResponse = (body: Fields): number => {
  const { images, text } = withoutImages(body, undefined)
  return mostTokens(text, images, Array.isArray(body["input"]) ? body["input"].length : 1)
}

/**
 * The most tokens that the prompt of a request can have: more than it has, so that it never costs more. A token has at least
 * one byte. An image counts as `tokensPerImage`, however it is given.
 */
export const mostPromptTokens = (request: Prompt): number => {
  const { messages = [], source } = request
  // A dialect's body is the whole request; that of a program has further fields only.
  const { images, text } = source?.isChecked === true
    ? textOfBody(source)
    : withoutImages({ ...request, more: source?.body }, undefined)
  const most = mostTokens(text, images, messages.length)
  return source?.responses === undefined ? most : Math.max(most, mostOfResponse(source.responses.body))
}

/** The requests of a call with several prompts or choices. */
export interface Siblings {
  readonly requests: number
  /** Of all together. */
  readonly promptTokens: number
}

/** The most tokens that the prompts of all requests of the call can have; undefined for a request alone. */
export const siblingsOf = (request: Prompt): Siblings | undefined => {
  const { source } = request
  if (source?.siblings === undefined) return undefined
  let promptTokens = 0
  for (const body of source.siblings) promptTokens += mostPromptTokens({ ...request, source: { ...source, body } })
  return { requests: source.siblings.length, promptTokens }
}

/** Answers that one request asks a provider for. */
export const choicesOf = ({ source }: Prompt): number => {
  const n = source?.body["n"]
  return source?.isChecked === true && typeof n === "number" ? n : 1
}
