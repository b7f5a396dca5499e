/**
 * A prompt of `effect/ai` as Troupe's messages.
 *
 * **Details**
 *
 * What a model thought before is no part of what it said, and questions of approval are the program's own: both are
 * passed over. Files are refused.
 */
import { Array as Arr, Effect } from "effect"
import type { AiError } from "effect/ai"
import { Prompt } from "effect/ai"
import type { Message, Request } from "../../services/Inference.ts"
import type { ToolCall } from "../../services/Job.ts"
import { invalid, unsupported } from "./AiFailure.ts"

type Failable<A> = Effect.Effect<A, AiError.AiError>

const textOf = (method: string, parts: ReadonlyArray<Prompt.UserMessagePart>): Failable<string> =>
  Effect.map(
    Effect.forEach(parts, (part) =>
      part.type === "text" ? Effect.succeed(part.text) : Effect.fail(unsupported(method, "A file part"))),
    (texts) =>
      texts.join("")
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

/** One message, and one more before and after each result that a provider put among the parts. */
const assistantMessages = Effect.fnUntraced(function*(
  method: string,
  parts: ReadonlyArray<Prompt.AssistantMessagePart>
): Effect.fn.Return<Array<Message>, AiError.AiError> {
  const messages: Array<Message> = []
  let content = ""
  let toolCalls: Array<ToolCall> = []
  const flush = () => {
    if (content !== "" || toolCalls.length > 0) {
      messages.push({ role: "assistant", content, ...(toolCalls.length === 0 ? {} : { toolCalls }) })
    }
    content = ""
    toolCalls = []
  }
  for (const part of parts) {
    switch (part.type) {
      case "text":
        content += part.text
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
      return Effect.map(textOf(method, message.content), (content) => [{ role: "user", content }])
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
