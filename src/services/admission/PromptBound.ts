/** The most tokens that the prompt of a request can have: more than it has, so that what it costs is never more. Pure. */
import type { Message } from "../../domain/Message.ts"

/** More than providers count for one image. */
const tokensPerImage = 5_000

/** More than a template adds to a message. */
const tokensPerMessage = 16

interface Prompt {
  readonly messages?: ReadonlyArray<Message> | undefined
  readonly tools?: ReadonlyArray<unknown> | undefined
}

const imagesOf = ({ content }: Message): number =>
  typeof content === "string" ? 0 : content.filter(({ type }) => type === "image").length

/** @param promptLength characters, by `promptLengthOf`: a token has at least one */
export const mostPromptTokens = ({ messages = [], tools = [] }: Prompt, promptLength = 0): number => {
  const overhead = messages.reduce((sum, message) => sum + tokensPerMessage + tokensPerImage * imagesOf(message), 0)
  return promptLength + overhead + (tools.length === 0 ? 0 : JSON.stringify(tools).length)
}
