/**
 * A prompt of `effect/ai` as Troupe's messages.
 *
 * **Details**
 *
 * Reasoning of earlier answers is kept as text; approval requests are left out. Image files of users become images; other
 * files are rejected.
 */
import { Array as Arr, Effect } from "effect"
import type { AiError } from "effect/ai"
import { Prompt } from "effect/ai"
import type { Message, Request } from "../../domain/Inference.ts"
import type { ToolCall } from "../../domain/Job.ts"
import type { Content, ImagePart, ImageSource, Part } from "../../domain/Message.ts"
import { mediaTypes, textOf } from "../../domain/Message.ts"
import { invalid, unsupported } from "./AiFailure.ts"

type Failable<A> = Effect.Effect<A, AiError.AiError>

/** The media type within a file's data takes precedence over `mediaType`, which is a guess for a URL. */
const sourceOf = ({ data, mediaType }: Prompt.FilePart): ImageSource | undefined => {
  const text = data instanceof Uint8Array ? Buffer.from(data).toString("base64") : String(data)
  const [head, type = mediaType] = /^data:([^;,]*)(?:;[^;,]*)*;base64,/i.exec(text) ?? []
  if (data instanceof URL && head === undefined) return { type: "url", url: text }
  const known = mediaTypes.find((one) => one === type.toLowerCase())
  return known && { type: "base64", mediaType: known, data: head === undefined ? text : text.slice(head.length) }
}

const imageOf = (method: string, file: Prompt.FilePart): Failable<ImagePart> => {
  const source = file.mediaType.startsWith("image/") ? sourceOf(file) : undefined
  return source === undefined
    ? Effect.fail(unsupported(method, `A file part of the type ${file.mediaType}`))
    : Effect.succeed({ type: "image", source })
}

/** Parts that are all texts become one text. */
const contentOf = (method: string, parts: ReadonlyArray<Prompt.UserMessagePart>): Failable<Content> =>
  Effect.map(
    Effect.forEach(parts, (part): Failable<Part> =>
      part.type === "text" ? Effect.succeed({ type: "text", text: part.text }) : imageOf(method, part)),
    (found) =>
      found.some(({ type }) =>
          type === "image"
        )
        ? found
        : textOf(found)
  )

/** Texts stay as they are; everything else is JSON. */
const resultText = ({ modelOutput, result }: Prompt.ToolResultPart): string => {
  if (modelOutput !== undefined) return Prompt.toolModelOutputToText(modelOutput)
  return typeof result === "string" ? result : JSON.stringify(result ?? null)
}

const resultMessage = (part: Prompt.ToolResultPart): Message => ({
  role: "tool",
  content: resultText(part),
  toolCallId: part.id
})

const callOf = ({ id, name, params }: Prompt.ToolCallPart): ToolCall => ({
  id,
  name,
  arguments: JSON.stringify(params ?? {})
})

/** One message, split before and after each tool result that a provider put among its parts. */
const assistantMessages = Effect.fnUntraced(function*(
  method: string,
  parts: ReadonlyArray<Prompt.AssistantMessagePart>
): Effect.fn.Return<Array<Message>, AiError.AiError> {
  const messages: Array<Message> = []
  let content = ""
  let thoughts = ""
  let toolCalls: Array<ToolCall> = []
  const flush = () => {
    if (content !== "" || toolCalls.length > 0) {
      messages.push({
        role: "assistant",
        content,
        ...(thoughts === "" ? {} : { thoughts }),
        ...(toolCalls.length === 0 ? {} : { toolCalls })
      })
    }
    content = ""
    thoughts = ""
    toolCalls = []
  }
  for (const part of parts) {
    switch (part.type) {
      case "text":
        content += part.text
        break
      case "reasoning":
        thoughts += part.text
        break
      case "tool-call":
        toolCalls.push(callOf(part))
        break
      case "tool-result":
        flush()
        messages.push(resultMessage(part))
        break
      case "file":
        return yield* unsupported(method, "A file part")
    }
  }
  flush()
  return messages
})

const messagesOf = (method: string, message: Prompt.Message): Failable<Array<Message>> => {
  switch (message.role) {
    case "system":
      return Effect.succeed([{ role: "system", content: message.content }])
    case "user":
      return Effect.map(contentOf(method, message.content), (content) => [{ role: "user", content }])
    case "assistant":
      return assistantMessages(method, message.content)
    case "tool":
      return Effect.succeed(message.content.filter((part) => part.type === "tool-result").map(resultMessage))
  }
}

/** At least one message. */
export const toMessages = (method: string, prompt: Prompt.Prompt): Failable<Request["messages"]> =>
  Effect.forEach(prompt.content, (message) => messagesOf(method, message)).pipe(
    Effect.map(Arr.flatten),
    Effect.filterOrFail(Arr.isArrayNonEmpty, () => invalid(method, "The prompt has no message."))
  )
