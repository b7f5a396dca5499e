/**
 * Limits of texts to tokenize, and conversations rendered within them. All jobs of a thread wait during tokenization, so a
 * text of megabytes is rejected before.
 */
import type { ChatMessage, GenerateJob } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"
import type { Thoughts, ThoughtStyle } from "../job/ThoughtSyntax.ts"
import { begin, planOf } from "../job/ThoughtSyntax.ts"
import type { ChatTemplate, Piece } from "./ChatTemplate.ts"

/** Throws for a text with too many characters. */
export type Check = (characters: number) => void

/** Characters that may always be tokenized or counted, whatever the window: some tenths of a second. */
const mostToCount = 100_000

/**
 * For a prompt, which must fit the window.
 *
 * @param longestToken characters of the vocabulary's longest token
 */
export const fitCheck = (contextWindow: number, longestToken: number): Check => (characters) => {
  const promptTokens = Math.ceil(characters / longestToken)
  if (promptTokens >= contextWindow) {
    refuse({ kind: "context_length_exceeded", promptTokens, atLeast: true, contextWindow })
  }
}

/** For a text that is only tokenized: it may be longer than the window. */
export const countCheck = (contextWindow: number, longestToken: number): Check => {
  const most = Math.max(contextWindow * longestToken, mostToCount)
  return (characters) => {
    if (characters <= most) return
    refuse({
      kind: "invalid_request",
      path: "input",
      message: `Expected at most ${most} characters, got ${characters}. Send the text in parts`
    })
  }
}

/** Characters of the messages, checked before the template is rendered. */
export const charactersOf = (messages: ReadonlyArray<ChatMessage>): number =>
  messages.reduce((sum, { content }) => sum + content.length, 0)

const lengthOf = (pieces: ReadonlyArray<Piece>): number => pieces.reduce((sum, { text }) => sum + text.length, 0)

/** The pieces of a conversation; throws an `EngineFailure` if it is too long or the template rejects it. */
export const render = (
  template: ChatTemplate,
  check: Check,
  messages: ReadonlyArray<ChatMessage>,
  tools: GenerateJob["tools"] = [],
  thinking?: GenerateJob["thinking"]
): ReadonlyArray<Piece> => {
  if (tools.length > 0 && !template.supportsTools) {
    refuse({
      kind: "not_supported",
      path: "tools",
      message: "the model's chat template has no tools",
      capability: "tools"
    })
  }
  check(charactersOf(messages))
  const pieces = template.render(messages, tools, thinking)
  check(lengthOf(pieces))
  return pieces
}

/** The prompt of a job, and how its answer begins: with thoughts or with its text. */
export const renderJob = (
  template: ChatTemplate,
  style: ThoughtStyle | undefined,
  check: Check,
  job: GenerateJob,
  tools: GenerateJob["tools"]
): { readonly pieces: ReadonlyArray<Piece>; readonly thoughts?: Thoughts } => {
  if (style === undefined) return { pieces: render(template, check, job.messages, tools, job.thinking) }
  const { thinking, thinks } = planOf(style, job)
  return begin(style, render(template, check, job.messages, tools, thinking), thinks, template.hasThinkingSwitch)
}

/**
 * Refuses the ids of tokens that the model does not have.
 *
 * @param size of the vocabulary, tokens
 */
export const refuseUnknownToken = (tokens: ReadonlyArray<number>, size: number, path: string): void => {
  const index = tokens.findIndex((token) => token >= size)
  if (index < 0) return
  refuse({
    kind: "invalid_request",
    path,
    message:
      `Expected token ids below ${size}, the size of the model's own vocabulary, got ${tokens[index]} at position ` +
      `${index}. Clients that count tokens for another model send its ids: send texts`
  })
}
