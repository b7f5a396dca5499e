/**
 * How long a text may be that is to become tokens: all jobs of a thread wait meanwhile, so one of megabytes is refused
 * before it is made into any.
 */
import type { ChatMessage } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"
import type { Piece } from "./ChatTemplate.ts"

/** Throws for a text of so many characters. */
export type Check = (characters: number) => void

/** What may be made into tokens only to see or count them, whatever the window: some tenths of a second, in characters. */
const mostToCount = 100_000

/**
 * For what must fit the window.
 *
 * @param longestToken characters of the vocabulary's longest token
 */
export const fitCheck = (contextWindow: number, longestToken: number): Check => (characters) => {
  const promptTokens = Math.ceil(characters / longestToken)
  if (promptTokens >= contextWindow) {
    refuse({ kind: "context_length_exceeded", promptTokens, atLeast: true, contextWindow })
  }
}

/** For what is only made into tokens: more than fits the window, where that is little. */
export const countCheck = (contextWindow: number, longestToken: number): Check => {
  const most = Math.max(contextWindow * longestToken, mostToCount)
  return (characters) => {
    if (characters <= most) return
    refuse({
      kind: "invalid_request",
      path: "input",
      message: `Expected at most ${most} characters, not ${characters}; send the text in parts`
    })
  }
}

/** What callers wrote, in characters: of a prompt not even the template need be filled in. */
export const charactersOf = (messages: ReadonlyArray<ChatMessage>): number =>
  messages.reduce((sum, { content }) => sum + content.length, 0)

export const lengthOf = (pieces: ReadonlyArray<Piece>): number => pieces.reduce((sum, { text }) => sum + text.length, 0)
