/**
 * The content of a message: a text, or parts that are texts and images. Plain data.
 *
 * **Details**
 *
 * A message of one text is a plain string. An image is its bytes in base64, or an `http` or `https` URL. Only `user`
 * and `tool` messages may have images; they require the capability `images`.
 *
 * **Example**
 *
 * ```ts
 * const question: Inference.Message = {
 *   role: "user",
 *   content: [
 *     { type: "text", text: "What is this?" },
 *     { type: "image", source: { type: "url", url: "https://example.com/cat.png" } }
 *   ]
 * }
 * ```
 */
import { Schema } from "effect"
import type { ChatMessage } from "./Job.ts"
import { hostOf, isPrivateHost } from "./PublicAddress.ts"

/** The image formats that every provider with image input accepts. */
export const mediaTypes = ["image/png", "image/jpeg", "image/gif", "image/webp"] as const
export type MediaType = typeof mediaTypes[number]

/** The first characters of images in base64: PNG and GIF by their signature, JPEG by its marker, WebP by its container. */
const beginnings: ReadonlyArray<readonly [begin: RegExp, mediaType: MediaType]> = [
  [/^iVBORw0KGgo/, "image/png"],
  [/^\/9j\//, "image/jpeg"],
  [/^R0lGOD/, "image/gif"],
  [/^UklGR.{6}XRUJQ/, "image/webp"]
]

/** The format of an image in base64, by its first bytes; undefined if it is none of `mediaTypes`. */
export const mediaTypeOf = (base64: string): MediaType | undefined =>
  beginnings.find(([begin]) => begin.test(base64))?.[1]

/** Bytes of one image, before base64. */
export const mostImageBytes = 20 * 1024 * 1024

/** Images of one request. */
export const mostImages = 100

const mostUrlCharacters = 8192

/** The number of bytes that a base64 text encodes. */
export const bytesOf = (base64: string): number =>
  base64.length / 4 * 3 - (base64.endsWith("==") ? 2 : base64.endsWith("=") ? 1 : 0)

const base64Problem = (text: string): string | undefined => {
  if (text === "" || text.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return "Expected bytes in base64"
  return bytesOf(text) > mostImageBytes
    ? `Expected an image of at most ${mostImageBytes} bytes, not ${bytesOf(text)}`
    : undefined
}

const isUrl = (text: string): boolean => {
  const url = URL.parse(text)
  return url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.password === ""
}

/** A text among other parts. */
export const TextPart = Schema.Struct({ type: Schema.Literal("text"), text: Schema.String })
export type TextPart = typeof TextPart.Type

/** Where an image comes from. */
export const ImageSource = Schema.Union([
  Schema.Struct({
    type: Schema.Literal("base64"),
    mediaType: Schema.Literals(mediaTypes),
    /** At most `mostImageBytes`. */
    data: Schema.String.check(Schema.makeFilter(base64Problem))
  }),
  Schema.Struct({
    type: Schema.Literal("url"),
    url: Schema.String.check(
      Schema.isMaxLength(mostUrlCharacters),
      Schema.makeFilter((text: string) => isUrl(text) ? undefined : "Expected an http or https URL without credentials")
    )
  })
])
export type ImageSource = typeof ImageSource.Type

/** The resolution at which a model reads the image; providers without such an option choose it themselves. */
export const Detail = Schema.Literals(["auto", "low", "high"])
export type Detail = typeof Detail.Type

export const ImagePart = Schema.Struct({
  type: Schema.Literal("image"),
  source: ImageSource,
  /** Default `auto`. */
  detail: Schema.optional(Detail)
})
export type ImagePart = typeof ImagePart.Type

export const Part = Schema.Union([TextPart, ImagePart])
export type Part = typeof Part.Type

/** A text, or parts in their order. */
export const Content = Schema.Union([Schema.String, Schema.Array(Part)])
export type Content = typeof Content.Type

/** The provider and host that made it, by `SignedReasoning.makerOf`: no other gets it. Default the first that is tried. */
const maker = Schema.optional(Schema.String)

/** Reasoning that its provider has signed, or encrypted: the provider needs it back unchanged, at least between calls of tools. */
export const SignedReasoning = Schema.Union([
  Schema.Struct({ type: Schema.Literal("thinking"), thinking: Schema.String, signature: Schema.NonEmptyString, maker }),
  Schema.Struct({ type: Schema.Literal("redacted_thinking"), data: Schema.NonEmptyString, maker })
])
export type SignedReasoning = typeof SignedReasoning.Type

/** One message of a conversation, with its images. */
export interface Message extends Omit<ChatMessage, "content"> {
  readonly content: Content
  readonly reasoning?: ReadonlyArray<SignedReasoning> | undefined
}

/** The texts joined, without the images between them. */
export const textOf = (content: Content): string =>
  typeof content === "string" ? content : content.map((part) => part.type === "text" ? part.text : "").join("")

/** In the order of the message; a plain text is one part, and an empty one none. */
export const partsOf = (content: Content): ReadonlyArray<Part> => {
  if (typeof content === "string") return content === "" ? [] : [{ type: "text", text: content }]
  return content.filter((part) => part.type !== "text" || part.text !== "")
}

const imageIn = (content: Content): number =>
  typeof content === "string" ? -1 : content.findIndex(({ type }) => type === "image")

/** The path of the first image, as `messages[0].content[1]`. */
export const firstImage = (messages: ReadonlyArray<Message>): string | undefined => {
  for (let index = 0; index < messages.length; index++) {
    const part = imageIn(messages[index]!.content)
    if (part >= 0) return `messages[${index}].content[${part}]`
  }
  return undefined
}

/** The path of the first image in the result of a tool, which most providers accept as text only. */
export const imageOfTool = (messages: ReadonlyArray<Message>): string | undefined => {
  const index = messages.findIndex(({ content, role }) => role === "tool" && imageIn(content) >= 0)
  return index < 0 ? undefined : `messages[${index}].content[${imageIn(messages[index]!.content)}]`
}

const isPrivate = (part: Part): boolean => {
  if (part.type !== "image" || part.source.type !== "url") return false
  const url = URL.parse(part.source.url)
  return url === null || isPrivateHost(hostOf(url))
}

/** The path of the first image at the URL of a host that is not in the public Internet by its name. */
export const privateImage = (messages: ReadonlyArray<Message>): string | undefined => {
  for (const [index, { content }] of messages.entries()) {
    const part = typeof content === "string" ? -1 : content.findIndex(isPrivate)
    if (part >= 0) return `messages[${index}].content[${part}].source.url`
  }
  return undefined
}

/** The text of an assistant's thoughts: those of signed reasoning where the message has no others; undefined if it has none. */
export const thoughtsOf = ({ reasoning, thoughts }: Pick<Message, "reasoning" | "thoughts">): string | undefined => {
  const text = thoughts ?? reasoning?.map((one) => one.type === "thinking" ? one.thinking : "").join("")
  return text === "" ? undefined : text
}

const isPlain = (message: Message): message is ChatMessage =>
  typeof message.content === "string" && message.reasoning === undefined

/** The messages without images and signatures, for local engines; the same list where all are plain texts. */
export const texts = (messages: ReadonlyArray<Message>): ReadonlyArray<ChatMessage> =>
  messages.every(isPlain)
    ? messages
    : messages.map(({ reasoning, ...message }) => ({
      ...message,
      content: textOf(message.content),
      thoughts: thoughtsOf({ reasoning, thoughts: message.thoughts })
    }))

const countImages = (messages: ReadonlyArray<Message>): number =>
  messages.reduce(
    (sum, { content }) =>
      typeof content === "string" ? sum : sum + content.filter(({ type }) => type === "image").length,
    0
  )

interface Problem {
  readonly path: ReadonlyArray<string | number>
  readonly issue: string
}

/** What is wrong with a conversation's images as a whole, by their path from the list of messages. */
export const problem = (messages: ReadonlyArray<Message>): Problem | undefined => {
  const index = messages.findIndex(({ content, role }) => role !== "user" && role !== "tool" && imageIn(content) >= 0)
  if (index >= 0) {
    return { path: [index, "content"], issue: "Expected images in messages of users and tools only" }
  }
  const count = countImages(messages)
  return count > mostImages ? { path: [], issue: `Expected at most ${mostImages} images, not ${count}` } : undefined
}

/** The problem of an image in a request that accepts none. */
export const imageProblem = (messages: ReadonlyArray<Message>): Problem | undefined => {
  const index = messages.findIndex(({ content }) => imageIn(content) >= 0)
  return index < 0 ? undefined : {
    path: [index, "content", imageIn(messages[index]!.content)],
    issue: "Expected text: the tokens of an image cannot be counted"
  }
}
