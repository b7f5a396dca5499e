/**
 * A prompt of the AI SDK as Troupe's messages.
 *
 * **Details**
 *
 * Images become images, and files of text become text; other files are rejected. Reasoning of earlier answers is kept as
 * text, and with its signature where `providerOptions.troupe` has one. What a provider has executed itself is left out.
 */
import type {
  LanguageModelV4FilePart,
  LanguageModelV4Message,
  LanguageModelV4Prompt,
  LanguageModelV4ToolResultOutput,
  LanguageModelV4ToolResultPart
} from "@ai-sdk/provider"
import { UnsupportedFunctionalityError } from "@ai-sdk/provider"
import type { Message } from "../../domain/Inference.ts"
import type { Content, MediaType, Part, SignedReasoning } from "../../domain/Message.ts"
import { mediaTypeOf, mediaTypes, textOf } from "../../domain/Message.ts"

type File = Pick<LanguageModelV4FilePart, "data" | "mediaType">

const base64Of = (data: Uint8Array | string): string =>
  typeof data === "string" ? data : Buffer.from(data).toString("base64")

const unsupported = ({ data, mediaType }: File): UnsupportedFunctionalityError =>
  new UnsupportedFunctionalityError({
    functionality: `file part ${mediaType}`,
    message: `A file of the type ${mediaType}, given as ${data.type}, is not supported. Supported: images ` +
      `(${mediaTypes.join(", ")}) as bytes or https URLs, and text files.`
  })

/** The type may be `image` or `image/*`: the bytes say which. */
const imageTypeOf = (mediaType: string, base64: string): MediaType | undefined =>
  mediaTypes.find((one) => one === mediaType.toLowerCase()) ?? mediaTypeOf(base64)

const partOf = (file: File): Part => {
  const { data, mediaType } = file
  const isImage = /^image(?:\/|$)/i.test(mediaType)
  if (isImage && data.type === "url") return { type: "image", source: { type: "url", url: data.url.href } }
  if (data.type === "text") return { type: "text", text: data.text }
  if (data.type !== "data") throw unsupported(file)
  const base64 = base64Of(data.data)
  if (/^text(?:\/|$)/i.test(mediaType)) return { type: "text", text: Buffer.from(base64, "base64").toString() }
  const type = isImage ? imageTypeOf(mediaType, base64) : undefined
  if (type === undefined) throw unsupported(file)
  return { type: "image", source: { type: "base64", mediaType: type, data: base64 } }
}

/** Parts that are all texts become one text. */
const contentOf = (parts: ReadonlyArray<Part>): Content =>
  parts.some(({ type }) => type === "image") ? parts : textOf(parts)

/** What the model reads of a tool's result. */
const resultOf = (output: LanguageModelV4ToolResultOutput): Content => {
  switch (output.type) {
    case "text":
    case "error-text":
      return output.value
    case "json":
    case "error-json":
      return JSON.stringify(output.value)
    case "execution-denied":
      return output.reason ?? "The execution of the tool was denied."
    case "content":
      return contentOf(output.value.flatMap((part): ReadonlyArray<Part> => {
        if (part.type === "text") return [{ type: "text", text: part.text }]
        return part.type === "file" ? [partOf(part)] : []
      }))
  }
}

const resultMessage = ({ output, toolCallId }: LanguageModelV4ToolResultPart): Message => ({
  role: "tool",
  content: resultOf(output),
  toolCallId
})

type Assistant = Extract<LanguageModelV4Message, { role: "assistant" }>

type ReasoningPart = Extract<Assistant["content"][number], { type: "reasoning" }>

/** By `providerMetadata` of the answer, which the AI SDK keeps in the part. */
const signedOf = ({ providerOptions, text }: ReasoningPart): SignedReasoning | undefined => {
  const { maker, redactedData, signature } = providerOptions?.["troupe"] ?? {}
  const made = typeof maker === "string" ? { maker } : {}
  if (typeof signature === "string") return { type: "thinking", thinking: text, signature, ...made }
  return typeof redactedData === "string" ? { type: "redacted_thinking", data: redactedData, ...made } : undefined
}

const assistantMessage = ({ content }: Assistant): Message => {
  const file = content.find((part) => part.type === "file")
  if (file !== undefined) throw unsupported(file)
  const toolCalls = content.flatMap((part) =>
    part.type === "tool-call" && part.providerExecuted !== true
      ? [{ id: part.toolCallId, name: part.toolName, arguments: JSON.stringify(part.input ?? {}) }]
      : []
  )
  const text = content.map((part) => part.type === "text" ? part.text : "").join("")
  const thoughts = content.map((part) => part.type === "reasoning" ? part.text : "").join("")
  const reasoning = content.flatMap((part) => part.type === "reasoning" ? signedOf(part) ?? [] : [])
  return {
    role: "assistant",
    content: text,
    ...(thoughts === "" ? {} : { thoughts }),
    ...(reasoning.length === 0 ? {} : { reasoning }),
    ...(toolCalls.length === 0 ? {} : { toolCalls })
  }
}

const messagesOf = (message: LanguageModelV4Message): ReadonlyArray<Message> => {
  switch (message.role) {
    case "system":
      return [{ role: "system", content: message.content }]
    case "user":
      return [{
        role: "user",
        content: contentOf(message.content.map((part) => part.type === "text" ? part : partOf(part)))
      }]
    case "assistant":
      return [assistantMessage(message)]
    case "tool":
      return message.content.flatMap((part) => part.type === "tool-result" ? [resultMessage(part)] : [])
  }
}

/** Throws an `UnsupportedFunctionalityError` for a file that is neither an image nor a text. */
export const toMessages = (prompt: LanguageModelV4Prompt): ReadonlyArray<Message> => prompt.flatMap(messagesOf)
